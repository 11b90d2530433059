#!/usr/bin/env bash
# embed_cpp.sh find_package|pkg_config: the C++ example builds, prepares, and maps the next time.
source "$(dirname "$0")/common.sh"
need g++

build_example embed_cpp "$1"
check_cached_example "$work/result/embed_cpp"
