"""The kernel that vLLM asks and holds: an MPLinearKernel in front of a Kernelry layer."""

from __future__ import annotations

import dataclasses
import functools
import os
import weakref
from typing import Any

import torch
from vllm.logger import init_logger
from vllm.model_executor.kernels.linear import MPLinearKernel, MPLinearLayerConfig
from vllm.platforms import current_platform
from vllm.scalar_type import scalar_types

import kernelry
from kernelry._arrays import array
from kernelry.torch import Bound, _device_name

logger = init_logger("vllm.kernelry")

TYPES = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}
INT8_VARIABLE = "KERNELRY_VLLM_INT8"
# (type, whether there are zero points): how Kernelry calls it.
WEIGHT_TYPES = {
    (scalar_types.uint4b8, False): "u4b8",
    (scalar_types.uint8b128, False): "u8b128",
    (scalar_types.uint4, True): "u4",
    (scalar_types.uint8, True): "u8",
}


@dataclasses.dataclass
class ShardConfig(MPLinearLayerConfig):
    """vLLM's description, and what it lacks: where in the full layer's K the partition starts,
    and whether g_idx orders the groups."""

    k_offset: int = 0
    act_order: bool = False


_held: weakref.WeakValueDictionary[str, KernelryLinearKernel] = weakref.WeakValueDictionary()


def layers_held() -> list[str]:
    """Names of the layers that Kernelry runs in this process."""
    return sorted(_held)


@functools.cache
def registry() -> kernelry.Registry:
    """The process's registry; what it has to say goes to vLLM's log."""
    levels = {"error": logger.error, "warning": logger.warning, "info": logger.info}
    return kernelry.Registry(
        log=lambda level, message: levels.get(level, logger.debug)("Kernelry: %s", message))


def current_device() -> torch.device:
    if current_platform.is_cpu():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())


def describe(c: MPLinearLayerConfig, scale_type: torch.dtype | None = None) -> kernelry.Linear:
    """vLLM's description in Kernelry's words. Raises ArgumentError where it has none."""
    weight_type = WEIGHT_TYPES.get((c.weight_type, c.zero_points))
    if weight_type is None:
        raise kernelry.ArgumentError(
            f"weight type {c.weight_type} {'with' if c.zero_points else 'without'} zero points is "
            f"not known here, expected one of {', '.join(WEIGHT_TYPES.values())}")
    if c.act_type not in TYPES or c.out_type not in (None, c.act_type):
        raise kernelry.ArgumentError(
            f"activations of {c.act_type} and outputs of {c.out_type or c.act_type} are not known "
            f"here, expected one type of {', '.join(map(str, TYPES))}")
    k, n = c.partition_weight_shape
    return kernelry.Linear(
        in_features=k, out_features=n, full_in_features=c.full_weight_shape[0],
        full_out_features=c.full_weight_shape[1], k_offset=getattr(c, "k_offset", 0),
        group_size=c.group_size, weight_type=weight_type, x_type=TYPES[c.act_type],
        scale_type=TYPES.get(scale_type or c.act_type),
        act_order=getattr(c, "act_order", False),
        allow_int8_activations=os.environ.get(INT8_VARIABLE, "0") == "1")


@functools.cache
def _decide(linear: kernelry.Linear, device: str) -> kernelry.Decision:
    """Decisions depend on the description alone, and vLLM asks for each layer."""
    decision = registry().decide(linear, device)
    if decision.chosen is None:
        refusals = "; ".join(f"{c.kernel}: {c.reason}" for c in decision.refusals)
        logger.warning("Kernelry has no kernel for %s on %s, so vLLM asks its next one: %s", linear,
                       device, refusals or registry().why_empty() or "no plugin serves it")
    return decision


