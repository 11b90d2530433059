#!/usr/bin/env bash
# embed_cpp.sh find_package|pkg_config: the C++ example builds, prepares, and maps the next time.
source "$(dirname "$0")/common.sh"
need g++

build_example embed_cpp "$1"
"$work/result/embed_cpp" "$model" "$layer" "$work/cache.kry" | tee "$work/first"
"$work/result/embed_cpp" "$model" "$layer" "$work/cache.kry" | tee "$work/second"
grep -q "weights prepared$" "$work/first" || fail "the first run did not prepare"
grep -q "weights mapped$" "$work/second" || fail "the second run did not map"
[[ $(grep '^y =' "$work/first") == $(grep '^y =' "$work/second") ]] || fail "the numbers differ"
if "$work/result/embed_cpp" "$model" no.such.layer "$work/none" 2>"$work/error"; then
    fail "a missing layer was no error"
fi
grep -q no.such.layer "$work/error" || fail "the message does not name the layer"
