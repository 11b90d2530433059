"""Checkpoints: quantized layers of safetensors files as descriptions and views."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Literal

import numpy

from ._errors import ArgumentError
from ._library import Closing, Handle, alive, call, checkpoint_lib, ffi, log_callback, new, text
from ._linear import Linear, Type, linear_of
from ._scales import Rescaled

_METHODS = {1: "compressed-tensors", 2: "gptq", 3: "awq"}
# numpy lacks bf16 and the 8-bit floats: their bits.
_DTYPES = {"BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E4M3": "uint8", "F8_E5M2": "uint8",
           "I16": "int16", "U16": "uint16", "F16": "float16", "BF16": "uint16", "I32": "int32",
           "U32": "uint32", "F32": "float32", "I64": "int64", "U64": "uint64", "F64": "float64"}


@dataclasses.dataclass(frozen=True)
class StoredLayer:
    """A quantized layer as it is stored, read from headers and config. `linear` is None where the
    scheme is outside of this library; `reason` says why."""

    name: str
    linear: Linear | None
    reason: str
    method: Literal["compressed-tensors", "gptq", "awq"]
    has_bias: bool


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A stored tensor. `array` views the file (read-only); of BF16 and F8 the bits."""

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    array: numpy.ndarray = dataclasses.field(repr=False, compare=False)


class StoredWeights:
    """A partition's description and weights, ready for Layer.prepare; views into the files."""

    platform = "cpu"

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self.linear = linear_of(handle.pointer.linear)

    @property
    def bias(self) -> numpy.ndarray | None:
        """[out_features], or None; of bf16 the bits."""
        stored = self._handle.pointer
        if stored.bias == ffi.NULL:
            return None
        return _view(self._handle, stored.bias, (self.linear.out_features,), stored.bias_dtype)

    @property
    def bias_dtype(self) -> str | None:
        """"BF16", as safetensors spells it."""
        stored = self._handle.pointer
        if stored.bias == ffi.NULL:
            return None
        return text(checkpoint_lib.kry_dtype_string(stored.bias_dtype))

    def with_scale_type(self, type_: Type) -> Rescaled:
        """As Weights.with_scale_type."""
        return Rescaled(self, type_)

    def to_c(self, linear: Linear) -> tuple[Any, list[Any]]:
        mine, asked = self.linear, linear
        for name in ("in_features", "out_features", "full_in_features", "k_offset", "group_size",
                     "weight_type", "scale_type", "act_order"):
            if getattr(mine, name) != getattr(asked, name):
                raise ArgumentError(f"{name} is {getattr(asked, name)}, these weights have "
                                    f"{getattr(mine, name)}")
        return self._handle.pointer.weights, [self]


def _view(owner: Any, data: Any, shape: tuple[int, ...], dtype: int) -> numpy.ndarray:
    name = _DTYPES[text(checkpoint_lib.kry_dtype_string(dtype))]
    count = 1
    for size in shape:
        count *= size
    bytes_ = count * checkpoint_lib.kry_dtype_bytes(dtype)
    interface = _Memory(int(ffi.cast("uintptr_t", data)), bytes_, owner)
    return numpy.asarray(interface).view(name).reshape(shape)


class _Memory:
    """Bytes of a mapped file for numpy; the array keeps them, and they the file."""

    def __init__(self, address: int, size: int, owner: Any) -> None:
        self.owner = owner
        self.__array_interface__ = {"data": (address, True), "shape": (size,), "typestr": "|u1",
                                    "version": 3}


