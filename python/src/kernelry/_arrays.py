"""Arrays of any maker, described where they lie: numpy, DLPack, the array interfaces."""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Any

import numpy

from ._errors import ArgumentError
from ._library import ffi

_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype = ctypes.c_void_p
_capsule_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]

# DLPack's numbers. Unified and pinned memory is seen from the host.
_DL_PLATFORMS = {1: "cpu", 2: "cuda", 3: "cpu", 10: "rocm", 11: "cpu", 13: "cuda"}
_DL_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat", 6: "bool"}


@dataclasses.dataclass(frozen=True)
class Array:
    """Where an array lies; strides count elements. `owner` keeps the memory."""

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    itemsize: int
    platform: str
    ordinal: int
    writable: bool
    owner: Any

    @property
    def reach(self) -> int:
        """Bytes that may be read from the address on."""
        if 0 in self.shape:
            return 0
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides))
        return (last + 1) * self.itemsize

    @property
    def pointer(self) -> Any:
        return ffi.cast("void *", self.address)

    def __str__(self) -> str:
        where = "" if self.platform == "cpu" else f" on {self.platform}:{self.ordinal}"
        return f"{self.dtype} {list(self.shape)}{where}"


def _in_elements(strides: tuple[int, ...], itemsize: int, name: str) -> tuple[int, ...]:
    for stride in strides:
        if stride % itemsize:
            raise ArgumentError(f"{name}: a stride of {stride} bytes is no multiple of its "
                                f"elements' {itemsize}: make it contiguous")
    return tuple(stride // itemsize for stride in strides)


def _of_numpy(value: numpy.ndarray, name: str) -> Array:
    dtype = value.dtype
    if not dtype.isnative:
        raise ArgumentError(f"{name}: {dtype} is of the other byte order")
    return Array(value.ctypes.data, value.shape, _in_elements(value.strides, dtype.itemsize, name),
                 dtype.name, dtype.itemsize, "cpu", 0, value.flags.writeable, value)


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, stride = [], 1
    for size in reversed(shape):
        strides.append(stride)
        stride *= size
    return tuple(reversed(strides))


def _of_dlpack(value: Any, name: str) -> Array:
    # The work is ordered by the stream that the caller names: no other one waits. Only makers
    # whose memory is a device's know the argument.
    on_device = int(value.__dlpack_device__()[0]) not in (1, 3)
    capsule = value.__dlpack__(stream=-1) if on_device else value.__dlpack__()
    tensor = ffi.cast("dl_tensor *", _capsule_pointer(capsule, b"dltensor"))
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = (_dense(shape) if tensor.strides == ffi.NULL
               else tuple(tensor.strides[i] for i in range(tensor.ndim)))
    kind, bits = _DL_KINDS.get(tensor.dtype.code), tensor.dtype.bits
    platform = _DL_PLATFORMS.get(tensor.device.type)
    if kind is None or bits % 8 or tensor.dtype.lanes != 1:
        raise ArgumentError(f"{name}: elements of DLPack's type {tensor.dtype.code} with {bits} "
                            "bits are not known here")
    if platform is None:
        raise ArgumentError(f"{name} lies on a device of DLPack's type {tensor.device.type}, "
                            "expected memory of the host, CUDA or ROCm")
    address = int(ffi.cast("uintptr_t", tensor.data)) + tensor.byte_offset
    return Array(address, shape, strides, f"{kind}{bits}", bits // 8, platform, tensor.device.id,
                 True, (value, capsule))


def _of_cuda_interface(value: Any, name: str) -> Array:
    interface = value.__cuda_array_interface__
    dtype = numpy.dtype(interface["typestr"])
    shape = tuple(interface["shape"])
    strides = interface.get("strides")
    address, read_only = interface["data"]
    return Array(address, shape,
                 _dense(shape) if strides is None else _in_elements(strides, dtype.itemsize, name),
                 dtype.name, dtype.itemsize, "cuda", 0, not read_only, value)


def array(value: Any, name: str) -> Array:
    """Describe an array, without a copy.

    Accepts numpy arrays, and anything with `__dlpack__`, `__cuda_array_interface__`,
    `__array_interface__` or `__array__`.
    """
    if isinstance(value, Array):
        return value
    if isinstance(value, numpy.ndarray):
        return _of_numpy(value, name)
    try:
        if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
            return _of_dlpack(value, name)
        if hasattr(value, "__cuda_array_interface__"):
            return _of_cuda_interface(value, name)
        if hasattr(value, "__array_interface__") or hasattr(value, "__array__"):
            return _of_numpy(numpy.asarray(value), name)
    except ArgumentError:
        raise
    except Exception as error:  # whatever the maker's own code raises
        raise ArgumentError(f"{name}: {type(value).__name__} gives no view of its memory: "
                            f"{error}") from error
    raise ArgumentError(
        f"{name} is {type(value).__name__}, expected an array: numpy's, or anything with "
        "__dlpack__ or __array_interface__")
