#!/usr/bin/env bash
# A user's CMake project takes every target of the package, in C and in C++; a package without
# the checkpoint library says so to whom asks for it.
source "$(dirname "$0")/common.sh"
need g++

configure() {
    "$PACKAGE_CMAKE" -G Ninja -S "$PACKAGE_SOURCE/tests/package/consumer" "$@"
}

configure -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix"
ninja -C "$work/build"
# Linked into the program, the library is not where the plugins are; it is told.
export KERNELRY_PLUGIN_DIR=$libdir/kernelry/plugins
for program in "$work"/build/count_*; do
    count=$("$program")
    printf '%s: %s kernels\n' "$(basename "$program")" "$count"
    ((count > 0)) || fail "$program found no kernel in $KERNELRY_PLUGIN_DIR"
    if [[ $program == *static ]] && readelf -d "$program" | grep libkernelry; then
        fail "$program is not linked statically"
    fi
done
"$work/build/names_static" "$model" | grep -qx "$layer" || fail "names_static misses $layer"
if readelf -d "$work/build/names_static" | grep libkernelry; then
    fail "names_static is not linked statically"
fi

symbols=$(nm -D --defined-only "$work/build/refuses_all.so")
[[ $(wc -l <<<"$symbols") == 1 && $symbols == *" T kry_plugin_refuses_all" ]] ||
    fail "refuses_all.so exports more or other than its entry: $symbols"
"$prefix/bin/kernelry" plugins --plugin-path "$work/build/refuses_all.so"

cp -r "$prefix" "$work/without"
rm "$work/without/$PACKAGE_LIBDIR"/cmake/Kernelry/KernelryCheckpointTargets*.cmake
if configure -B "$work/build-without" -DCMAKE_PREFIX_PATH="$work/without" >"$work/log" 2>&1; then
    fail "the missing component was not missed"
fi
grep -q 'component.*checkpoint\|checkpoint.*component' "$work/log" ||
    fail "the message does not name the component: $(cat "$work/log")"
