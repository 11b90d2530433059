"""Weights as somebody holds them: views of stored tensors, whatever packs them."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy

from ._arrays import Array, array
from ._errors import ArgumentError
from ._library import ffi, new
from ._linear import TYPE_BITS, Linear, Type
from ._scales import Rescaled

Axis = Literal["k", "n"]
Zero = Literal["true", "signed", "minus_one", "minus_one_word"]

_AXES = {"k": 1, "n": 2}
_ORDERS = {"sequential": 0, "awq": 1}
_ZEROS = {"true": 0, "signed": 1, "minus_one": 2, "minus_one_word": 3}
_WORDS = {"int32": 32, "uint32": 32, "int16": 16, "uint16": 16, "int8": 8, "uint8": 8}
_SCALES = {"f16": ("float16",), "f32": ("float32",),
           "bf16": ("bfloat16", "bfloat16_t", "bfloat", "uint16")}


def is_of_type(found: Array, expected: str) -> bool:
    """Whether an array has elements of a type; uint16 holds the bits of bf16, which numpy lacks."""
    return found.dtype in _SCALES[expected] or (expected == "bf16" and found.dtype == "bfloat16")


@dataclasses.dataclass(frozen=True)
class View:
    """A stored tensor seen as [N, K] (weights) or [N, G] (scales, zero points).

    n_first: its axes are (N, K) or (N, G); else the other way round. element_bits are those of a
    packed element; None: nothing is packed. Element (n, j) of the layer is (n + n_begin, j +
    j_begin) of the tensor.
    """

    tensor: Array
    n_first: bool = True
    element_bits: int | None = None
    pack_axis: Axis = "k"
    order: Literal["sequential", "awq"] = "sequential"
    zero: Zero = "true"
    n_begin: int = 0
    j_begin: int = 0

    @property
    def word_bits(self) -> int:
        return self.tensor.itemsize * 8

    @property
    def per_word(self) -> int:
        return self.word_bits // self.element_bits if self.element_bits else 1

    def check(self, name: str, n: int, j: int) -> None:
        """Whether the tensor has just these elements, or with an origin at least these."""
        shape = self.tensor.shape
        if len(shape) == 1 and j == 1 and self.n_first:
            shape = (*shape, 1)
        expected = [n + self.n_begin, j + self.j_begin]
        packed = 0 if self.pack_axis == "n" else 1
        expected[packed] = -(-expected[packed] // self.per_word)
        if not self.n_first:
            expected.reverse()
        whole = self.n_begin == 0 and self.j_begin == 0
        if len(shape) != 2 or any(found != want if whole else found < want
                                  for found, want in zip(shape, expected)):
            raise ArgumentError(f"{name} is {self.tensor}, expected "
                                f"{'' if whole else 'at least '}{expected}")
        if any(stride < 0 for stride in self.tensor.strides):
            raise ArgumentError(f"{name} has strides {list(self.tensor.strides)}: negative ones "
                                "are not known here, make it contiguous")

    def to_c(self) -> Any:
        strides = (*self.tensor.strides, 0)[:2]
        n_stride, j_stride = strides if self.n_first else strides[::-1]
        return new("kry_view", data=self.tensor.pointer, bytes=self.tensor.reach,
                   n_stride=n_stride, j_stride=j_stride, n_begin=self.n_begin,
                   j_begin=self.j_begin, element_bits=self.element_bits or self.word_bits,
                   word_bits=self.word_bits, pack_axis=_AXES[self.pack_axis],
                   order=_ORDERS[self.order], zero=_ZEROS[self.zero])


def _packed(value: Any, name: str, bits: int, **how: Any) -> View:
    tensor = array(value, name)
    if tensor.dtype not in ("int32", "uint32"):
        raise ArgumentError(f"{name} is {tensor}, expected int32: words of packed {bits}-bit "
                            "elements")
    if bits not in (4, 8):
        raise ArgumentError(f"bits is {bits}, expected 4 or 8")
    return View(tensor, element_bits=bits, **how)


def _scales(value: Any, name: str, n_first: bool) -> View:
    tensor = array(value, name)
    if not any(is_of_type(tensor, known) for known in TYPE_BITS):
        raise ArgumentError(f"{name} is {tensor}, expected float16, bfloat16 or float32")
    return View(tensor, n_first)


@dataclasses.dataclass(frozen=True)
class Weights:
    """The weights of a layer, described and not copied; the arrays are kept.

    `compressed_tensors`, `gptq`, `awq` and `unpacked` describe tensors as those formats store
    them; for any other packing make the views yourself.
    """

    qweight: View
    scales: View
    zero_points: View | None = None
    g_idx: Array | None = None

    @classmethod
    def compressed_tensors(cls, weight_packed: Any, weight_scale: Any,
                           weight_zero_point: Any = None, weight_g_idx: Any = None, *,
                           bits: int = 4) -> Weights:
        """weight_packed int32 [N, K/p], weight_scale [N, G]; weight_zero_point int32 [N/p, G]
        packed along N, or int8 [N, G], signed; p = 32 / bits."""
        zeros = None
        if weight_zero_point is not None:
            stored = array(weight_zero_point, "weight_zero_point")
            if stored.dtype == "int8":
                zeros = View(stored, zero="signed")
            else:
                zeros = _packed(stored, "weight_zero_point", bits, pack_axis="n")
        return cls(_packed(weight_packed, "weight_packed", bits),
                   _scales(weight_scale, "weight_scale", True), zeros,
                   _order(weight_g_idx, "weight_g_idx"))

    @classmethod
    def gptq(cls, qweight: Any, scales: Any, qzeros: Any = None, g_idx: Any = None, *,
             bits: int = 4, zero: Zero = "minus_one") -> Weights:
        """qweight int32 [K/p, N] packed along K, scales [G, N], qzeros int32 [G, N/p]. `zero`:
        "minus_one" for version 1, "minus_one_word" for GPTQModel's of it, "true" for gptq_v2."""
        zeros = (_packed(qzeros, "qzeros", bits, n_first=False, pack_axis="n", zero=zero)
                 if qzeros is not None else None)
        return cls(_packed(qweight, "qweight", bits, n_first=False),
                   _scales(scales, "scales", False), zeros, _order(g_idx, "g_idx"))

    @classmethod
    def awq(cls, qweight: Any, scales: Any, qzeros: Any = None) -> Weights:
        """Version gemm: qweight int32 [K, N/8] and qzeros int32 [G, N/8] packed along N in AWQ's
        order, scales [G, N]."""
        how: dict[str, Any] = {"n_first": False, "pack_axis": "n", "order": "awq"}
        zeros = _packed(qzeros, "qzeros", 4, **how) if qzeros is not None else None
        return cls(_packed(qweight, "qweight", 4, **how), _scales(scales, "scales", False), zeros)

    @classmethod
    def unpacked(cls, qweight: Any, scales: Any, zero_points: Any = None,
                 g_idx: Any = None, *, bits: int = 4) -> Weights:
        """Canonical words with zero points as they are: qweight uint32 [N, K/p] packed along K,
        or with 8 bits uint8 [N, K]; scales [N, G]; zero_points uint8 [N, G]."""
        codes = array(qweight, "qweight")
        if codes.dtype == "uint8" and bits == 8:
            weights = View(codes)
        else:
            weights = _packed(codes, "qweight", bits)
        zeros = None
        if zero_points is not None:
            stored = array(zero_points, "zero_points")
            if stored.dtype != "uint8":
                raise ArgumentError(f"zero_points is {stored}, expected uint8")
            zeros = View(stored)
        return cls(weights, _scales(scales, "scales", True), zeros, _order(g_idx, "g_idx"))

    def _arrays(self) -> dict[str, Array]:
        found = {"qweight": self.qweight.tensor, "scales": self.scales.tensor}
        if self.zero_points is not None:
            found["zero_points"] = self.zero_points.tensor
        if self.g_idx is not None:
            found["g_idx"] = self.g_idx
        return found

    @property
    def platform(self) -> str:
        """Where they lie, all of them: "cpu" or a device's platform."""
        places = {name: (a.platform, a.ordinal) for name, a in self._arrays().items()}
        if len(set(places.values())) > 1:
            where = ", ".join(f"{name} on {p}:{o}" for name, (p, o) in places.items())
            raise ArgumentError(f"weights lie in different places ({where}): move them together")
        return self.qweight.tensor.platform

    def _check(self, linear: Linear) -> None:
        n, k = linear.out_features, linear.in_features
        if (self.qweight.element_bits or self.qweight.word_bits) != linear.bits:
            raise ArgumentError(f"qweight has elements of {self.qweight.element_bits} bits, "
                                f"{linear.weight_type} has {linear.bits}")
        self.qweight.check("qweight", n, k)
        self.scales.check("scales", n, linear.groups)
        if not is_of_type(self.scales.tensor, linear.scale_type or ""):
            raise ArgumentError(f"scales are {self.scales.tensor}, the description says "
                                f"{linear.scale_type}")
        if linear.has_zero_points:
            if self.zero_points is None:
                raise ArgumentError(f"zero_points are missing: {linear.weight_type} has them")
            self.zero_points.check("zero_points", n, linear.groups)
        if linear.act_order and self.g_idx is not None and self.g_idx.shape != (k,):
            raise ArgumentError(f"g_idx is {self.g_idx}, expected [{k}]")

    def _order_of(self, linear: Linear) -> Any:
        """g_idx for the core: one that only counts up is none."""
        if self.g_idx is None or linear.act_order or self.g_idx.platform != "cpu":
            return self.g_idx.pointer if self.g_idx is not None else ffi.NULL
        trivial = numpy.arange(linear.in_features) + linear.k_offset
        trivial = trivial // (linear.group_size if linear.group_size > 0 else linear.in_features)
        stored = numpy.frombuffer(ffi.buffer(self.g_idx.pointer, self.g_idx.reach), numpy.int32)
        if stored.shape == trivial.shape and (stored == trivial).all():
            return ffi.NULL
        raise ArgumentError("g_idx reorders the groups: the description needs act_order=True")

    def with_scale_type(self, type_: Type) -> Rescaled:
        """For a kernel that takes scales of another type: the same weights with them, if each value
        is exact in it; else Layer.prepare raises ArgumentError."""
        return Rescaled(self, type_)

    def to_c(self, linear: Linear) -> tuple[Any, list[Any]]:
        """A kry_weights that fits a description, and what it points to."""
        self._check(linear)
        on_host = self.platform == "cpu"
        qweight, scales = self.qweight.to_c(), self.scales.to_c()
        keep = [qweight, scales, self]
        weights = new("kry_weights", qweight=qweight, scales=scales, memory=1 if on_host else 2)
        if linear.has_zero_points and self.zero_points is not None:
            zeros = self.zero_points.to_c()
            keep.append(zeros)
            weights.zero_points = zeros
        weights.g_idx = ffi.cast("int32_t const *", self._order_of(linear))
        return weights, keep


def _order(value: Any, name: str) -> Array | None:
    if value is None:
        return None
    found = array(value, name)
    if found.dtype != "int32" or len(found.shape) != 1 or found.strides not in ((1,), (0,)):
        raise ArgumentError(f"{name} is {found}, expected dense int32 [K]")
    return found
