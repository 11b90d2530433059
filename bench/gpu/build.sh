#!/bin/sh
# Build the harness and the device code for one architecture: bench/gpu/build.sh OUT [sm_90]
set -e
out=$1
arch=${2:-sm_90}
root=$(cd "$(dirname "$0")/../.." && pwd)
mkdir -p "$out"
number=${arch#sm_}
nvcc -std=c++17 -O3 -I"$root/include" -cubin -gencode "arch=compute_$number,code=$arch" \
    -Xptxas -v "$root/plugins/gpu/device/gpu.cu" -o "$out/gpu.cubin" 2>"$out/ptxas.log" ||
    { cat "$out/ptxas.log"; exit 1; }
cc -std=c17 -O2 -I"$root/include" -c "$root/plugins/gpu/plan.c" -o "$out/plan.o"
nvcc -std=c++17 -O2 -I"$root/include" -gencode "arch=compute_$number,code=$arch" \
    "$root/bench/gpu/harness.cu" "$out/plan.o" -ldl -o "$out/harness"
