#!/bin/sh
# Build the harness and the device code for one architecture: bench/gpu/build.sh OUT [sm_90a]. Wants an
# nvcc that knows --split-compile.
set -e
out=$1
arch=${2:-sm_90a}
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"
number=${arch#sm_}
nvcc -std=c++17 -O3 --split-compile 0 -I"$root/include" -cubin -gencode "arch=compute_$number,code=$arch" \
    -Xptxas -v "$root/plugins/gpu/device/gpu.cu" -o "$out/gpu.cubin" 2>"$out/ptxas.log" ||
    { cat "$out/ptxas.log"; exit 1; }
grep 'instructions are serialized' "$out/ptxas.log" && echo "these wait for each wgmma"
for part in plan plan_wide; do
    cc -std=c17 -O2 -I"$root/include" -c "$root/plugins/gpu/$part.c" -o "$out/$part.o"
done
nvcc -std=c++17 -O2 -I"$root/include" -gencode "arch=compute_$number,code=$arch" \
    "$root/bench/gpu/harness.cu" "$out/plan.o" "$out/plan_wide.o" -ldl -o "$out/harness"
