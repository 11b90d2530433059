#!/usr/bin/env python3
"""make_seeds.py GOLDEN OUT: inputs of the harnesses from the checkpoints of tests/data/golden.

Writes OUT/safetensors/NAME, a file's header with as much of its data as fits, and
OUT/config/NAME, a folder in the form that fuzz_config.c reads.
"""
import json
import pathlib
import struct
import sys


def header_of(file):
    (size,) = struct.unpack_from("<Q", file)
    return json.loads(file[8 : 8 + size]), file[8 + size :]


def shrink(header):
    """The header with its tensors laid out anew, without the gaps of those left out; all bytes."""
    end = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            (begin, after) = tensor["data_offsets"]
            tensor["data_offsets"] = [end, end + after - begin]
            end += after - begin
    return header, end


def safetensors_input(file):
    header, _ = header_of(file)
    kept = dict(list(header.items())[:3])
    kept, size = shrink(kept)
    # Eight bytes that tell the size of the data: see fuzz_safetensors.c.
    return struct.pack("<Q", size) + json.dumps(kept, separators=(",", ":")).encode()


def line_of(name, tensor):
    return " ".join([name, tensor["dtype"], *map(str, tensor["shape"])])


def text_of(path):
    if not path.exists():
        return b""
    return json.dumps(json.loads(path.read_text()), separators=(",", ":")).encode()


def config_input(folder, file):
    header, data = header_of(file)
    tensors = [(n, t) for n, t in header.items() if n != "__metadata__"]
    tensors.sort(key=lambda item: item[1]["data_offsets"])
    lines = "\n".join(line_of(*item) for item in tensors)
    return b"\0".join(
        [text_of(folder / "config.json"), text_of(folder / "quantize_config.json"), lines.encode(), data]
    )


def main(golden, out):
    for kind in ("safetensors", "config"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    for path in sorted(golden.glob("*/model.safetensors")):
        file = path.read_bytes()
        (out / "safetensors" / path.parent.name).write_bytes(safetensors_input(file))
        (out / "config" / path.parent.name).write_bytes(config_input(path.parent, file))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
