#!/usr/bin/env bash
# The README's embedding example compiles as it stands there, and runs.
source "$(dirname "$0")/common.sh"
need pkg-config

# shellcheck disable=SC2016 # the backquotes are Markdown's
sed -n '/^```c$/,/^```$/p' "$PACKAGE_SOURCE/README.md" | sed '/^```/d' >"$work/readme.c"
grep -q run_layer "$work/readme.c" || fail "README.md shows no run_layer"
for compiler in gcc clang; do
    command -v "$compiler" >/dev/null || continue
    # shellcheck disable=SC2046
    "$compiler" -std=c17 -Wall -Wextra -Werror -I"$work" -o "$work/readme-$compiler" \
        "$PACKAGE_SOURCE/tests/package/readme_main.c" \
        $(pkg-config --cflags --libs kernelry-checkpoint) -Wl,-rpath,"$libdir"
    "$work/readme-$compiler" "$model" "$layer"
    if "$work/readme-$compiler" "$model" no.such.layer; then fail "a missing layer was no error"; fi
done
