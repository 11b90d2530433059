#!/usr/bin/env bash
# new_plugin.sh c|make|cuda|hip: the project that `kernelry new-plugin` writes builds against the install
# tree, from a folder outside the sources, and passes its own test at once.
source "$(dirname "$0")/common.sh"

name=quick_one
plugin=$work/$name/build/$name.so
export CMAKE_PREFIX_PATH=$prefix

new_plugin() { (cd "$work" && "$prefix/bin/kernelry" new-plugin "$name" "$@"); }

# build_and_test [CMAKE ARGUMENT...]
build_and_test() {
    need ninja
    "$PACKAGE_CMAKE" -G Ninja -S "$work/$name" -B "$work/$name/build" -DCMAKE_C_FLAGS="-Wall -Wextra -Werror" "$@"
    ninja -C "$work/$name/build"
    "$(dirname "$PACKAGE_CMAKE")/ctest" --test-dir "$work/$name/build" --output-on-failure |
        tee "$work/tests"
}

# One symbol, and it says yes and no where it should.
check_plugin() {
    local symbols
    symbols=$(nm -D --defined-only "$1")
    [[ $(wc -l <<<"$symbols") == 1 && $symbols == *" T kry_plugin_$name" ]] ||
        fail "$1 exports more or other than its entry: $symbols"
    "$prefix/bin/kernelry" plugins --plugin-path "$1" | grep -q "$name" || fail "$1 is not listed"
}

case $1 in
c)
    new_plugin
    build_and_test
    grep -q '100% tests passed' "$work/tests" || fail "its own test did not pass"
    check_plugin "$plugin"
    ;;
make)
    need make
    need pkg-config
    new_plugin
    make -C "$work/$name" test CFLAGS="-std=c17 -O2 -Wall -Wextra -Werror"
    check_plugin "$work/$name/$name.so"
    ;;
cuda)
    nvcc=$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc) || skip "no nvcc here"
    new_plugin --cuda
    build_and_test -DCMAKE_CUDA_COMPILER="$nvcc"
    check_plugin "$plugin"
    grep -Eq 'answers \.+ +Passed' "$work/tests" || fail "its answers were not checked"
    ;;
hip)
    need clang++-19
    [[ -f /usr/include/hip/hip_runtime.h || -d /opt/rocm/include/hip ]] ||
        skip "no hip/hip_runtime.h here (Debian: libamdhip64-dev)"
    new_plugin --hip
    build_and_test -DCMAKE_HIP_COMPILER="$(command -v clang++-19)"
    check_plugin "$plugin"
    grep -Eq 'answers \.+ +Passed' "$work/tests" || fail "its answers were not checked"
    ;;
*) fail "what is $1?" ;;
esac
if grep -rn "my_plugin\|@cuda\|@hip\|@both" "$work/$name" --include='*.[ch]*' --include='*.txt' --include=Makefile; then
    fail "the lines above still show what they were made of"
fi
