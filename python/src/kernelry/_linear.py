"""Linear descriptions: shapes, types and groups of y = x * dequant(W)^T + bias."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from ._errors import ArgumentError
from ._library import call, ffi, lib, new

WeightType = Literal["u4b8", "u4", "u8b128", "u8"]
Type = Literal["f16", "bf16", "f32"]
Activation = Literal["none", "int8_token", "fp8_e4m3_token"]

WEIGHT_TYPES = {"u4b8": 1, "u4": 2, "u8b128": 3, "u8": 4}
TYPES = {"f16": 1, "bf16": 2, "f32": 3}
ACTIVATIONS = {"none": 0, "int8_token": 1, "fp8_e4m3_token": 2}
TYPE_BITS = {"f16": 16, "bf16": 16, "f32": 32}


def number_of(words: dict[str, int], word: Any, field: str) -> int:
    try:
        return words[word]
    except (KeyError, TypeError):
        raise ArgumentError(f"{field} is {word!r}, expected one of {', '.join(words)}") from None


def word_of(words: dict[str, int], number: int) -> str:
    return next((word for word, value in words.items() if value == number), str(number))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
    """A linear description; it says nothing of values.

    in_features (K) and out_features (N) are this partition's, the full layer's follow; a
    row-parallel partition starts at k_offset. group_size -1 is one group a channel. What is left
    out follows: full_* the partition, scale_type and y_type x_type.
    """

    in_features: int
    out_features: int
    group_size: int = -1
    weight_type: WeightType = "u4b8"
    x_type: Type = "bf16"
    scale_type: Type | None = None
    y_type: Type | None = None
    full_in_features: int | None = None
    full_out_features: int | None = None
    k_offset: int = 0
    activation_quantization: Activation = "none"
    allow_int8_activations: bool = False
    act_order: bool = False
    required_features: int = 0

    def __post_init__(self) -> None:
        """Fill in what is left out; the core checks what is there."""
        for name in ("in_features", "out_features", "group_size", "k_offset", "required_features",
                     "full_in_features", "full_out_features"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not hasattr(value, "__index__")):
                raise ArgumentError(f"{name} is {value!r}, expected a whole number")
        complete = new("kry_linear")
        call(lib.kry_linear_complete(self._as_given(), complete))
        for name, value in _fields(complete).items():
            object.__setattr__(self, name, value)

    def _as_given(self) -> Any:
        def type_or_zero(field: str) -> int:
            value = getattr(self, field)
            return number_of(TYPES, value, field) if value is not None else 0

        try:
            return new(
                "kry_linear",
                in_features=self.in_features,
                out_features=self.out_features,
                full_in_features=self.full_in_features or 0,
                full_out_features=self.full_out_features or 0,
                k_offset=self.k_offset,
                group_size=self.group_size,
                weight_type=number_of(WEIGHT_TYPES, self.weight_type, "weight_type"),
                scale_type=type_or_zero("scale_type"),
                x_type=number_of(TYPES, self.x_type, "x_type"),
                y_type=type_or_zero("y_type"),
                activation_quantization=number_of(
                    ACTIVATIONS, self.activation_quantization, "activation_quantization"),
                allowed=1 if self.allow_int8_activations else 0,
                act_order=1 if self.act_order else 0,
                required_features=self.required_features,
            )
        except OverflowError as error:
            raise ArgumentError(f"a number of {self.in_features}x{self.out_features} is beyond "
                                f"what the description holds: {error}") from None

    def to_c(self) -> Any:
        """A kry_linear of its own."""
        return self._as_given()

    @property
    def bits(self) -> int:
        """Bits of a weight."""
        return 4 if self.weight_type in ("u4b8", "u4") else 8

    @property
    def has_zero_points(self) -> bool:
        return self.weight_type in ("u4", "u8")

    @property
    def groups(self) -> int:
        """The groups that the description touches (G)."""
        if self.group_size < 0:
            return 1
        if self.act_order:
            return -(-(self.full_in_features or 0) // self.group_size)
        last = (self.k_offset + self.in_features - 1) // self.group_size
        return last - self.k_offset // self.group_size + 1

    @property
    def starts_inside_group(self) -> bool:
        return self.group_size > 0 and self.k_offset % self.group_size != 0

    def __str__(self) -> str:
        group = f"g{self.group_size}" if self.group_size > 0 else "channel"
        words = [f"{self.in_features}×{self.out_features}", self.weight_type, group, self.x_type]
        if self.scale_type != self.x_type:
            words.append(f"scales {self.scale_type}")
        if self.y_type != self.x_type:
            words.append(f"y {self.y_type}")
        if self.act_order:
            words.append("act-order")
        if self.activation_quantization != "none":
            words.append(self.activation_quantization)
        if self.in_features != self.full_in_features:
            words.append(f"from k {self.k_offset} of {self.full_in_features}")
        if self.starts_inside_group:
            words.append("(inside a group)")
        return " ".join(words)


def _fields(struct: Any) -> dict[str, Any]:
    return {
        "in_features": struct.in_features,
        "out_features": struct.out_features,
        "full_in_features": struct.full_in_features,
        "full_out_features": struct.full_out_features,
        "k_offset": struct.k_offset,
        "group_size": struct.group_size,
        "weight_type": word_of(WEIGHT_TYPES, struct.weight_type),
        "scale_type": word_of(TYPES, struct.scale_type),
        "x_type": word_of(TYPES, struct.x_type),
        "y_type": word_of(TYPES, struct.y_type),
        "activation_quantization": word_of(ACTIVATIONS, struct.activation_quantization),
        "allow_int8_activations": bool(struct.allowed & 1),
        "act_order": bool(struct.act_order),
        "required_features": struct.required_features,
    }


def linear_of(struct: Any) -> Linear:
    """A description of the C library; NULL has none."""
    assert struct != ffi.NULL
    return Linear(**_fields(struct))
