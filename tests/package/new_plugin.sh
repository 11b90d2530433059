#!/usr/bin/env bash
# new_plugin.sh c|make|cuda|played|hip: the project that `kernelry new-plugin` writes builds against the install
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

# build_hip ARCHITECTURE: without ROCm, of which the headers do. Code for the device is compiled as far
# as assembly; the host's code is linked with a runtime that does nothing, so that the plugin can be
# loaded and asked.
build_hip() {
    local headers="" place
    for place in "${ROCM_PATH:-/opt/rocm}/include" /usr/include "$PACKAGE_SOURCE/.cache/hip/usr/include"; do
        [[ -n $headers || ! -f $place/hip/hip_runtime.h ]] || headers=$place
    done
    [[ -n $headers ]] || skip "no hip/hip_runtime.h here (Debian: libamdhip64-dev)"
    local compile=(clang++-19 -x hip -O2 -fPIC -Wall -Werror -nogpuinc -isystem "$headers"
        "-I$prefix/include" "--offload-arch=$1")
    mkdir "$work/$name/build"
    cd "$work/$name/build"
    "${compile[@]}" -nogpulib --offload-device-only -S -o device.s ../device.hip
    grep -q "amdhsa_kernel" device.s || fail "there is no kernel in device.s"
    "${compile[@]}" --offload-host-only -c -o device.o ../device.hip
    nm -u device.o | awk '$2 ~ /^__hip_(fatbin|gpubin)/ { printf "void *%s;\n", $2; next }
        $2 ~ /^(__)?hip/ { printf "void *%s(void) { return 0; }\n", $2 }' >runtime.c
    clang-19 -w -fPIC -c runtime.c
    clang-19 -Wall -Wextra -Werror -O2 -fPIC "-I$prefix/include" "-DARCHITECTURES=\"$1\"" \
        -c -o host.o "../$name.c"
    clang++-19 -shared -Wl,--version-script="$libdir/cmake/Kernelry/plugin.map" -o "$name.so" \
        host.o device.o runtime.o
    cd /
}

# The CUDA project as a plugin for a CPU that plays the device, where all duties can be checked: launches
# are calls, and weights are prepared by the device's code.
play() {
    need python3
    local flags=(-O2 -Wall -Werror -fPIC "-I$prefix/include" "-I$PACKAGE_SOURCE/tests/package/played")
    mkdir "$work/$name/build"
    cd "$work/$name"
    python3 - <<'END'
import re

source = open("device.cu").read()
launch = re.compile(r"(\w+)<<<(.*?), THREADS, 0, .*?>>>\((.*?)\);", re.S)
source, count = launch.subn(r"play(\2, THREADS, [&] { \1(\3); });", source)
assert count == 2, f"{count} launches"
open("played.cc", "w").write(source)
END
    sed -i "s/\"cuda\"/\"cpu\"/; s/KRY_MEMORY_DEVICE/KRY_MEMORY_HOST/" "$name.c"
    g++ -std=c++17 "${flags[@]}" -c played.cc
    cc -std=c17 "${flags[@]}" -DARCHITECTURE=0 -c "$name.c"
    g++ -shared -Wl,--version-script="$libdir/cmake/Kernelry/plugin.map" -o "build/$name.so" \
        "$name.o" played.o
    cd /
}

# One symbol, and it says yes and no where it should.
check_plugin() {
    local symbols
    symbols=$(nm -D --defined-only "$1")
    [[ $(wc -l <<<"$symbols") == 1 && $symbols == *" T kry_plugin_$name" ]] ||
        fail "$1 exports more or other than its entry: $symbols"
    "$prefix/bin/kernelry" plugins --plugin-path "$1" >"$work/plugins"
    grep -q "$name" "$work/plugins" || fail "$1 is not listed"
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
played)
    need g++
    new_plugin --cuda
    play
    "$prefix/bin/kernelry" verify "$plugin" --quick | tee "$work/report"
    grep -q '^25 ok, 0 failed, 3 skipped' "$work/report" || fail "more or less was checked than expected"
    ;;
hip)
    need clang++-19
    new_plugin --hip
    build_hip gfx90a
    check_plugin "$plugin"
    "$prefix/bin/kernelry" verify "$plugin" --quick --device rocm:gfx90a
    "$prefix/bin/kernelry" explain --device rocm:gfx1100 --in-features 64 --out-features 64 \
        --plugin-path "$plugin" --json >"$work/explain.json" && fail "gfx1100 has no code"
    grep -q "built for gfx90a" "$work/explain.json" || fail "the refusal does not name the code"
    ;;
*) fail "what is $1?" ;;
esac
if grep -rn "my_plugin\|@cuda\|@hip\|@both" "$work/$name" --include='*.[ch]*' --include='*.txt' --include=Makefile; then
    fail "the lines above still show what they were made of"
fi
