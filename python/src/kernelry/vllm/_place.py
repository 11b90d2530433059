"""Where Kernelry stands among vLLM's kernels."""

from __future__ import annotations

import importlib.metadata
import os
from typing import Any

from vllm import envs
from vllm.logger import init_logger
from vllm.model_executor.kernels import linear as kernels
from vllm.platforms import PlatformEnum

from ._kernel import KernelryLinearKernel, layers_held

logger = init_logger("vllm.kernelry")

VARIABLE = "KERNELRY_VLLM_POSITION"
PLATFORMS = (PlatformEnum.CPU, PlatformEnum.CUDA, PlatformEnum.ROCM)


def place(kernel_list: list[Any], kernel: Any, position: str) -> bool:
    """Put a kernel in a list, once: `first`, `last` or `before:NAME`. False: NAME is not there,
    the kernel stands last."""
    if kernel in kernel_list:
        kernel_list.remove(kernel)
    word, _, name = position.partition(":")
    if position == "first":
        kernel_list.insert(0, kernel)
        return True
    if word == "before" and name:
        names = [other.__name__ for other in kernel_list]
        kernel_list.insert(names.index(name) if name in names else len(names), kernel)
        return name in names
    if position == "last":
        kernel_list.append(kernel)
        return True
    raise ValueError(f"{VARIABLE}={position!r}: expected first, last or before:NAME, NAME being "
                     "a class in vLLM's list such as CPUWNA16LinearKernel")


def _compile_factor() -> str:
    """What compiled graphs depend on: whose operator runs which layer. vLLM keeps graphs on disk
    and finds them by the variables that it knows, so without this a model would be given the graph
    of another kernel's tensors once the position changes."""
    version = importlib.metadata.version("kernelry")
    return f"{version} {os.environ.get(VARIABLE, '')} {' '.join(layers_held())}"


def register_kernel() -> None:
    """Take a place in the list of each platform that Kernelry serves."""
    position = os.environ.get(VARIABLE) or "last"
    envs.environment_variables[VARIABLE] = _compile_factor
    missing = []
    for platform in PLATFORMS:
        # register_linear_kernel() only appends, and again with each call.
        if not place(kernels._POSSIBLE_KERNELS.setdefault(platform, []), KernelryLinearKernel,
                     position):
            missing.append(platform.name)
    if len(missing) == len(PLATFORMS):
        raise ValueError(f"{VARIABLE}={position!r} names no kernel of vLLM's")
    # What --linear-backend calls a family of kernels; its choices are vLLM's own, so this serves
    # a vLLM that takes any word.
    kernels._LINEAR_BACKEND_KERNEL_MAP.setdefault("kernelry", set()).add(KernelryLinearKernel)
    logger.debug("Kernelry is registered %s", position)
