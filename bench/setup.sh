#!/usr/bin/env bash
# Make the virtual environment with the libraries that `kernelry bench --peer` measures:
#
#   bench/setup.sh [FOLDER]      default: bench/venv; about 2.6 GB, 900 MB to download
#
# A folder that was made from the same requirements is left as it is. Prints the Python to use.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
folder=${1:-$here/venv}
stamp=$folder/requirements.txt

if ! cmp -s "$here/requirements.txt" "$stamp"; then
    python3 -m venv "$folder" >&2
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --requirement "$here/requirements.txt" >&2
    cp "$here/requirements.txt" "$stamp"
fi
printf '%s\n' "$folder/bin/python"
