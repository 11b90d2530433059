#!/usr/bin/env bash
# smoke.sh [OUT]: all that a machine with a GPU can show of the GPU plugin, from a folder that
# pack.sh made. Results that are kept go to OUT. The environment chooses:
#   STEPS    of: devices layer verify run sanitize bench; default: all of them
#   DEVICE   cuda:0
#   CASES    of each check of the conformance suite; default: all of a quick run
#   BENCH    options of kernelry bench; default: --yardstick --peer cublas
# Exit status: 1 when a step failed, 77 where there is no GPU.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/out}
mkdir -p "$out" && out=$(cd "$out" && pwd) && cd "$here" || exit 1
export LD_LIBRARY_PATH=$here/libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
kernelry=$here/install/bin/kernelry
plugin=$here/install/lib/kernelry/plugins/kernelry-gpu.so
device=${DEVICE:-cuda:0}
failed=0

# step NAME SECONDS COMMAND...: run it when it is wanted.
step() {
    local name=$1 seconds=$2 began=$SECONDS code=0
    shift 2
    [[ " ${STEPS:-devices layer verify run sanitize bench} " == *" $name "* ]] || return 0
    printf '\n== %s: %s\n' "$name" "${*//"$here/"/}"
    timeout --kill-after=5 "$seconds" "$@" || code=$?
    printf -- '-- %s: %s in %d s\n' "$name" \
        "$( ((code == 0)) && echo passed || echo "FAILED ($code)")" $((SECONDS - began))
    ((code == 0)) || failed=1
}

# sanitize TOOL TEST...: tests of layers under one of compute-sanitizer's tools.
sanitize() {
    local tool=$1 test
    shift
    for test in "$@"; do
        step sanitize 240 compute-sanitizer --tool "$tool" --target-processes all --error-exitcode 9 \
            --print-limit 3 "$here/test_gpu_layer" "$plugin" "$test"
    done
}

if ! "$kernelry" devices --json | grep -q '"arch": "sm_'; then
    "$kernelry" explain --in-features 128 --out-features 128 --device "$device"
    echo "no CUDA device: nothing was tested"
    exit 77
fi

step devices 60 "$kernelry" devices
step devices 60 "$kernelry" explain --in-features 2112 --out-features 2816 --group-size 32 \
    --device "$device"
step devices 60 "$kernelry" check gemma-w4 --tp 2 --device "$device"
step layer 240 "$here/test_gpu_layer" "$plugin"
step verify 400 "$kernelry" verify "$plugin" --device "$device" --quick ${CASES:+--cases "$CASES"}
step run 120 "$kernelry" run gemma-w4 --device "$device" --m 1,7,64
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        sanitize "$tool" apply_of_every_kind_of_layer_is_right
    done
else
    echo "no compute-sanitizer: left out"
fi
# shellcheck disable=SC2086 # options, not one word
step bench 600 "$kernelry" bench ${BENCH:---yardstick --peer cublas --milliseconds 200 --rounds 5} \
    --device "$device" --store "$out"
((failed == 0)) && printf '\nall passed\n' || printf '\nsomething failed\n'
exit $failed
