#!/usr/bin/env bash
# setup.sh [FOLDER]: a virtual environment with vLLM for a CPU, every version pinned; prints its
# python. A finished one is used again; .cache/vllm by default, 4 GB. Exit status 3: it cannot be had
# here (no Python 3.11, no network).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly here requirements=$here/requirements.txt
folder=${1:-$(cd "$here/../../../.." && pwd)/.cache/vllm}

cannot() {
    printf 'no vLLM: %s\n' "$*" >&2
    exit 3
}

install() {
    "$python" -m venv "$folder" &&
        "$folder/bin/pip" install --quiet --retries 2 --no-deps --requirement "$requirements" &&
        # A system without CUDA lacks the rest of what PyTorch loads.
        { "$folder/bin/python" -c 'import torch' 2>/dev/null ||
            "$folder/bin/pip" install --quiet --retries 2 "$(grep '^torch==' "$requirements")"; }
}

python=$(command -v python3.11) || cannot "its requirements are pinned for Python 3.11, not here"
"$python" -c 'import ensurepip' 2>/dev/null || cannot "this Python 3.11 makes no environments"
stamp=$(sha256sum <"$requirements")
if [[ ! -f $folder/stamp || $(<"$folder/stamp") != "$stamp" ]]; then
    rm -rf "$folder"
    mkdir -p "$(dirname "$folder")"
    install >&2 || cannot "vLLM could not be had from PyPI"
    echo "$stamp" >"$folder/stamp"
fi
echo "$folder/bin/python"
