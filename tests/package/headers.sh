#!/usr/bin/env bash
# headers.sh COMPILER LANGUAGE YEAR: every installed header compiles alone, without a warning.
source "$(dirname "$0")/common.sh"
need "$1"

found=0
headers=("$prefix"/include/kernelry/*.h)
expected=4
if [[ $2 == c++ ]]; then
    headers+=("$prefix"/include/kernelry/*.hpp)
    expected=6
fi
for header in "${headers[@]}"; do
    printf '#include <kernelry/%s>\n' "$(basename "$header")" |
        "$1" -std="$2$3" -x "$2" -fsyntax-only -Wall -Wextra -Wpedantic -Wconversion -Werror \
            -I"$prefix/include" -
    found=$((found + 1))
done
((found == expected)) || fail "expected $expected headers below $prefix/include/kernelry, found $found"
