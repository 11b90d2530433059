#!/usr/bin/env bash
# plugin.sh find_package|pkg_config: the example plugin builds, exports its entry alone, wins
# the shape it was made for, leaves every other to those below, and computes what it should.
source "$(dirname "$0")/common.sh"
need python3

build_example plugin "$1"
plugin=$work/result/gemma_down.so
symbols=$(nm -D --defined-only "$plugin")
[[ $(wc -l <<<"$symbols") == 1 && $symbols == *" T kry_plugin_gemma_down" ]] ||
    fail "$plugin exports more or other than its entry: $symbols"

kernelry() { "$prefix/bin/kernelry" "$@" --plugin-path "$plugin"; }
shapes=$PACKAGE_SOURCE/tests/data/shapes.json

kernelry plugins
kernelry explain --shapes "$shapes" --json >"$work/explain.json"
won=$(json "$work/explain.json" '[l["name"] for l in d["layers"] if l["kernel"] == "gemma_down"]')
[[ $won == "['gemma4-26b.down_proj']" ]] || fail "it should win one shape, and won $won"
silent=$(json "$work/explain.json" '[l["name"] for l in d["layers"] for c in l["candidates"]
    if c["kernel"] == "gemma_down" and c["verdict"] == "refuses" and not c["refusal"]["reason"]]')
[[ $silent == "[]" ]] || fail "it refuses without a reason: $silent"

# Without it that shape goes to another kernel, so the plugin is what made the difference.
"$prefix/bin/kernelry" explain --shapes "$shapes" --json >"$work/without.json"
other=$(json "$work/without.json" '[l["kernel"] for l in d["layers"] if l["name"] == "gemma4-26b.down_proj"][0]')
[[ $other != gemma_down && $other != None ]] || fail "without the plugin, $other wins its shape"

# Its numbers, with and without a bias: run compares them with an independent product.
json "$shapes" 'json.dumps({"shapes": [dict(s, name=s["name"] + str(bias), bias=bias)
    for s in d["shapes"] if s["name"] == "gemma4-26b.down_proj" for bias in (False, True)]})' \
    >"$work/shape.json"
kernelry run --shapes "$work/shape.json" --kernel gemma_down --m 0,1,7
