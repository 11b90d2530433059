"""What torch.ops.kernelry.linear costs beyond kry_layer_apply, eager, on a CPU: µs a call.

A small layer (32×32, one row) on one thread, so that there is little else. The operator and the C
function, called from a loop in C, take turns; the median of the rounds is told.
"""

import ctypes
import os
import statistics
import subprocess
import tempfile
import time

os.environ["KERNELRY_THREADS"] = "1"

import torch

import kernelry
import kernelry.torch
from kernelry._library import HERE, ffi, new

ROUNDS, CALLS = 40, 5000

LOOP = """
#include <kernelry/kernelry.h>
void loop(const kry_layer *layer, const kry_apply_args *args, int n) {
    for (int i = 0; i < n; i++)
        kry_layer_apply(layer, args);
}
"""


def compiled_loop():
    with tempfile.TemporaryDirectory() as folder:
        source, out = f"{folder}/loop.c", f"{folder}/loop.so"
        with open(source, "w", encoding="ascii") as file:
            file.write(LOOP)
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", f"-I{HERE}/include", source, "-o", out,
                        f"-L{HERE}/lib", "-l:libkernelry.so.0", f"-Wl,-rpath,{HERE}/lib"],
                       check=True)
        return ctypes.CDLL(out).loop


def address(pointer) -> ctypes.c_void_p:
    return ctypes.c_void_p(int(ffi.cast("uintptr_t", pointer)))


def microseconds(work) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) / CALLS * 1e6


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    linear = kernelry.Linear(in_features=32, out_features=32, group_size=32, x_type="f32")
    packed = torch.randint(0, 2**31 - 1, (32, 4), dtype=torch.int32)
    bound = kernelry.torch.Bound(
        linear, kernelry.Weights.compressed_tensors(packed, torch.rand(32, 1)))
    module = kernelry.torch.QuantLinear.from_tensors(
        linear, {"weight_packed": packed, "weight_scale": torch.rand(32, 1)})
    x, y, weight = torch.randn(1, 32), torch.empty(1, 32), torch.randn(32, 32)
    scratch = torch.empty(bound.layer.workspace(1).scratch_bytes + 256, dtype=torch.uint8)
    begin = scratch.data_ptr() + -scratch.data_ptr() % 256
    args = new("kry_apply_args", m=1, x=ffi.cast("void *", x.data_ptr()),
               y=ffi.cast("void *", y.data_ptr()), scratch=ffi.cast("void *", begin),
               scratch_bytes=len(scratch) - 256)
    loop = compiled_loop()
    operator = torch.ops.kernelry.linear.default

    def repeat(call):
        return lambda: [call() for _ in range(CALLS)]

    works = {
        "kry_layer_apply": lambda: loop(address(bound._handle.pointer), address(args), CALLS),
        "operator": repeat(lambda: operator(x, bound.prepared, None, 32)),
        "QuantLinear": repeat(lambda: module(x)),
        "torch.nn.functional.linear": repeat(lambda: torch.nn.functional.linear(x, weight)),
        "an empty call": repeat(lambda: None),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            times[name].append(microseconds(work))
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name:28} {median:6.2f}   (least {min(times[name]):.2f})")
    beyond = medians["operator"] - medians["kry_layer_apply"] - medians["an empty call"]
    print(f"the operator beyond the C call: {beyond:.2f} µs")


main()
