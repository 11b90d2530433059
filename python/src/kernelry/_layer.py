"""Layers: a kernel bound to prepared weights."""

from __future__ import annotations

import dataclasses
import os
import threading
from typing import Any

import numpy

from ._arrays import Array, array
from ._checkpoint import StoredWeights
from ._decision import Decision
from ._errors import ArgumentError, Error, NoKernelError
from ._library import Closing, Handle, alive, call, ffi, lib, new
from ._linear import TYPE_BITS, Linear, linear_of
from ._registry import Device, Kernel, Registry, default_registry, kernel_of
from ._scales import Rescaled
from ._weights import Weights, is_of_type

ALIGNMENT = 256


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Bytes that a layer needs, whatever m is."""

    prepared_bytes: int
    prepare_scratch_bytes: int
    bound_bytes: int


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Bytes that applies of up to m rows need; the zeroed part is cleared once by the caller."""

    scratch_bytes: int
    zeroed_bytes: int


class _Buffers(threading.local):
    """This thread's workspace on the host; it grows and is used again."""

    scratch = numpy.empty(0, numpy.uint8)
    zeroed = numpy.empty(0, numpy.uint8)

    def of(self, name: str, size: int) -> Any:
        block = getattr(self, name)
        if len(block) < size + ALIGNMENT:
            block = numpy.zeros(size + ALIGNMENT, numpy.uint8)
            setattr(self, name, block)
        return ffi.cast("void *", -(-block.ctypes.data // ALIGNMENT) * ALIGNMENT)


_buffers = _Buffers()


def _block(value: Any, name: str, size: int) -> tuple[Any, int]:
    """The caller's memory: where it begins, at a multiple of ALIGNMENT, and its bytes."""
    if value is None:
        return ffi.NULL, 0
    found = array(value, name)
    bytes_ = found.reach
    if found.address % ALIGNMENT or bytes_ < size or not found.writable:
        raise ArgumentError(f"{name} has {bytes_} bytes at {found.address:#x}, expected {size} "
                            f"writable ones at a multiple of {ALIGNMENT}")
    return found.pointer, bytes_


def _texts(path: Any, content: Any) -> tuple[Any, Any]:
    try:
        path = os.fsencode(path)
    except TypeError:
        raise ArgumentError(f"path is {type(path).__name__}, expected a path") from None
    if not isinstance(content, str):
        raise ArgumentError(f"content is {type(content).__name__}, expected text that names the "
                            "weights' values")
    for name, given in (("path", path), ("content", content.encode())):
        if b"\0" in given:
            raise ArgumentError(f"{name} holds a zero byte")
    return ffi.new("char[]", path), ffi.new("char[]", content.encode())


def _whole(value: Any, name: str) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__") or not 0 <= value < 1 << 63:
        raise ArgumentError(f"{name} is {value!r}, expected a whole number from 0 on")
    return int(value)


class Layer(Closing):
    """A kernel for a description on a device, and with weights the layer itself.

    `kernel` names one instead of the decision's. prepare again: other weights, in place.
    """

    def __init__(
        self,
        linear: Linear,
        weights: Weights | StoredWeights | Rescaled | None = None,
        *,
        device: str | Device = "cpu",
        registry: Registry | None = None,
        kernel: str | None = None,
    ) -> None:
        if not isinstance(linear, Linear):
            raise ArgumentError(f"linear is {type(linear).__name__}, expected a kernelry.Linear")
        registry = registry or default_registry()
        held = alive(registry._handle, "registry")
        self.device = registry.device(device)
        name = ffi.new("char[]", kernel.encode()) if kernel is not None else ffi.NULL
        args = new("kry_layer_args", device=self.device._struct, linear=linear.to_c(),
                   kernel=name)
        out = ffi.new("kry_layer **")
        try:
            call(lib.kry_layer_create(held.pointer, args, out))
        except NoKernelError as error:
            raise _explained(error, registry, linear, self.device) from None
        self._handle: Handle | None = Handle(out[0], lib.kry_layer_destroy, held)
        self.linear = linear_of(lib.kry_layer_linear(out[0], 0))
        self.decided = linear_of(lib.kry_layer_linear(out[0], 1))
        info = new("kry_kernel_info")
        call(lib.kry_layer_kernel(out[0], info))
        self.kernel: Kernel = kernel_of(info)
        self._keep: Any = None  # prepared weights of the caller's
        if weights is not None:
            self.prepare(weights)

    def __repr__(self) -> str:
        state = "" if self._handle else ", closed"
        return f"Layer({self.linear} on {self.device}: {self.kernel.name}{state})"

    def close(self) -> None:
        """Give everything back; calls that are under way in other threads end first."""
        self._handle = None

    @property
    def sizes(self) -> Sizes:
        handle = alive(self._handle, "layer")
        sizes = new("kry_sizes")
        call(lib.kry_layer_sizes(handle.pointer, sizes))
        return Sizes(sizes.prepared_bytes, sizes.prepare_scratch_bytes, sizes.bound_bytes)

    def workspace(self, m: int) -> Workspace:
        """What applies of up to m rows need; never less for a larger m."""
        handle = alive(self._handle, "layer")
        workspace = new("kry_workspace")
        call(lib.kry_layer_workspace(handle.pointer, m, workspace))
        return Workspace(workspace.scratch_bytes, workspace.zeroed_bytes)

    def prepare(self, weights: Weights | StoredWeights | Rescaled, *, prepared: Any = None,
                stream: int = 0) -> None:
        """Turn weights into the kernel's layout and bind them; again: reload them in place.

        `prepared` is memory of the caller's for them, of sizes.prepared_bytes at a multiple of
        256 bytes; it is kept. No apply may run at once with it, except as the stream orders them.
        """
        handle = alive(self._handle, "layer")
        if not isinstance(weights, (Weights, StoredWeights, Rescaled)):
            raise ArgumentError(f"weights is {type(weights).__name__}, expected kernelry.Weights")
        if weights.platform not in ("cpu", self.device.platform):
            raise ArgumentError(f"weights lie on {weights.platform}, the layer is of "
                                f"{self.device}")
        struct, keep = weights.to_c(self.linear)
        args = new("kry_prepare_args", weights=struct, stream=ffi.cast("void *", stream))
        if prepared is not None:
            self._give_room(args, prepared)
        call(lib.kry_layer_prepare(handle.pointer, args))
        if prepared is not None:
            self._keep = prepared
        del keep

    def save(self, path: str | os.PathLike[str], content: str, *, offset: int | None = None,
             stream: int = 0) -> None:
        """Write the prepared weights to a file that appears whole or not at all, for `map`.

        `content` names the weights' values, such as `Checkpoint.content` does: other weights need
        another. With an offset, a multiple of 4096, the layer is written there into a file that
        exists and that no layer maps, and the caller makes it durable: layers may share a file.
        """
        handle = alive(self._handle, "layer")
        path_, key = _texts(path, content)
        call(lib.kry_layer_save(handle.pointer, new(
            "kry_save_args", path=path_, content=key, stream=ffi.cast("void *", stream),
            offset=_whole(offset or 0, "offset"), flags=0 if offset is None else 1)))

    def map(self, path: str | os.PathLike[str], content: str, *, offset: int = 0, size: int = 0,
            prepared: Any = None, copy: bool = False, verify: bool = True,
            relax_trust: bool = False, stream: int = 0) -> None:
        """Take the prepared weights from a file that `save` wrote, instead of preparing them.

        On a CPU they are mapped, and processes that map one file share its memory; copy reads
        them into memory of the layer's own, `prepared` into the caller's, as in prepare. `size`
        is the layer's in the file, 0 to its end. verify=False: their hash is not compared.

        Raises what tells that they are to be prepared: NotFoundError, or an Error whose status is
        FORMAT (damaged), FOREIGN (another layout or description) or STALE (other content). TRUST:
        somebody else could have written the file.
        """
        handle = alive(self._handle, "layer")
        path_, key = _texts(path, content)
        args = new("kry_map_args", path=path_, content=key, stream=ffi.cast("void *", stream),
                   offset=_whole(offset, "offset"), bytes=_whole(size, "size"),
                   flags=bool(copy) * 1 + (not verify) * 2 + bool(relax_trust) * 4)
        if prepared is not None:
            self._give_room(args, prepared)
        call(lib.kry_layer_map(handle.pointer, args))
        self._keep = prepared

    def _give_room(self, args: Any, prepared: Any) -> None:
        """Name the caller's memory for prepared weights."""
        found = array(prepared, "prepared")
        args.prepared, args.prepared_bytes = _block(found, "prepared", self.sizes.prepared_bytes)
        args.prepared_memory = 1 if found.platform == "cpu" else 2

    def apply(self, x: Any, *, bias: Any = None, out: Any = None, scratch: Any = None,
              zeroed: Any = None, stream: int = 0) -> Any:
        """y = x * dequant(W)^T + bias for x [..., in_features]; out, or a new numpy array.

        On a device everything is the caller's: out, and the workspace that `workspace(m)` tells.
        """
        handle = alive(self._handle, "layer")
        operand = self._operand(x, "x", self.linear.in_features, self.linear.x_type)
        m, x_stride = _rows(operand, "x")
        if out is None:
            out = self._make_out(operand)
        y = self._operand(out, "out", self.linear.out_features, self.linear.y_type)
        y_rows, y_stride = _rows(y, "out")
        if y_rows != m or not y.writable:
            raise ArgumentError(f"out is {y}{'' if y.writable else ', read-only'}; expected "
                                f"{m} rows that may be written")
        args = new("kry_apply_args", m=m, x=operand.pointer, y=y.pointer, x_stride=x_stride,
                   y_stride=y_stride, stream=ffi.cast("void *", stream))
        if bias is not None:
            added = self._operand(bias, "bias", self.linear.out_features, self.linear.y_type)
            if len(added.shape) != 1:
                raise ArgumentError(f"bias is {added}, expected [{self.linear.out_features}]")
            args.bias = added.pointer
        if m > 0:
            self._add_workspace(args, m, scratch, zeroed)
            call(lib.kry_layer_apply(handle.pointer, args))
        return out

    __call__ = apply

    def _operand(self, value: Any, name: str, features: int, type_: str | None) -> Array:
        found = array(value, name)
        if not is_of_type(found, type_ or ""):
            raise ArgumentError(f"{name} is {found}, the layer takes {type_}"
                                + (" (numpy: ml_dtypes.bfloat16, or uint16 with its bits)"
                                   if type_ == "bf16" else ""))
        if not found.shape or found.shape[-1] != features:
            raise ArgumentError(f"{name} is {found}, expected [..., {features}]")
        here = (self.device.platform, max(self.device.ordinal, 0))
        if (found.platform, found.ordinal) != here:
            raise ArgumentError(f"{name} lies on {found.platform}:{found.ordinal}, the layer is "
                                f"of {self.device}")
        return found

    def _make_out(self, x: Array) -> numpy.ndarray:
        if x.platform != "cpu":
            raise ArgumentError("out is missing: numpy has no memory of a device")
        shape = (*x.shape[:-1], self.linear.out_features)
        if self.linear.y_type != "bf16":
            return numpy.empty(shape, {"f16": numpy.float16, "f32": numpy.float32}[
                self.linear.y_type or "f32"])
        # As x is: ml_dtypes' bfloat16, or bits.
        given = x.owner.dtype if isinstance(x.owner, numpy.ndarray) else numpy.dtype("uint16")
        return numpy.empty(shape, given if given.itemsize == 2 and given.name in (
            "bfloat16", "uint16") else numpy.uint16)

    def _add_workspace(self, args: Any, m: int, scratch: Any, zeroed: Any) -> None:
        needed = self.workspace(m)
        on_host = self.device.platform == "cpu"
        for name, given, size in (("scratch", scratch, needed.scratch_bytes),
                                  ("zeroed", zeroed, needed.zeroed_bytes)):
            pointer, bytes_ = _block(given, name, size)
            if given is None and size > 0 and on_host:
                pointer, bytes_ = _buffers.of(name, size), size
            setattr(args, name, pointer)
            setattr(args, f"{name}_bytes", bytes_)


def _rows(operand: Array, name: str) -> tuple[int, int]:
    """How many rows [..., features] has, and their stride."""
    *leading, features = operand.shape
    if 0 in leading:
        return 0, 0
    if features > 1 and operand.strides[-1] != 1:
        raise ArgumentError(f"{name} has strides {list(operand.strides)}, expected 1 in the last "
                            "dimension: make it contiguous")
    rows = 1
    stride = 0
    for size, step in zip(reversed(leading), reversed(operand.strides[:-1])):
        if size != 1:
            if stride and step != stride * rows:
                raise ArgumentError(f"{name} has strides {list(operand.strides)}: its rows have "
                                    "no common stride, make it contiguous")
            stride = stride or step
        rows *= size
    if rows > 1 and stride < features:
        raise ArgumentError(f"{name} has strides {list(operand.strides)}: its rows of {features} "
                            "overlap or run backwards, make it contiguous")
    return rows, stride if rows > 1 else 0


def _explained(error: NoKernelError, registry: Registry, linear: Linear,
               device: Device) -> Error:
    """The error with every candidate's refusal, or with why no plugin is there."""
    empty = registry.why_empty()
    decision: Decision = registry.decide(linear, device)
    return NoKernelError(f"{error}; {empty}" if empty else str(error), decision)
