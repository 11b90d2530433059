#!/usr/bin/env bash
# What the package tests share; each sources it first. Sets `prefix`, the moved install tree,
# and `work`, an empty folder of the test's own.
set -euo pipefail

prefix=$PACKAGE_WORK/moved
libdir=$prefix/$PACKAGE_LIBDIR
# shellcheck disable=SC2034 # not every test uses both
model=$PACKAGE_WORK/tiny-w4
# shellcheck disable=SC2034
layer=model.layers.0.mlp.down_proj
work=$PACKAGE_WORK/$(basename "$0" .sh)-${1-test}
rm -rf "$work"
mkdir -p "$work"
export PKG_CONFIG_PATH=$libdir/pkgconfig

# Nothing of the caller's environment may steer the library.
for name in "${!KERNELRY_@}"; do unset "$name"; done
unset LD_LIBRARY_PATH

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

skip() {
    printf 'skipped: %s\n' "$*"
    exit 77
}

need() {
    command -v "$1" >/dev/null || skip "no $1 here"
}

# build_example FOLDER find_package|pkg_config: build a copy of it in $work; the result, by the
# name of the target, lies in $work/result/.
build_example() {
    cp -r "$PACKAGE_SOURCE/examples/$1" "$work/source"
    case $2 in
    find_package)
        CXXFLAGS=-Werror "$PACKAGE_CMAKE" -G Ninja -S "$work/source" -B "$work/result" \
            -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS=-Werror
        ninja -C "$work/result"
        ;;
    pkg_config)
        need make
        need pkg-config
        make -C "$work/source"
        ln -s source "$work/result"
        ;;
    esac
}

# check_cached_example PROGRAM: it prepares, the next time maps with the same numbers, and names a
# layer that is missing.
check_cached_example() {
    "$1" "$model" "$layer" "$work/cache.kry" | tee "$work/first"
    "$1" "$model" "$layer" "$work/cache.kry" | tee "$work/second"
    grep -q "weights prepared$" "$work/first" || fail "the first run did not prepare"
    grep -q "weights mapped$" "$work/second" || fail "the second run did not map"
    [[ $(grep '^y =' "$work/first") == $(grep '^y =' "$work/second") ]] || fail "the numbers differ"
    if "$1" "$model" no.such.layer "$work/none" 2>"$work/error"; then
        fail "a missing layer was no error"
    fi
    grep -q no.such.layer "$work/error" || fail "the message does not name the layer"
}

# json FILE EXPRESSION: evaluate a Python expression over the document `d`.
json() {
    python3 -c 'import json, sys; d = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$@"
}
