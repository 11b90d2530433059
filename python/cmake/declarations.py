"""declarations.py COMPILER OUT INCLUDE HEADER...: Kernelry's C headers as a module for cffi.

The preprocessor takes the headers apart, so that no declaration is written twice; cffi's ABI mode
needs no compiler afterwards and no build for each Python.
"""

import pathlib
import re
import subprocess
import sys
import tempfile

import cffi

# What a capsule of __dlpack__ holds (the DLPack specification, version 0.x, without its deleter's
# type); the deleter is the capsule's own business.
DLPACK = """
typedef struct { int32_t type; int32_t id; } dl_device;
typedef struct { uint8_t code; uint8_t bits; uint16_t lanes; } dl_type;
typedef struct {
    void *data; dl_device device; int32_t ndim; dl_type dtype; int64_t *shape; int64_t *strides;
    uint64_t byte_offset;
} dl_tensor;
"""


def preprocess(compiler: str, include: str, headers: list[str]) -> str:
    # cffi knows the types of the system's headers; empty ones keep their declarations out, and
    # without __GNUC__ ours declare no attributes.
    with tempfile.TemporaryDirectory() as empty:
        for name in ("stddef.h", "stdint.h"):
            pathlib.Path(empty, name).touch()
        source = "".join(f'#include "{header}"\n' for header in headers)
        return subprocess.run(
            [compiler, "-E", "-P", "-nostdinc", "-U__GNUC__", f"-I{empty}", f"-I{include}", "-"],
            input=source, text=True, capture_output=True, check=True).stdout


def main() -> None:
    compiler, out, include, *headers = sys.argv[1:]
    text = preprocess(compiler, include, headers)
    text = re.sub(r"^static inline .*?^}", "", text, flags=re.MULTILINE | re.DOTALL)
    ffi = cffi.FFI()
    ffi.cdef(text)
    ffi.cdef(DLPACK)
    ffi.set_source("kernelry._api", None)
    ffi.emit_python_code(out)


main()
