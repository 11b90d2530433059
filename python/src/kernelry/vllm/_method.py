"""Kernelry as a quantization method of vLLM's: `--quantization kernelry`.

It loads what vLLM's own methods load (compressed-tensors, GPTQ, AWQ), and the shards that they
refuse before any kernel is asked. Layers that are not 4- or 8-bit weights with 16-bit activations
stay with vLLM's methods.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.layers.linear import (LinearBase, LinearMethodBase,
                                               UnquantizedLinearMethod,
                                               register_weight_loader_v2_supported_method)
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.model_executor.layers.quantization.auto_awq import AutoAWQConfig
from vllm.model_executor.layers.quantization.auto_gptq import AutoGPTQConfig
from vllm.model_executor.layers.quantization.compressed_tensors.compressed_tensors import (
    CompressedTensorsConfig)
from vllm.model_executor.layers.quantization.compressed_tensors.schemes import (
    CompressedTensorsScheme, CompressedTensorsWNA16)
from vllm.model_executor.layers.quantization.utils.gptq_utils import get_linear_quant_method
from vllm.model_executor.layers.quantization.utils.quant_utils import is_layer_skipped
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.scalar_type import scalar_types

from ._shards import AWQ, COMPRESSED_TENSORS, GPTQ, Format, create_weights, shard_config

NAME = "kernelry"
TYPES_BY_BITS = {
    (4, True): scalar_types.uint4b8,
    (8, True): scalar_types.uint8b128,
    (4, False): scalar_types.uint4,
    (8, False): scalar_types.uint8,
}
DTYPES = [torch.float16, torch.bfloat16, torch.float32]


# ---- compressed-tensors ------------------------------------------------------------------


class KernelryScheme(CompressedTensorsScheme):
    """What CompressedTensorsWNA16 is for vLLM's kernels."""

    def __init__(self, scheme: CompressedTensorsWNA16, act_order: bool) -> None:
        self.quant_type = scheme.quant_type
        self.symmetric = bool(scheme.symmetric)
        self.group_size = scheme.group_size
        self.act_order = act_order

    @classmethod
    def get_min_capability(cls) -> int:
        return 75

    def create_weights(self, layer: torch.nn.Module, output_size: int, input_size: int,
                       output_partition_sizes: list[int], input_size_per_partition: int,
                       params_dtype: torch.dtype, weight_loader: Callable[..., Any],
                       **kwargs: Any) -> None:
        config = shard_config(
            layer, input_size=input_size, output_size=output_size,
            partition_k=input_size_per_partition, partition_n=sum(output_partition_sizes),
            weight_type=self.quant_type, act_type=params_dtype, group_size=self.group_size,
            zero_points=not self.symmetric, act_order=self.act_order)
        self.kernel = create_weights(layer, COMPRESSED_TENSORS, config, weight_loader)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        self.kernel.process_weights_after_loading(layer)

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor,
                      bias: torch.Tensor | None) -> torch.Tensor:
        return self.kernel.apply_weights(layer, x, bias)


class _Named:
    """What configurations of every format say alike."""

    def get_name(self) -> str:
        return NAME

    @classmethod
    def get_supported_act_dtypes(cls) -> list[torch.dtype]:
        return DTYPES


class KernelryConfig(_Named, CompressedTensorsConfig):
    """The method's configuration: that of compressed-tensors, or through from_config of another
    format."""

    @classmethod
    def _quantization_scheme_map_from_config(cls, config: dict[str, Any]) -> Any:
        """vLLM refuses activation order by groups when it reads the configuration: it is read
        without, and told to the schemes afterwards."""
        plain = copy.deepcopy(config)
        ordered = []
        for group in plain.get("config_groups", {}).values():
            weights = group.get("weights") or {}
            if weights.get("actorder") in ("group", "dynamic"):
                weights["actorder"] = None
                ordered += group.get("targets") or []
        schemes = super()._quantization_scheme_map_from_config(plain)
        for target in ordered:
            schemes[target]["weights"].actorder = "group"
        return schemes

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        method = str(config.get("quant_method", "")).lower()
        if method == "gptq":
            return KernelryGPTQConfig.from_config(config)
        if method == "awq":
            return KernelryAWQConfig.from_config(config)
        return super().from_config(config)

    @classmethod
    def override_quantization_method(cls, hf_quant_cfg: Any, user_quant: str | None,
                                     hf_config: Any = None) -> Any:
        """Take over where the user asks for it; a checkpoint asks by its quant_method."""
        method = str(hf_quant_cfg.get("quant_method", "")).lower()
        known = method in ("compressed-tensors", "gptq", "awq", NAME)
        return NAME if user_quant == NAME and known else None

    def get_scheme(self, layer: torch.nn.Module, layer_name: str | None = None) -> Any:
        scheme = super().get_scheme(layer, layer_name)
        if type(scheme) is not CompressedTensorsWNA16:
            return scheme
        if (scheme.num_bits, bool(scheme.symmetric)) not in TYPES_BY_BITS:
            return scheme
        found = self.get_scheme_dict(layer, layer_name) or {}
        actorder = getattr(found.get("weights"), "actorder", None)
        return KernelryScheme(scheme, getattr(actorder, "value", actorder) == "group")


