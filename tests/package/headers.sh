#!/usr/bin/env bash
# headers.sh COMPILER LANGUAGE YEAR: every installed header compiles alone, without a warning.
source "$(dirname "$0")/common.sh"
need "$1"

found=0
for header in "$prefix"/include/kernelry/*.h; do
    printf '#include <kernelry/%s>\n' "$(basename "$header")" |
        "$1" -std="$2$3" -x "$2" -fsyntax-only -Wall -Wextra -Wpedantic -Wconversion -Werror \
            -I"$prefix/include" -
    found=$((found + 1))
done
((found == 4)) || fail "expected 4 headers below $prefix/include/kernelry, found $found"
