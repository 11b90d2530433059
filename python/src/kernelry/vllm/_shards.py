"""Parameters that load any shard of a quantized layer: also one that starts inside a group, inside
a packed word, or with a short last group."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import torch
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.parameter import BasevLLMParameter, PackedvLLMParameter

from ._kernel import KernelryLinearKernel, ShardConfig, describe, logger

Decode = Callable[[torch.Tensor], torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Format:
    """How a quantizer stores a layer: its tensors' names, whether N is their first axis, and what
    a word packs."""

    qweight: str
    scales: str
    zeros: str
    g_idx: str
    n_first: bool
    packs: Literal["k", "n"]
    order: Literal["sequential", "awq"] = "sequential"
    extra: tuple[str, ...] = ()


COMPRESSED_TENSORS = Format("weight_packed", "weight_scale", "weight_zero_point", "weight_g_idx",
                            n_first=True, packs="k", extra=("weight_shape",))
GPTQ = Format("qweight", "scales", "qzeros", "g_idx", n_first=False, packs="k")
AWQ = Format("qweight", "scales", "qzeros", "g_idx", n_first=False, packs="n", order="awq")

# From the lowest bits, the elements that AWQ's fields hold; the reverse tells each one's field.
_AWQ_FIELDS = [0, 4, 1, 5, 2, 6, 3, 7]


def unpack(words: torch.Tensor, axis: int, bits: int, order: str = "sequential") -> torch.Tensor:
    """Packed codes along an axis as bytes."""
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=words.device)
    fields = (words.movedim(axis, -1).unsqueeze(-1) >> shifts) & ((1 << bits) - 1)
    if order == "awq":
        fields = fields[..., _AWQ_FIELDS]
    return fields.flatten(-2).to(torch.uint8).movedim(-1, axis)


class ShardParameter(PackedvLLMParameter):
    """A stored tensor's part on this rank.

    Along N the layer tells which rows; along the other axis the part starts at `begin`, in stored
    elements, where the layer is split along K. `decode` is applied to what was stored first.
    """

    def __init__(self, *, data: torch.Tensor, weight_loader: Callable[..., Any], n_axis: int,
                 rank: int, begin: int = 0, n_per_word: int = 1, packed_along_n: bool = False,
                 decode: Decode | None = None) -> None:
        # vLLM cuts tensors that are stored fused by these: a word holds n_per_word rows.
        super().__init__(data=data, weight_loader=weight_loader, input_dim=1 - n_axis,
                         output_dim=n_axis, packed_factor=n_per_word,
                         packed_dim=n_axis if packed_along_n else 1 - n_axis)
        self.tp_rank = rank
        self.begin = begin
        self.per_row = n_per_word if packed_along_n and decode is None else 1
        self.decode = decode or (lambda stored: stored)

    def _check_rounding(self, to: torch.Tensor, stored: torch.Tensor) -> None:
        """Scales become the model's type, as with vLLM's own methods: what that changes is said."""
        if not stored.is_floating_point() or stored.dtype == to.dtype:
            return
        exact, rounded = stored.double(), stored.to(to.dtype).double()
        if not bool(rounded.isfinite().all()) and bool(exact.isfinite().all()):
            raise ValueError(f"scales of up to {exact.abs().max():.3g} are beyond {to.dtype}: load "
                             "the model with --dtype float32 or bfloat16")
        worst = float(((rounded - exact).abs() / exact.abs().clamp_min(1e-300)).max())
        if worst > 0:
            logger.warning_once("Kernelry: scales stored as %s are rounded to %s, by a part in %d "
                                "at most; --dtype float32 keeps them", stored.dtype, to.dtype,
                                round(1 / worst))

    def _copy(self, to: torch.Tensor, stored: torch.Tensor) -> None:
        if to.shape != stored.shape:
            raise ValueError(f"a quantized tensor has a part of {list(stored.shape)} for this "
                             f"rank, expected {list(to.shape)}: is it of another model or group "
                             "size?")
        self._check_rounding(to, stored)
        to.copy_(stored)

    def _load_rows(self, stored: torch.Tensor, offset: int, size: int, rank: int) -> None:
        if offset % self.per_row or size % self.per_row:
            raise ValueError(f"rows {offset} to {offset + size} of a layer share words of "
                             f"{self.per_row} with their neighbours; use fewer ranks")
        offset, size = offset // self.per_row, size // self.per_row
        self._copy(self.data.narrow(self.output_dim, offset, size),
                   self.decode(stored).narrow(self.output_dim, rank * size, size))

    def load_column_parallel_weight(self, loaded_weight: torch.Tensor) -> None:
        size = self.data.shape[self.output_dim] * self.per_row
        self._load_rows(loaded_weight, 0, size, self.tp_rank)

    def load_merged_column_weight(self, loaded_weight: torch.Tensor, **kwargs: Any) -> None:
        self._load_rows(loaded_weight, kwargs["shard_offset"], kwargs["shard_size"], self.tp_rank)

    def load_qkv_weight(self, loaded_weight: torch.Tensor, **kwargs: Any) -> None:
        # Where there are more ranks than heads of k and v, several hold the same one.
        rank = self.tp_rank
        if kwargs["shard_id"] != "q":
            rank //= kwargs["num_heads"]
        self._load_rows(loaded_weight, kwargs["shard_offset"], kwargs["shard_size"], rank)

    def load_row_parallel_weight(self, loaded_weight: torch.Tensor) -> None:
        size = self.data.shape[self.input_dim]
        self._copy(self.data,
                   self.decode(loaded_weight).narrow(self.input_dim, self.begin, size))


class OrderParameter(BasevLLMParameter):
    """g_idx: a number for each column of the layer; fused layers have to agree."""

    def __init__(self, *, data: torch.Tensor, weight_loader: Callable[..., Any],
                 begin: int) -> None:
        super().__init__(data=data, weight_loader=weight_loader)
        self.begin = begin
        self.is_loaded = False

    def _load(self, loaded_weight: torch.Tensor, *_: Any, **__: Any) -> None:
        part = loaded_weight.narrow(0, self.begin, len(self.data)).to(torch.int32)
        if self.is_loaded and not torch.equal(part, self.data):
            raise ValueError("the parts of a fused layer order their groups differently (g_idx): "
                             "vLLM computes them at once, so this checkpoint cannot be served")
        self.data.copy_(part)
        self.is_loaded = True

    load_column_parallel_weight = load_row_parallel_weight = _load
    load_merged_column_weight = load_qkv_weight = _load


class IgnoredParameter(BasevLLMParameter):
    """A stored tensor that says nothing new."""

    def _load(self, *_: Any, **__: Any) -> None:
        return

    load_column_parallel_weight = load_row_parallel_weight = _load
    load_merged_column_weight = load_qkv_weight = _load


def _loader_of(layer: torch.nn.Module, weight_loader: Callable[..., Any]) -> Callable[..., Any]:
    """ReplicatedLinear compares shapes and copies, and so knows nothing of parameters."""
    if isinstance(layer, ReplicatedLinear):
        return lambda parameter, stored: parameter.load_column_parallel_weight(stored)
    return weight_loader


class _Maker:
    """Makes a layer's parameters."""

    def __init__(self, layer: torch.nn.Module, stored_as: Format, config: ShardConfig,
                 weight_loader: Callable[..., Any]) -> None:
        self.layer, self.format, self.config = layer, stored_as, config
        self.rank = getattr(layer, "tp_rank", 0)
        self.n_axis = 0 if stored_as.n_first else 1
        self.loader = _loader_of(layer, weight_loader)
        self.linear = describe(config)
        self.n, self.k = self.linear.out_features, self.linear.in_features
        self.per_word = 32 // self.linear.bits

    def _part(self, n: int, j: int, dtype: torch.dtype, **where: Any) -> ShardParameter:
        shape = (n, j) if self.format.n_first else (j, n)
        return ShardParameter(data=torch.empty(shape, dtype=dtype), weight_loader=self.loader,
                              n_axis=self.n_axis, rank=self.rank, **where)

    def qweight(self) -> ShardParameter:
        offset, p = self.linear.k_offset, self.per_word
        if self.format.packs == "n":
            if self.n % p:
                raise ValueError(f"{self.format.qweight} packs {p} rows in a word, this rank has "
                                 f"{self.n}: use fewer ranks")
            made = self._part(self.n // p, self.k, torch.int32, begin=offset, n_per_word=p,
                              packed_along_n=True)
        else:
            words = (offset + self.k - 1) // p - offset // p + 1
            made = self._part(self.n, words, torch.int32, begin=offset // p)
            made.kernelry_begin = offset % p
        made.kernelry_order = self.format.order
        return made

    def _first_group(self) -> int:
        grouped = self.linear.group_size > 0 and not self.linear.act_order
        return self.linear.k_offset // self.linear.group_size if grouped else 0

    def scales(self) -> ShardParameter:
        return self._part(self.n, self.linear.groups, self.config.act_type,
                          begin=self._first_group())

    def zeros(self, add: int) -> BasevLLMParameter:
        """Unpacked as they are loaded: any rows can be cut out of bytes."""
        if not self.linear.has_zero_points:
            return self.ignored(torch.int32)
        bits, order = self.linear.bits, self.format.order

        def decode(stored: torch.Tensor) -> torch.Tensor:
            return (unpack(stored, self.n_axis, bits, order) + add) & ((1 << bits) - 1)

        return self._part(self.n, self.linear.groups, torch.uint8, begin=self._first_group(),
                          n_per_word=self.per_word, packed_along_n=True, decode=decode)

    def g_idx(self) -> OrderParameter:
        return OrderParameter(data=torch.zeros(self.k, dtype=torch.int32),
                              weight_loader=self.loader, begin=self.linear.k_offset)

    def ignored(self, dtype: torch.dtype) -> IgnoredParameter:
        return IgnoredParameter(data=torch.empty(0, dtype=dtype), weight_loader=self.loader)


def create_weights(layer: torch.nn.Module, stored_as: Format, config: ShardConfig,
                   weight_loader: Callable[..., Any], *,
                   zero_add: int = 0) -> KernelryLinearKernel:
    """Register the parameters that hold this rank's part, and make the kernel for them.

    zero_add: what a stored zero point lacks. Raises ValueError where no kernel of Kernelry's can
    run the layer, with each one's reason.
    """
    accepted, reason = KernelryLinearKernel.can_implement(config)
    if not accepted:
        raise ValueError(f"--quantization kernelry cannot run {getattr(layer, 'prefix', 'a layer')}"
                         f": {reason}")
    make = _Maker(layer, stored_as, config, weight_loader)
    layer.register_parameter(stored_as.qweight, make.qweight())
    layer.register_parameter(stored_as.scales, make.scales())
    if make.linear.has_zero_points or stored_as is not COMPRESSED_TENSORS:
        layer.register_parameter(stored_as.zeros, make.zeros(zero_add))
    if config.act_order:
        layer.register_parameter(stored_as.g_idx, make.g_idx())
    for name in stored_as.extra:
        layer.register_parameter(name, make.ignored(torch.int64))
    return KernelryLinearKernel(config, stored_as.qweight, stored_as.scales, stored_as.zeros)


def shard_config(layer: torch.nn.Module, *, input_size: int, output_size: int, partition_k: int,
                 partition_n: int, **fields: Any) -> ShardConfig:
    """vLLM's description of a layer's part, with where it starts in K."""
    split = input_size != partition_k
    return ShardConfig(
        full_weight_shape=(input_size, output_size),
        partition_weight_shape=(partition_k, partition_n),
        k_offset=getattr(layer, "tp_rank", 0) * partition_k if split else 0, **fields)
