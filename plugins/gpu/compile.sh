#!/bin/sh
# compile.sh CACHE OUTPUT INPUT... -- COMPILER ARGUMENT...
#
# Run `COMPILER ARGUMENT... -o OUTPUT`, or take what it made of the same inputs, arguments and
# version before from the folder CACHE ("" for none), which several build folders may share.
set -eu
cache=$1
output=$2
shift 2

sums=
for argument; do
    shift
    [ "$argument" != -- ] || break
    sums=$sums$(sha256sum <"$argument")
done
if [ -z "$cache" ]; then
    exec "$@" -o "$output"
fi

key=$(printf '%s\n' "$sums" "$*" "$("$1" --version)" | sha256sum | cut -c1-64)
# A cache that cannot be written is no reason to fail. Another build may be making the same just now.
if mkdir -p "$cache" 2>/dev/null && touch "$cache/$key.lock" 2>/dev/null && command -v flock >/dev/null
then
    exec 9>"$cache/$key.lock"
    flock 9 || : # a file system without locks
fi
if [ -f "$cache/$key" ]; then
    exec cp "$cache/$key" "$output"
fi
"$@" -o "$output"
# Named at once, so that nobody reads half.
if cp "$output" "$cache/$key.$$" 2>/dev/null; then
    mv "$cache/$key.$$" "$cache/$key"
fi
