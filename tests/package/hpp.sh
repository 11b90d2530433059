#!/usr/bin/env bash
# hpp.sh COMPILER: the C++ headers do what they say, compiled without a warning; a sanitizer sees
# what the classes leave behind.
source "$(dirname "$0")/common.sh"
need "$1"
need pkg-config

here=$PACKAGE_SOURCE/tests/package
read -ra flags <<<"$(pkg-config --cflags --libs kernelry-checkpoint)"
build() {
    "$1" -std=c++17 -g -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror "${@:3}" -o "$2" \
        "$here/hpp_test.cpp" "$here/hpp_other.cpp" "${flags[@]}" -Wl,-rpath,"$libdir"
}

build "$1" "$work/plain"
mkdir "$work/plain_cache"
"$work/plain" "$model" "$layer" "$work/plain_cache"
build "$1" "$work/watched" -fsanitize=address,undefined -fno-sanitize-recover=all ||
    skip "$1 has no sanitizers here; without them all is well"
mkdir "$work/watched_cache"
"$work/watched" "$model" "$layer" "$work/watched_cache"
