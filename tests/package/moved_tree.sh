#!/usr/bin/env bash
# The moved tree works from any folder: the command finds its library, the library its plugins.
source "$(dirname "$0")/common.sh"

cd /
"$prefix/bin/kernelry" plugins --json >"$work/plugins.json"
cat "$work/plugins.json"
plugin_dir=$(pkg-config --variable=plugindir kernelry)
[[ $(realpath "$plugin_dir") == "$(realpath "$libdir/kernelry/plugins")" ]] ||
    fail "pkg-config tells the plugin directory $plugin_dir"
for file in "$plugin_dir"/*.so; do
    grep -qF "$(realpath "$file")" "$work/plugins.json" || fail "$file was not found"
done

# The library finds the helper that tries plugins as well.
"$prefix/bin/kernelry" plugins --probe --json >"$work/probed.json"
cmp "$work/plugins.json" "$work/probed.json" || fail "a trial told otherwise than loading"
