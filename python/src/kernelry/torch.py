"""Kernelry in PyTorch: the operator `torch.ops.kernelry.linear`, QuantLinear, convert.

The operator is given the tensor that holds a layer's prepared weights, and runs the layer that is
prepared there. Its implementation is C, registered through PyTorch's stable ABI: on PyTorch's
current stream, with its allocator and, on a CPU, its threads.
"""

from __future__ import annotations

import dataclasses
import pathlib
import secrets
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import nn

from ._checkpoint import Checkpoint
from ._errors import ArgumentError, Error, Status
from ._layer import ALIGNMENT, Layer
from ._library import LIBRARY, alive, call, checkpoint_lib, ffi
from ._linear import Linear
from ._registry import Registry
from ._weights import Weights

Format = Literal["compressed-tensors", "gptq", "gptq_v2", "awq"]

_TYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
_WORDS = {dtype: word for word, dtype in _TYPES.items()}

_native: Any = ffi.dlopen(str(LIBRARY.with_name("libkernelry-torch.so.0")),
                          ffi.RTLD_NOW | ffi.RTLD_LOCAL)


def _register() -> torch.library.Library:
    library = torch.library.Library("kernelry", "FRAGMENT")
    library.define("linear(Tensor x, Tensor prepared, Tensor? bias, int out_features) -> Tensor",
                   tags=(torch.Tag.pt2_compliant_tag,))
    libtorch = pathlib.Path(torch.__file__).parent / "lib" / "libtorch.so"
    call(_native.kry_torch_register(str(libtorch).encode()))
    return library


_library = _register()


@torch.library.register_fake("kernelry::linear", lib=_library)
def _fake_linear(x: torch.Tensor, prepared: torch.Tensor, bias: torch.Tensor | None,
                 out_features: int) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], out_features))


def _device_name(device: torch.device) -> str:
    """Kernelry's name of a device: PyTorch calls ROCm's "cuda" too."""
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise ArgumentError(f"device is {device}, expected cpu or cuda")
    platform = "rocm" if torch.version.hip else "cuda"
    return f"{platform}:{device.index or 0}"


def _aligned(size: int, device: torch.device) -> torch.Tensor:
    block = torch.empty(size + ALIGNMENT, dtype=torch.uint8, device=device)
    begin = -block.data_ptr() % ALIGNMENT
    return block[begin : begin + size]


def _add_zeroed(device: torch.device) -> None:
    """The zeroed parts of workspaces, for good: before any graph is captured."""
    index = device.index or 0
    if device.type == "cpu" or _native.kry_torch_has_zeroed(index):
        return
    block = torch.zeros(_native.kry_torch_zeroed_bytes() + ALIGNMENT, dtype=torch.uint8,
                        device=device)
    torch.cuda.synchronize(device)
    _zeroed.append(block)
    begin = block.data_ptr() + -block.data_ptr() % ALIGNMENT
    call(_native.kry_torch_add_zeroed(index, ffi.cast("void *", begin)))


_zeroed: list[torch.Tensor] = []


class Bound:
    """A layer bound to prepared weights in a tensor of PyTorch's: what the operator is given.

    For stacks with modules of their own; QuantLinear holds one.

        bound = Bound(linear, weights, device=device)
        y = torch.ops.kernelry.linear(x, bound.prepared, bias, bound.out_features)
    """

    def __init__(self, linear: Linear, weights: Any, *,
                 device: torch.device | str = "cpu", registry: Registry | None = None,
                 kernel: str | None = None) -> None:
        self.device = torch.device(device)
        self.layer = Layer(linear, device=_device_name(self.device), registry=registry,
                           kernel=kernel)
        self._handle = alive(self.layer._handle, "layer")
        self.out_features = linear.out_features
        # The head by which copies of the tensor are known; the weights follow at ALIGNMENT.
        token = secrets.randbits(64)
        self.prepared = _aligned(ALIGNMENT + self.layer.sizes.prepared_bytes, self.device)
        head = b"kernelry" + token.to_bytes(8, sys.byteorder)
        self.prepared[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)
        _add_zeroed(self.device)
        self.prepare(weights)
        self._address = ffi.cast("void *", self.prepared.data_ptr())
        call(_native.kry_torch_bind(self._address, token, self._handle.pointer))

    def prepare(self, weights: Any) -> None:
        """Other weights, in the same place: captured graphs stay valid."""
        stream = (torch.cuda.current_stream(self.device).cuda_stream
                  if self.device.type == "cuda" else 0)
        self.layer.prepare(weights, prepared=self.prepared[ALIGNMENT:], stream=stream)

    def __del__(self) -> None:
        if getattr(self, "_address", None) is not None and _native is not None:
            _native.kry_torch_unbind(self._address, self._handle.pointer)