# ---- GPTQ and AWQ ------------------------------------------------------------------------


@register_weight_loader_v2_supported_method
class KernelryLinearMethod(LinearMethodBase):
    """A linear layer that GPTQ or AWQ stored."""

    def __init__(self, stored_as: Format, quant_type: Any, group_size: int, zero_points: bool,
                 *, act_order: bool = False, zero_add: int = 0) -> None:
        self.stored_as = stored_as
        self.fields = {"weight_type": quant_type, "group_size": group_size,
                       "zero_points": zero_points, "act_order": act_order}
        self.zero_add = zero_add

    def create_weights(self, layer: torch.nn.Module, input_size_per_partition: int,
                       output_partition_sizes: list[int], input_size: int, output_size: int,
                       params_dtype: torch.dtype, **extra_weight_attrs: Any) -> None:
        config = shard_config(
            layer, input_size=input_size, output_size=output_size,
            partition_k=input_size_per_partition, partition_n=sum(output_partition_sizes),
            act_type=params_dtype, **self.fields)
        self.kernel = create_weights(layer, self.stored_as, config,
                                     extra_weight_attrs["weight_loader"], zero_add=self.zero_add)

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        self.kernel.process_weights_after_loading(layer)

    def apply(self, layer: torch.nn.Module, x: torch.Tensor,
              bias: torch.Tensor | None = None) -> torch.Tensor:
        return self.kernel.apply_weights(layer, x, bias)


class KernelryGPTQConfig(_Named, AutoGPTQConfig):
    """GPTQ, with zero points and activation order too."""

    TYPE_MAP = TYPES_BY_BITS

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> KernelryGPTQConfig:
        # vLLM's own method refuses activation order when it is made.
        made = super().from_config({**config, "desc_act": False})
        made.full_config = config
        made.desc_act = bool(config.get("desc_act")) and made.group_size > 0
        made.zero_add = 0 if config.get("checkpoint_format") == "gptq_v2" else 1
        return made

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        if not isinstance(layer, (LinearBase, ParallelLMHead)):
            return super().get_quant_method(layer, prefix)
        return get_linear_quant_method(self, layer, prefix, _gptq_method)


def _gptq_method(config: KernelryGPTQConfig) -> KernelryLinearMethod:
    """For a layer's own configuration, its dynamic rules applied."""
    return KernelryLinearMethod(GPTQ, config.quant_type, config.group_size, not config.is_sym,
                                act_order=config.desc_act, zero_add=config.zero_add)


class KernelryAWQConfig(_Named, AutoAWQConfig):
    """AWQ, version gemm."""

    def get_quant_method(self, layer: torch.nn.Module, prefix: str) -> Any:
        is_head = isinstance(layer, ParallelLMHead) and self.lm_head_quantized
        if not isinstance(layer, LinearBase) and not is_head:
            return super().get_quant_method(layer, prefix)
        if is_layer_skipped(prefix, self.modules_to_not_convert, self.packed_modules_mapping,
                            match_mode="substring"):
            return UnquantizedLinearMethod()
        return KernelryLinearMethod(AWQ, self.quant_type, self.group_size, self.zero_point)


def register_method() -> None:
    """Make the method known to vLLM; again does nothing more."""
    register_quantization_config(NAME)(KernelryConfig)
