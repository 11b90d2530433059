#!/usr/bin/env bash
# tests/gpu/pack.sh BUILD FOLDER: put together what smoke.sh needs on a machine with a GPU that has
# no more than a driver: the install tree of a build, the libraries that it links against, the
# test of layers, a model, and smoke.sh itself.
set -euo pipefail
(($# == 2)) || {
    sed -n '2,4s/^# //p' "$0" >&2
    exit 2
}
build=$(cd "$1" && pwd)
source=$(cd "$(dirname "$0")/../.." && pwd)
rm -rf "$2"
mkdir -p "$2/libraries"
folder=$(cd "$2" && pwd)

cmake --install "$build" --prefix "$folder/install" --strip >"$folder/install.log"
cp "$build/tests/gpu/test_gpu_layer" "$source/tests/gpu/smoke.sh" "$source/tests/data/shapes.json" \
    "$folder" # the shapes for BENCH
strip "$folder/test_gpu_layer"

# What is not the C library's, which every machine has.
ldd "$folder"/install/bin/kernelry "$folder"/install/lib/kernelry/plugins/*.so |
    awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -Ev '/(libc|libm|libdl|libpthread|librt|ld-linux[^/]*|libkernelry[^/]*)\.so' |
    while read -r library; do cp -L "$library" "$folder/libraries"; done

"$build/tests/support/make_model" gemma "$folder/dense" >/dev/null
"$folder/install/bin/kernelry" quantize "$folder/dense" "$folder/gemma-w4" --bits 4 --group-size 64 \
    >/dev/null
rm -rf "$folder/dense" "$folder/install/include" "$folder"/install/lib/cmake
du -sh "$folder"
