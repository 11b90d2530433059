"""Kernelry in PyTorch: the operator `torch.ops.kernelry.linear`, QuantLinear, convert.

The operator is given the tensor that holds a layer's prepared weights, and runs the layer that is
prepared there. Its implementation is C, registered through PyTorch's stable ABI: on PyTorch's
current stream, with its allocator and, on a CPU, its threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import mmap
import os
import pathlib
import secrets
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy
import torch
from torch import nn

from ._cache import Outcome, Part, fill_all
from ._checkpoint import Checkpoint
from ._errors import ArgumentError, Error, NoKernelError, Status
from ._layer import ALIGNMENT, Layer
from ._library import LIBRARY, Functions, alive, call, ffi, lib, new
from ._linear import Linear
from ._registry import Registry
from ._weights import Weights

Format = Literal["compressed-tensors", "gptq", "gptq_v2", "gptqmodel", "awq"]

_TYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
_WORDS = {dtype: word for word, dtype in _TYPES.items()}

_native: Any = Functions(LIBRARY.with_name("libkernelry-torch.so.0"))


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
    torch._check(x.device == prepared.device,
                 lambda: f"kernelry: x is on {x.device}, the layer on {prepared.device}")
    return x.new_empty((*x.shape[:-1], out_features))


# The overload itself: choosing it costs a microsecond a call.
_linear = torch.ops.kernelry.linear.default


def _place(device: torch.device | str) -> torch.device:
    """A device with its index: "cuda" is the current one."""
    place = torch.device(device)
    if place.type == "cuda" and place.index is None:
        place = torch.device("cuda", torch.cuda.current_device())
    return place


def _device_name(device: torch.device) -> str:
    """Kernelry's name of a device: PyTorch calls ROCm's "cuda" too."""
    if device.type == "cpu":
        return "cpu"
    if device.type != "cuda":
        raise ArgumentError(f"device is {device}, expected cpu or cuda")
    platform = "rocm" if torch.version.hip else "cuda"
    return f"{platform}:{device.index or 0}"


class _HugePages:
    """Memory of the CPU that asks for huge pages, through which weights are read faster; layers
    share regions, because alone each would waste a part of one. A region lives as long as a
    tensor in it."""

    SIZE, PAGE = 64 << 20, 2 << 20

    def __init__(self) -> None:
        self.region: mmap.mmap | None = None
        self.used = self.room = 0
        self.lock = threading.Lock()

    def allocate(self, size: int) -> torch.Tensor:
        with self.lock:
            if self.region is None or self.used + size > self.room:
                self._begin(size)
            tensor = torch.frombuffer(self.region, dtype=torch.uint8, count=size, offset=self.used)
            self.used += -(-size // ALIGNMENT) * ALIGNMENT
        return tensor

    def _begin(self, size: int) -> None:
        self.room = max(self.SIZE, size) + self.PAGE
        self.region = mmap.mmap(-1, self.room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a system without them: slower, no more
            self.region.madvise(mmap.MADV_HUGEPAGE)
        self.used = -numpy.frombuffer(self.region, numpy.uint8).ctypes.data % self.PAGE


_huge_pages = _HugePages()


def _aligned(size: int, device: torch.device) -> torch.Tensor:
    if device.type == "cpu":
        return _huge_pages.allocate(size)
    # PyTorch's allocator aligns to 512 bytes.
    return torch.empty(size, dtype=torch.uint8, device=device)


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


def _token_of(content: str, layer: Layer) -> int:
    """The same in any process for weights of that content, in a layer of that layout and
    description."""
    pointer = alive(layer._handle, "layer").pointer
    info = new("kry_kernel_info")
    call(lib.kry_layer_kernel(pointer, info))
    token = 0
    for data in (content.encode(), bytes(ffi.buffer(ffi.addressof(info, "layout_version"))),
                 ffi.string(info.layout_name),
                 bytes(ffi.buffer(lib.kry_layer_linear(pointer, 1), ffi.sizeof("kry_linear")))):
        token = lib.kry_hash64(data, len(data), token)
    return token


class Bound:
    """A layer bound to prepared weights in a tensor of PyTorch's: what the operator is given.

    For stacks with modules of their own; QuantLinear holds one.

        bound = Bound(linear, weights, device=device)
        y = torch.ops.kernelry.linear(x, bound.prepared, bias, bound.out_features)

    Keep it until the last call has ended, on a device until its stream has passed it. `content`
    names the weights' values, as Checkpoint.content does: then a program that another process has
    exported with a layer of the same key runs this one.
    """

    prepared: torch.Tensor

    def __init__(self, linear: Linear, weights: Any = None, *,
                 device: torch.device | str = "cpu", registry: Registry | None = None,
                 kernel: str | None = None, content: str | None = None) -> None:
        self.device = _place(device)
        self._rescales = False
        try:
            self.layer = Layer(linear, device=_device_name(self.device), registry=registry,
                               kernel=kernel)
        except NoKernelError:
            # Kernels of a GPU take scales of x's type: those that are exact in it become so.
            if linear.scale_type == linear.x_type:
                raise
            linear = dataclasses.replace(linear, scale_type=linear.x_type)
            self._rescales = True
            self.layer = Layer(linear, device=_device_name(self.device), registry=registry,
                               kernel=kernel)
        self._handle = alive(self.layer._handle, "layer")
        self.out_features = linear.out_features
        self._address: Any = None
        self._named = content is not None
        self._token = (_token_of(content, self.layer) if content is not None
                       else secrets.randbits(64))
        _add_zeroed(self.device)
        if weights is not None:
            self.prepare(weights)

    def _make_tensor(self, weight_bytes: int) -> torch.Tensor:
        """The head by which copies of the tensor are known; the weights follow at ALIGNMENT."""
        tensor = _aligned(ALIGNMENT + weight_bytes, self.device)
        self._write_head(tensor)
        return tensor

    def _write_head(self, tensor: torch.Tensor) -> None:
        head = b"kernelry" + self._token.to_bytes(8, sys.byteorder)
        tensor[: len(head)] = torch.frombuffer(bytearray(head), dtype=torch.uint8)

    def _bind(self, prepared: torch.Tensor) -> None:
        if self._address is None:
            self._address = ffi.cast("void *", prepared.data_ptr())
            call(_native.kry_torch_bind(self._address, self._token, self._handle.pointer))
            self.prepared = prepared

    def _forget_name(self) -> None:
        """Before other weights: copies that know the layer by its content are of the old ones."""
        if self._named and self._address is not None:
            self._named, self._token = False, secrets.randbits(64)
            self._write_head(self.prepared)
            call(_native.kry_torch_bind(self._address, self._token, self._handle.pointer))

    def _stream(self) -> int:
        return (torch.cuda.current_stream(self.device).cuda_stream
                if self.device.type == "cuda" else 0)

    def prepare(self, weights: Any) -> None:
        """Other weights, in the same place: captured graphs stay valid."""
        self._forget_name()
        prepared = (self._make_tensor(self.layer.sizes.prepared_bytes) if self._address is None
                    else self.prepared)
        # After a map the tensor is a head alone, and the layer brings the memory.
        place = prepared[ALIGNMENT:] if len(prepared) > ALIGNMENT else None
        if self._rescales:
            weights = weights.with_scale_type(self.layer.linear.scale_type)
        self.layer.prepare(weights, prepared=place, stream=self._stream())
        self._bind(prepared)

    def map(self, path: str | os.PathLike[str], content: str, *, offset: int = 0,
            size: int = 0) -> None:
        """Weights from a file that `layer.save` wrote, as Layer.map: on a CPU they stay in the
        mapped file, and the tensor holds none."""
        on_host = self.device.type == "cpu"
        self._forget_name()
        if self._address is not None:
            prepared = self.prepared
        else:
            prepared = self._make_tensor(0 if on_host else self.layer.sizes.prepared_bytes)
        place = prepared[ALIGNMENT:] if len(prepared) > ALIGNMENT else None
        self.layer.map(path, content, offset=offset, size=size, prepared=place,
                       stream=self._stream())
        self._bind(prepared)

    def __del__(self) -> None:
        if getattr(self, "_address", None) is not None and _native is not None:
            _native.kry_torch_unbind(self._address, self._handle.pointer)


# ---- stored weights --------------------------------------------------------------------------


def _shapes(linear: Linear, format: Format) -> dict[str, tuple[int, ...]]:
    """The tensors that a format stores for a layer, bias apart."""
    n, k, g, p = linear.out_features, linear.in_features, linear.groups, 32 // linear.bits
    if format == "compressed-tensors":
        shapes: dict[str, tuple[int, ...]] = {"weight_packed": (n, -(-k // p)),
                                              "weight_scale": (n, g)}
        names = "weight_zero_point", "weight_g_idx"
        zeros: tuple[int, ...] = (-(-n // p), g)
    elif format == "awq":
        shapes = {"qweight": (k, n // 8), "scales": (g, n)}
        names, zeros = ("qzeros", "g_idx"), (g, n // 8)
    else:
        shapes = {"qweight": (-(-k // p), n), "scales": (g, n)}
        names, zeros = ("qzeros", "g_idx"), (g, -(-n // p))
    if linear.has_zero_points:
        shapes[names[0]] = zeros
    if linear.act_order:
        shapes[names[1]] = (k,)
    return shapes


# What a format stores too, and the description has told already.
_REDUNDANT = ("weight_shape", "weight_zero_point", "weight_g_idx", "qzeros", "g_idx")


@dataclasses.dataclass
class _Tensors:
    """Stored weights as tensors of PyTorch's."""

    format: Format
    tensors: dict[str, torch.Tensor]

    def weights(self, linear: Linear) -> Weights:
        given = dict(self.tensors)
        given.pop("weight_shape", None)
        known = {"weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx"} if (
            self.format == "compressed-tensors") else {"qweight", "scales", "qzeros", "g_idx"}
        unknown, first = given.keys() - known, {"weight_packed", "weight_scale", "qweight", "scales"}
        if unknown or not known & first <= given.keys():
            raise ArgumentError(f"tensors are {', '.join(self.tensors)}, expected of "
                                f"{self.format}: {', '.join(sorted(known))}")
        if self.format == "awq":
            given.pop("g_idx", None)
        if self.format == "compressed-tensors":
            return Weights.compressed_tensors(**given, bits=linear.bits)
        if self.format == "awq":
            return Weights.awq(**given)
        zero = {"gptq": "minus_one", "gptq_v2": "true", "gptqmodel": "minus_one_word"}[self.format]
        return Weights.gptq(**given, bits=linear.bits, zero=zero)  # type: ignore[arg-type]

    def state(self) -> dict[str, torch.Tensor]:
        return self.tensors


