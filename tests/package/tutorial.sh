#!/usr/bin/env bash
# docs/write-a-kernel.md does what it says, command by command and section by section, in a folder
# outside the sources and against the install tree alone. Its plugin then keeps every duty, wins the
# shape it was made for over a built-in kernel, leaves every other, and is faster than the reference.
source "$(dirname "$0")/common.sh"
need python3
need ninja

here=$PACKAGE_SOURCE/tests/package
python3 "$here/page.py" "$PACKAGE_SOURCE/docs/write-a-kernel.md" gemma_down.c >"$work/script"
(($(grep -c END_OF_BLOCK "$work/script") >= 8)) || fail "the page has fewer sections than it had"
outside=$(mktemp -d "${TMPDIR:-/tmp}/kernelry-tutorial-XXXXXX")
trap 'rm -rf "$outside"' EXIT
export PREFIX=$prefix CMAKE_GENERATOR=Ninja CFLAGS="-Wall -Wextra -Werror"
(cd "$outside" && PATH=$(dirname "$PACKAGE_CMAKE"):$PATH bash "$work/script") 2>&1 | tee "$work/output"

plugin=$outside/gemma_down/build/gemma_down.so
symbols=$(nm -D --defined-only "$plugin")
[[ $(wc -l <<<"$symbols") == 1 && $symbols == *" T kry_plugin_gemma_down" ]] ||
    fail "$plugin exports more or other than its entry: $symbols"

# The page's last `verify`, without --quick, was a whole one.
grep -q '^  [0-9]* ok, 0 failed, [0-9]* skipped' "$work/output" || fail "verify reported nothing"

kernelry() { "$prefix/bin/kernelry" "$@" --plugin-path "$plugin"; }
shapes=$PACKAGE_SOURCE/tests/data/shapes.json
kernelry explain --shapes "$shapes" --json >"$work/explain.json"
won=$(json "$work/explain.json" '[l["name"] for l in d["layers"] if l["kernel"] == "gemma_down"]')
[[ $won == "['gemma4-26b.down_proj']" ]] || fail "it should win one shape, and won $won"
silent=$(json "$work/explain.json" '[l["name"] for l in d["layers"] for c in l["candidates"]
    if c["kernel"] == "gemma_down" and c["verdict"] == "refuses" and not c["refusal"]["reason"]]')
[[ $silent == "[]" ]] || fail "it refuses without a reason: $silent"

# It outranks by its priority: a built-in kernel accepts the shape and comes after it, and runs it
# where the plugin is not.
beaten=$(json "$work/explain.json" '[c["kernel"] for l in d["layers"]
    if l["name"] == "gemma4-26b.down_proj" for c in l["candidates"]
    if c["verdict"] == "accepts" and c["priority"] < 700]')
"$prefix/bin/kernelry" explain --shapes "$shapes" --json >"$work/without.json"
other=$(json "$work/without.json" '[l["kernel"] for l in d["layers"] if l["name"] == "gemma4-26b.down_proj"][0]')
[[ $beaten == *"'$other'"* ]] || fail "without it $other runs the shape, which is none of $beaten"

# Its numbers, with and without a bias: run compares them with an independent product.
json "$shapes" 'json.dumps({"shapes": [dict(s, name=s["name"] + str(bias), bias=bias)
    for s in d["shapes"] if s["name"] == "gemma4-26b.down_proj" for bias in (False, True)]})' \
    >"$work/shape.json"
kernelry run --shapes "$work/shape.json" --kernel gemma_down --m 0,1,7

# How it compares with the reference, for who reads the log: one thread, in turn.
for kernel in reference gemma_down; do
    KERNELRY_THREADS=1 kernelry bench --in-features 2112 --out-features 2816 --group-size 32 \
        --kernel "$kernel" --m 1 --milliseconds 100 --json >"$work/bench.json"
    microseconds=$(json "$work/bench.json" 'round(d["layers"][0]["applies"][0]["least_seconds"] * 1e6)')
    printf '%s: %s us\n' "$kernel" "$microseconds"
done