class Checkpoint(Closing):
    """A model folder or a .safetensors file with its configs, mapped. log(level, message) is
    called for warnings, such as zero points on which writers' rules disagree."""

    def __init__(self, path: str | os.PathLike[str], *,
                 log: Callable[[str, str], None] | None = None) -> None:
        options = new("kry_checkpoint_options")
        callback = None
        if log is not None:
            callback = options.log = log_callback(log)
        out = ffi.new("kry_checkpoint **")
        call(checkpoint_lib.kry_checkpoint_open(os.fsencode(path), options, out))
        self._handle: Handle | None = Handle(out[0], checkpoint_lib.kry_checkpoint_close, callback)
        self.path = os.fspath(path)

    def close(self) -> None:
        """Let go of the files; what was read from them keeps them mapped as long as it lives."""
        self._handle = None

    def _layer(self, pointer: Any, index: int) -> StoredLayer:
        found = new("kry_checkpoint_layer")
        call(checkpoint_lib.kry_checkpoint_layer_at(pointer, index, found))
        linear = linear_of(found.linear) if found.linear != ffi.NULL else None
        return StoredLayer(text(found.name), linear, text(found.reason),
                           _METHODS[found.method],  # type: ignore[arg-type]
                           bool(found.has_bias))

    @property
    def layers(self) -> tuple[StoredLayer, ...]:
        """Quantized layers, in the order of their names."""
        handle = alive(self._handle, "checkpoint")
        count = checkpoint_lib.kry_checkpoint_layer_count(handle.pointer)
        return tuple(self._layer(handle.pointer, index) for index in range(count))

    def _find(self, pointer: Any, name: str) -> int:
        index = ffi.new("size_t *")
        call(checkpoint_lib.kry_checkpoint_find_layer(pointer, name.encode(), index))
        return index[0]

    def layer(self, name: str) -> StoredLayer:
        handle = alive(self._handle, "checkpoint")
        return self._layer(handle.pointer, self._find(handle.pointer, name))

    @staticmethod
    def _slice(n: slice | None, k: slice | None) -> Any:
        struct = new("kry_slice")
        for axis, part in (("n", n), ("k", k)):
            if part is None:
                continue
            begin, end = part.start or 0, part.stop if part.stop is not None else 0
            if part.step not in (None, 1) or begin < 0 or end < 0 or (
                    part.stop is not None and end <= begin):
                raise ArgumentError(f"{axis} is {part}, expected slice(begin, end) with 0 <= "
                                    "begin < end")
            setattr(struct, f"{axis}_begin", begin)
            setattr(struct, f"{axis}_end", end)
        return struct

    def linear(self, name: str, *, n: slice | None = None, k: slice | None = None) -> Linear:
        """The description of a partition, from the headers alone."""
        handle = alive(self._handle, "checkpoint")
        out = new("kry_linear")
        call(checkpoint_lib.kry_checkpoint_slice(handle.pointer, self._find(handle.pointer, name),
                                                 self._slice(n, k), out))
        return linear_of(out)

    def content(self, name: str, *, n: slice | None = None, k: slice | None = None,
                how: Literal["files", "bytes"] = "files") -> str:
        """The content key of a partition, for Layer.save and Layer.map. Of "files" it changes when
        they are written, replaced or copied; of "bytes", which reads them, with a byte of the
        layer's."""
        handle = alive(self._handle, "checkpoint")
        ways = {"files": 0, "bytes": 1}
        if how not in ways:
            raise ArgumentError(f"how is {how!r}, expected files or bytes")
        out = ffi.new("char[]", 256)  # KRY_CONTENT_MAX and its end
        call(checkpoint_lib.kry_checkpoint_content(
            handle.pointer, self._find(handle.pointer, name), self._slice(n, k), ways[how],
            ffi.NULL, out, len(out)))
        return text(out)

    def weights(self, name: str, *, n: slice | None = None,
                k: slice | None = None) -> StoredWeights:
        """Description and views of a layer, or of the partition of some output (n) and input (k)
        features."""
        handle = alive(self._handle, "checkpoint")
        out = ffi.new("kry_checkpoint_weights **")
        call(checkpoint_lib.kry_checkpoint_weights_create(
            handle.pointer, self._find(handle.pointer, name), self._slice(n, k), out))
        return StoredWeights(Handle(out[0], checkpoint_lib.kry_checkpoint_weights_destroy, handle))

    def _tensor(self, handle: Handle, struct: Any) -> Tensor:
        shape = tuple(struct.shape[i] for i in range(struct.rank))
        return Tensor(text(struct.name), text(struct.file),
                      text(checkpoint_lib.kry_dtype_string(struct.dtype)), shape,
                      _view(handle, struct.data, shape, struct.dtype))

    def tensor(self, name: str) -> Tensor:
        handle = alive(self._handle, "checkpoint")
        struct = new("kry_tensor")
        call(checkpoint_lib.kry_checkpoint_find_tensor(handle.pointer, name.encode(), struct))
        return self._tensor(handle, struct)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of all files, in the order of their names."""
        handle = alive(self._handle, "checkpoint")
        found = []
        for index in range(checkpoint_lib.kry_checkpoint_tensor_count(handle.pointer)):
            struct = new("kry_tensor")
            call(checkpoint_lib.kry_checkpoint_tensor(handle.pointer, index, struct))
            found.append(self._tensor(handle, struct))
        return tuple(found)
