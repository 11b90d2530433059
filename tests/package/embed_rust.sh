#!/usr/bin/env bash
# The Rust example builds without a warning and without the network, sees structs of C's sizes,
# prepares, and maps the next time.
source "$(dirname "$0")/common.sh"
need cargo
need pkg-config

cp -r "$PACKAGE_SOURCE/examples/embed_rust" "$work/source"
rm -rf "$work/source/target"
export CARGO_TARGET_DIR=$work/target RUSTFLAGS="-D warnings"
cargo build --offline --quiet --release --manifest-path "$work/source/Cargo.toml"
program=$work/target/release/embed_rust

"$program" --sizes >"$work/rust_sizes"
{
    printf '#include <kernelry/checkpoint.h>\n#include <stdio.h>\nint main(void) {\n'
    sed 's/\(.*\) .*/printf("%s %zu\\n", "\1", sizeof(\1));/' "$work/rust_sizes"
    printf 'return 0;\n}\n'
} >"$work/sizes.c"
cc -std=c17 -I"$prefix/include" -o "$work/sizes" "$work/sizes.c"
"$work/sizes" >"$work/c_sizes"
diff "$work/rust_sizes" "$work/c_sizes" || fail "Rust and C disagree on the structs above"
(($(wc -l <"$work/c_sizes") > 5)) || fail "no sizes were told"

check_cached_example "$program"
