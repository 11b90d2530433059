#!/usr/bin/env bash
# usage: plugin_file_test.sh FILE ENTRY LIBRARY...
# The file exports ENTRY alone, carries the note, and needs no library but those named (libc and
# the dynamic linker aside).
set -eu
file=$1
entry=$2
shift 2
status=0

fail() {
    echo "$file: $1"
    status=1
}

exported=$(nm -D --defined-only "$file" | awk '{print $NF}')
[ "$exported" = "$entry" ] || fail "exports '$exported', expected '$entry'"

readelf -nW "$file" | grep -q '^ *Kernelry ' || fail "no ELF note of the owner Kernelry"

for library in $(readelf -dW "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
    case " libc ld-linux-x86-64 ld-linux-aarch64 $* " in
    *" ${library%%.so*} "*) ;;
    *) fail "needs $library" ;;
    esac
done
exit $status