class KernelryLinearKernel(MPLinearKernel):
    """Whatever Kernelry's plugins can run, on a CPU, CUDA and ROCm."""

    @classmethod
    def get_min_capability(cls) -> int:
        return 75  # of CUDA; the registry decides on the device itself

    @classmethod
    def can_implement(cls, c: MPLinearLayerConfig) -> tuple[bool, str | None]:
        try:
            decision = _decide(describe(c), _device_name(current_device()))
        except kernelry.Error as error:
            return False, str(error)
        if decision.chosen is None:
            reasons = "; ".join(f"{r.kernel}: {r.reason}" for r in decision.refusals)
            return False, f"no kernel of Kernelry's accepts: {reasons or registry().why_empty()}"
        return True, None

    def process_weights_after_loading(self, layer: torch.nn.Module) -> None:
        """Prepare the weights and drop the loaded ones; on a reload, in the same place."""
        scales = getattr(layer, self.w_s_name)
        weights = self._weights(layer)
        if not hasattr(self, "bound"):
            linear = describe(self.config, scales.dtype)
            self.bound = Bound(linear, weights, device=scales.device, registry=registry())
            # vLLM counts, keeps and discards what its modules hold.
            layer.register_buffer("kernelry_prepared", self.bound.prepared, persistent=False)
            _held[str(getattr(layer, "prefix", id(layer)))] = self
            self._log(layer)
        else:
            self.bound.prepare(weights)
        for name in (self.w_q_name, self.w_s_name, self.w_zp_name, "weight_g_idx", "g_idx"):
            parameter = getattr(layer, name or "", None)
            if parameter is not None:
                parameter.data = torch.empty(0, dtype=parameter.dtype, device=parameter.device)

    def apply_weights(self, layer: torch.nn.Module, x: torch.Tensor,
                      bias: torch.Tensor | None = None) -> torch.Tensor:
        if bias is not None and bias.dtype != x.dtype:
            bias = bias.to(x.dtype)
        return torch.ops.kernelry.linear(x, layer.kernelry_prepared, bias, self.bound.out_features)

    def _weights(self, layer: torch.nn.Module) -> kernelry.Weights:
        """The parameters as vLLM's methods load them: its attributes tell the axes."""
        stored, scales, zeros = self._get_weight_params(layer)
        bits = self.config.weight_type.size_bits
        return kernelry.Weights(
            qweight=kernelry.View(
                array(stored.data, self.w_q_name), n_first=stored.output_dim == 0,
                element_bits=bits, pack_axis="n" if _packed_along_n(stored) else "k",
                order=getattr(stored, "kernelry_order", "sequential"),
                j_begin=getattr(stored, "kernelry_begin", 0)),
            scales=kernelry.View(array(scales.data, self.w_s_name), scales.output_dim == 0),
            zero_points=self._zero_points(zeros, bits) if self.config.zero_points else None,
            g_idx=self._g_idx(layer))

    def _zero_points(self, zeros: Any, bits: int) -> kernelry.View:
        name = self.w_zp_name or ""
        if zeros is None:
            raise kernelry.ArgumentError(f"{name} is missing: {self.config.weight_type} has zero "
                                         "points")
        tensor = array(zeros.data, name)
        if tensor.dtype == "uint8":  # unpacked when it was loaded
            return kernelry.View(tensor, zeros.output_dim == 0)
        return kernelry.View(tensor, zeros.output_dim == 0, element_bits=bits,
                             pack_axis="n" if _packed_along_n(zeros) else "k")

    def _g_idx(self, layer: torch.nn.Module) -> Any:
        if not getattr(self.config, "act_order", False):
            return None
        name = "g_idx" if hasattr(layer, "g_idx") else "weight_g_idx"
        return array(getattr(layer, name).data, name)

    def _log(self, layer: torch.nn.Module) -> None:
        """One line for each layer: its kernel and, where others rank before it, why not they."""
        bound = self.bound.layer
        decision = _decide(bound.linear, _device_name(self.bound.device))
        before = []
        for candidate in decision.candidates:
            if candidate.verdict == "chosen":
                break
            before.append(f"not {candidate.kernel}: {candidate.reason}")
        logger.info("Kernelry: %s (%s) runs on %s/%s%s%s", getattr(layer, "prefix", "a layer"),
                    bound.linear, bound.kernel.plugin, bound.kernel.name,
                    ", the fallback: a slow path" if bound.kernel.fallback else "",
                    f" ({'; '.join(before)})" if before else "")


def _packed_along_n(parameter: Any) -> bool:
    return parameter.packed_dim == parameter.output_dim
