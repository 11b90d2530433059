#!/usr/bin/env bash
# embed.sh find_package|pkg_config: the embedding example builds and runs a layer.
source "$(dirname "$0")/common.sh"

build_example embed "$1"
"$work/result/embed" "$model" "$layer" | tee "$work/output"
grep -q "^$layer .* runs on kernel" "$work/output" || fail "no kernel was named"
grep -Eq '^y =( -?[0-9.e+-]+){4} \.\.\.$' "$work/output" || fail "no four numbers"
if "$work/result/embed" "$model" no.such.layer 2>"$work/error"; then
    fail "a missing layer was no error"
fi
grep -q no.such.layer "$work/error" || fail "the message does not name the layer"
