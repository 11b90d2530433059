"""Scales of another type, where each value stays what it is."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy

from ._errors import ArgumentError
from ._library import ffi, new
from ._linear import TYPES, Linear, Type, number_of


def _decode(words: numpy.ndarray, type_: str) -> numpy.ndarray:
    if type_ == "f16":
        return words.view(numpy.float16).astype(numpy.float32)
    return (words.astype(numpy.uint32) << 16 if type_ == "bf16" else words).view(numpy.float32)


def _encode(values: numpy.ndarray, type_: str) -> numpy.ndarray:
    """The nearest of a narrower type for f16; for bf16 the bits cut, which is exact or not."""
    if type_ == "f16":
        with numpy.errstate(over="ignore"):
            return values.astype(numpy.float16).view(numpy.uint16)
    bits = values.view(numpy.uint32)
    return (bits >> 16).astype(numpy.uint16) if type_ == "bf16" else bits


def _stored(view: Any, n: int, g: int) -> numpy.ndarray:
    """The words [N, G] that a kry_view in host memory shows."""
    words = numpy.frombuffer(ffi.buffer(view.data, view.bytes), f"uint{view.word_bits}")
    rows = (view.n_begin + numpy.arange(n)) * view.n_stride
    return words[rows[:, None] + (view.j_begin + numpy.arange(g)) * view.j_stride]


class Rescaled:
    """Weights whose scales are handed over in another type. Made by their with_scale_type()."""

    def __init__(self, weights: Any, type_: Type) -> None:
        number_of(TYPES, type_, "scale_type")
        if weights.platform != "cpu":
            raise ArgumentError(f"the weights lie on {weights.platform}, where scales cannot be "
                                f"brought to {type_}: do that before they are moved there")
        self.weights, self.type, self.platform = weights, type_, weights.platform

    def _convert(self, view: Any, linear: Linear, stored: str) -> numpy.ndarray:
        values = _decode(_stored(view, linear.out_features, linear.groups), stored)
        words = _encode(values, self.type)
        wrong = numpy.argwhere(_decode(words, self.type) != values)
        if len(wrong):
            n, g = wrong[0]
            raise ArgumentError(
                f"scales[{n}, {g}] is {values[n, g]:.9g} in {stored}, which {self.type} does not "
                f"hold exactly, nor {len(wrong) - 1} others of {values.size}: scales are not "
                "rounded here, since that gives another model; quantize it with scales of "
                f"{self.type}, or run it where {stored} is taken")
        return words

    def to_c(self, linear: Linear) -> tuple[Any, list[Any]]:
        if linear.scale_type != self.type:
            raise ArgumentError(f"the description says scales of {linear.scale_type}, these "
                                f"weights were asked for {self.type}")
        # The first type under which the weights fit is the one they are stored in.
        for stored in ("f32", "f16", "bf16"):
            try:
                struct, keep = self.weights.to_c(dataclasses.replace(linear, scale_type=stored))
                break
            except ArgumentError:
                if stored == "bf16":
                    raise
        words = self._convert(struct.scales, linear, stored)
        scales = new("kry_view", data=ffi.from_buffer(words), bytes=words.nbytes,
                     n_stride=words.shape[1], j_stride=1, element_bits=words.itemsize * 8,
                     word_bits=words.itemsize * 8, pack_axis=1)
        own = new("kry_weights", qweight=struct.qweight, scales=scales,
                  zero_points=struct.zero_points, g_idx=struct.g_idx, memory=struct.memory)
        return own, [keep, struct, words]
