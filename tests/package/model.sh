#!/usr/bin/env bash
# Makes the small quantized checkpoint that the other tests use, with the installed command.
source "$(dirname "$0")/common.sh"

rm -rf "$PACKAGE_WORK/tiny" "$model"
"$PACKAGE_MAKE_MODEL" tiny "$PACKAGE_WORK/tiny"
"$prefix/bin/kernelry" quantize "$PACKAGE_WORK/tiny" "$model" --bits 4 --group-size 32
"$prefix/bin/kernelry" run "$model"