@dataclasses.dataclass
class _Partition:
    """Stored weights in a checkpoint's mapped files."""

    checkpoint: Checkpoint
    name: str
    n: slice | None
    k: slice | None

    def weights(self, linear: Linear) -> Any:
        return self.checkpoint.weights(self.name, n=self.n, k=self.k)

    def state(self) -> dict[str, torch.Tensor]:
        if self.n is not None or self.k is not None:
            raise Error(f"{self.name} is a partition of a stored layer and has no state of its "
                        "own: the checkpoint has the whole layer's", Status.UNSUPPORTED)
        return {t.name.removeprefix(f"{self.name}."): _tensor_of(t).clone()
                for t in self.checkpoint.tensors
                if t.name.startswith(f"{self.name}.") and t.name != f"{self.name}.bias"}


def _tensor_of(stored: Any) -> torch.Tensor:
    """A view of a stored tensor; its memory is read-only, whatever PyTorch thinks."""
    special = {"BF16": torch.bfloat16, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        tensor = torch.from_numpy(stored.array)
    return tensor.view(special[stored.dtype]) if stored.dtype in special else tensor


def _format_of(method: str, weights: Any) -> Format:
    if method != "gptq":
        return "awq" if method == "awq" else "compressed-tensors"
    zeros = weights._handle.pointer.weights.zero_points
    kinds: dict[int, Format] = {0: "gptq_v2", 2: "gptq", 3: "gptqmodel"}
    return kinds[zeros.zero] if zeros != ffi.NULL else "gptq"


# ---- the module ------------------------------------------------------------------------------


class QuantLinear(nn.Module):
    """y = x * dequant(W)^T + bias with the kernel that Kernelry chooses.

    Its state has the names and shapes of `format`, as checkpoints have them, and `bias`; loading
    one prepares the weights, in place where there were some. It follows `.to(device)` and
    `.half()` by preparing anew from the stored weights, which it keeps unless told otherwise
    (`release_stored`). Not trained: y has no gradient for x.
    """

    prepared: torch.Tensor | None
    bias: nn.Parameter | None

    def __init__(self, linear: Linear, *, format: Format = "compressed-tensors",
                 bias: bool = False, device: torch.device | str = "cpu",
                 registry: Registry | None = None, kernel: str | None = None) -> None:
        super().__init__()
        if linear.x_type != linear.y_type:
            raise ArgumentError(f"x_type is {linear.x_type}, y_type {linear.y_type}: modules have "
                                "one type")
        known = ("compressed-tensors", "gptq", "gptq_v2", "gptqmodel", "awq")
        if format not in known:
            raise ArgumentError(f"format is {format!r}, expected one of {', '.join(known)}")
        self.linear, self.format = linear, format
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = _TYPES[linear.x_type]
        self._device = _place(device)
        self._registry, self._kernel = registry, kernel
        self._stored: _Tensors | _Partition | None = None
        self._bound: Bound | None = None
        self.register_buffer("prepared", None, persistent=False)
        self.register_parameter("bias", None)
        if bias:
            self.bias = nn.Parameter(torch.zeros(self.out_features, dtype=self.dtype,
                                                 device=self._device), requires_grad=False)

    @classmethod
    def from_tensors(cls, linear: Linear, tensors: dict[str, torch.Tensor], *,
                     bias: torch.Tensor | None = None, **options: Any) -> QuantLinear:
        """With stored weights, named as `format` names them; they are kept, not copied."""
        module = cls(linear, bias=bias is not None, **options)
        module._set(_Tensors(module.format, dict(tensors)))
        module._set_bias(bias)
        return module

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, name: str, *, n: slice | None = None,
                        k: slice | None = None, dtype: torch.dtype | None = None,
                        bias: torch.Tensor | bool | None = None, **options: Any) -> QuantLinear:
        """A layer of a checkpoint, or the partition of some output (n) and input (k) features.
        bias: the checkpoint's, False for none (row-parallel ranks but one), or a tensor."""
        part = _Partition(checkpoint, name, n, k)
        module = cls._without_weights(part, dtype, bias, options)
        module._set(part)
        return module

    @classmethod
    def _without_weights(cls, part: _Partition, dtype: torch.dtype | None,
                         bias: torch.Tensor | bool | None, options: dict[str, Any]) -> QuantLinear:
        checkpoint, name = part.checkpoint, part.name
        stored = checkpoint.weights(name, n=part.n, k=part.k)
        linear = stored.linear
        if dtype is not None:
            linear = dataclasses.replace(linear, x_type=_word(dtype), y_type=_word(dtype))
        if bias is None or bias is True:
            bias = _stored_bias(stored)
        module = cls(linear, format=_format_of(checkpoint.layer(name).method, stored),
                     bias=bias is not False and bias is not None, **options)
        module._set_bias(bias if isinstance(bias, torch.Tensor) else None)
        return module

    @property
    def kernel(self) -> str | None:
        """The kernel that runs it; None before there are weights."""
        return self._bound.layer.kernel.name if self._bound else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Not as attributes: nn.Module finds those last, at half a microsecond each.
        prepared, bias = self._buffers["prepared"], self._parameters["bias"]
        if prepared is None:
            raise Error("the module has no weights yet: load a state_dict, or make it with "
                        "from_tensors or from_checkpoint", Status.STATE)
        if x.dtype != self.dtype and torch.is_autocast_enabled(x.device.type):
            x = x.to(self.dtype)
        return _linear(x, prepared, bias, self.out_features)

    def release_stored(self) -> None:
        """Let go of the stored weights: the module then has no state to save and cannot move."""
        self._stored = None

    def extra_repr(self) -> str:
        bias = "" if self.bias is None else ", bias"
        return f"{self.linear}, {self.format}{bias}, kernel={self.kernel}"

    def _adopt(self, bound: Bound, stored: _Partition) -> None:
        """A layer that was given these weights already."""
        self._bound, self.prepared, self._stored = bound, bound.prepared, stored

    def _set(self, stored: _Tensors | _Partition) -> None:
        """Prepare these weights, in place where there are some."""
        weights = stored.weights(self.linear)
        if self._bound is not None:
            self._bound.prepare(weights)
        else:
            self._bound = Bound(self.linear, weights, device=self._device,
                                registry=self._registry, kernel=self._kernel)
            self.prepared = self._bound.prepared
        self._stored = stored

    def _set_bias(self, bias: torch.Tensor | None) -> None:
        if bias is None or self.bias is None:
            return
        if tuple(bias.shape) != (self.out_features,):
            raise ArgumentError(f"bias is {list(bias.shape)}, expected [{self.out_features}]")
        with torch.no_grad():
            self.bias.copy_(bias)

    def _kept(self, purpose: str) -> _Tensors | _Partition:
        if self._stored is None:
            raise Error(f"the module holds prepared weights alone and cannot {purpose}: it has "
                        "none yet, or its stored ones were released", Status.STATE)
        return self._stored

    # ---- state -----------------------------------------------------------------------------

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        for name, tensor in self._kept("be saved").state().items():
            destination[prefix + name] = tensor

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any,
                              strict: bool, missing_keys: list[str], unexpected_keys: list[str],
                              error_msgs: list[str]) -> None:
        shapes = _shapes(self.linear, self.format)
        names = {*shapes, *(name for name in _REDUNDANT if name.startswith("weight") ==
                            (self.format == "compressed-tensors"))}
        mine = {name: state_dict[prefix + name] for name in names if prefix + name in state_dict}
        others = {key: value for key, value in state_dict.items()
                  if key.removeprefix(prefix) not in mine}
        super()._load_from_state_dict(others, prefix, local_metadata, strict, missing_keys,
                                      unexpected_keys, error_msgs)
        missing = [prefix + name for name in shapes if name not in mine]
        if missing:
            missing_keys += missing
            return
        try:
            # The caller's tensors may change later; only what the description has no use for
            # (a symmetric layer's zero points) is left.
            self._set(_Tensors(self.format, {name: tensor.detach().clone()
                                             for name, tensor in mine.items()}))
        except Error as error:
            error_msgs.append(f"{prefix.removesuffix('.') or 'module'}: {error}")

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: the stored weights, from which the copy prepares its own."""
        state = dict(self.__dict__)
        state["_buffers"] = {**self._buffers, "prepared": None}
        state["_bound"] = state["_registry"] = None
        if isinstance(self._stored, _Partition):
            state["_stored"] = _Tensors(self.format, self._stored.state())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if self._stored is not None:
            self._set(self._stored)

    def _apply(self, fn: Any, recurse: bool = True) -> QuantLinear:
        """Moved or converted like its bias; the weights are prepared anew for that."""
        prepared, self.prepared = self.prepared, None
        try:
            super()._apply(fn, recurse)
            probe = fn(torch.empty(0, dtype=self.dtype, device=self._device))
        finally:
            self.prepared = prepared
        if probe.device == self._device and probe.dtype == self.dtype:
            return self
        stored = self._kept(f"be moved to {probe.device} as {probe.dtype}") if prepared is not None \
            else None
        self.linear = dataclasses.replace(self.linear, x_type=_word(probe.dtype),
                                          y_type=_word(probe.dtype))
        self.dtype, self._device = probe.dtype, probe.device
        self._bound = self.prepared = None
        if stored is not None:
            self._set(stored)
        return self


def _word(dtype: torch.dtype) -> Any:
    if dtype not in _WORDS:
        raise ArgumentError(f"dtype is {dtype}, expected one of "
                            f"{', '.join(map(str, _WORDS))}")
    return _WORDS[dtype]


def _stored_bias(stored: Any) -> torch.Tensor | None:
    if stored.bias is None:
        return None
    tensor = torch.from_numpy(stored.bias.copy())
    return tensor.view(torch.bfloat16) if stored.bias_dtype == "BF16" else tensor


# ---- whole models ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Converted:
    """What `convert` did: the kernel of each layer that it replaced, the other tensors that it
    loaded, those of the model that the checkpoint lacks, and what became of each layer in the
    cache ("mapped", "missing", "stale", ...; without a cache "prepared")."""

    kernels: dict[str, str]
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    cached: dict[str, Outcome]


def convert(model: nn.Module, checkpoint: Checkpoint | str, *, dtype: torch.dtype | None = None,
            device: torch.device | str | None = None, dense: bool = True,
            registry: Registry | None = None,
            cache: str | os.PathLike[str] | None = None) -> Converted:
    """Replace the linears of a model, in place, by the quantized layers of a checkpoint.

    Other tensors of the checkpoint are loaded, too, unless dense is False. dtype and device are
    those of the linear that is replaced unless given. Names may differ by the model's
    base_model_prefix, as those of Hugging Face's do. With a cache, a folder, prepared weights are
    mapped from a file there, and what it lacks is saved (docs/prepared.md).
    """
    if not isinstance(checkpoint, Checkpoint):
        checkpoint = Checkpoint(checkpoint)
    swaps: list[tuple[str, QuantLinear]] = []
    parts: list[_Partition] = []
    for layer in checkpoint.layers:
        if layer.linear is None:
            raise Error(f"{layer.name} cannot be converted: {layer.reason}", Status.UNSUPPORTED)
        name, old = _find_linear(model, layer.name)
        _check_alike(layer, old)
        place = device or (old.weight.device if old.weight.device.type != "meta" else "cpu")
        bias: Any = None if layer.has_bias else (old.bias if old.bias is not None else False)
        part = _Partition(checkpoint, layer.name, None, None)
        new = QuantLinear._without_weights(part, dtype or old.weight.dtype, bias,
                                           {"device": place, "registry": registry})
        new.train(old.training)
        swaps.append((name, new))
        parts.append(part)
    outcomes = _fill([new for _, new in swaps], parts, checkpoint, cache)
    # All or nothing: a model half of whose layers were replaced serves nobody.
    for name, module in swaps:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, module)
    loaded = _load_dense(model, checkpoint, device) if dense else ()
    own = {name for name, _ in _dense_tensors(model)}
    return Converted({name: new.kernel or "" for name, new in swaps}, tuple(loaded),
                     tuple(sorted(own - set(loaded))),
                     {name: outcomes[part.name] for (name, _), part in zip(swaps, parts)})


def _fill(modules: list[QuantLinear], parts: list[_Partition], checkpoint: Checkpoint,
          cache: str | os.PathLike[str] | None) -> dict[str, Outcome]:
    """Give modules their weights, with a cache from there."""
    if cache is None:
        for module, stored in zip(modules, parts):
            module._set(stored)
        return {stored.name: "prepared" for stored in parts}
    contents = [checkpoint.content(stored.name) for stored in parts]
    bounds = [Bound(module.linear, device=module._device, registry=module._registry,
                    content=content) for module, content in zip(modules, contents)]

    def part(bound: Bound, stored: _Partition, content: str) -> Part:
        return Part(stored.name, bound.layer, content,
                    lambda: bound.prepare(stored.weights(bound.layer.linear)), bound.map)

    outcomes = fill_all(cache, checkpoint.path, map(part, bounds, parts, contents),
                        lambda message: warnings.warn(message, stacklevel=4))
    for module, bound, stored in zip(modules, bounds, parts):
        module._adopt(bound, stored)
    return outcomes


def _names(model: nn.Module, name: str) -> Iterator[str]:
    prefix = getattr(model, "base_model_prefix", "")
    yield name
    if prefix:
        yield name.removeprefix(f"{prefix}.")
        yield f"{prefix}.{name}"


def _find_linear(model: nn.Module, stored: str) -> tuple[str, nn.Linear]:
    found: Any = None
    for name in _names(model, stored):
        try:
            found = model.get_submodule(name)
        except AttributeError:
            continue
        if isinstance(found, nn.Linear):
            return name, found
    what = f"is {type(found).__name__}" if found is not None else "is not there"
    raise ArgumentError(f"{stored} of the checkpoint {what} in {type(model).__name__}, expected "
                        "an nn.Linear")


def _check_alike(layer: Any, old: nn.Linear) -> None:
    found, stored = (old.in_features, old.out_features), layer.linear
    if found != (stored.in_features, stored.out_features):
        raise ArgumentError(f"{layer.name} is {stored.in_features}×{stored.out_features} in the "
                            f"checkpoint, the model's is {found[0]}×{found[1]}")


def _dense_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and saved buffers that are not a QuantLinear's."""
    for prefix, module in model.named_modules():
        if isinstance(module, QuantLinear):
            continue
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None and name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}".removeprefix("."), tensor


def _load_dense(model: nn.Module, checkpoint: Checkpoint,
                device: torch.device | str | None) -> list[str]:
    own = dict(_dense_tensors(model))
    quantized = tuple(f"{layer.name}." for layer in checkpoint.layers)
    loaded = []
    for stored in checkpoint.tensors:
        name = next((n for n in _names(model, stored.name) if n in own), None)
        if name is None or stored.name.startswith(quantized):
            continue
        old, tensor = own[name], _tensor_of(stored)
        if old.shape != tensor.shape:
            raise ArgumentError(f"{stored.name} is {list(tensor.shape)} in the checkpoint, the "
                                f"model's is {list(old.shape)}")
        with torch.no_grad():
            if old.device.type == "meta":
                _materialise(model, name, tensor.to(device or "cpu", old.dtype, copy=True))
            else:
                old.copy_(tensor)
        loaded.append(name)
    return loaded


def _materialise(model: nn.Module, name: str, tensor: torch.Tensor) -> None:
    parent, _, last = name.rpartition(".")
    module = model.get_submodule(parent)
    if last in module._parameters:
        setattr(module, last, nn.Parameter(tensor, requires_grad=False))
    else:
        module._buffers[last] = tensor
