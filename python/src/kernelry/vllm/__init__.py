"""Kernelry inside vLLM, as a plugin that vLLM finds by itself (`vllm.general_plugins`).

`KERNELRY_VLLM_POSITION` places the kernel in vLLM's list for the platform: `last` (the default:
what vLLM's own kernels refuse), `first`, or `before:NAME`, such as `before:CPUWNA16LinearKernel`.
`--quantization kernelry` loads a checkpoint with Kernelry's own method, which also takes shards
that start inside a quantization group. docs/vllm.md has the rest.
"""

from __future__ import annotations


def register() -> None:
    """The entry point. vLLM calls it in each of its processes, perhaps more than once."""
    from ._method import register_method
    from ._place import register_kernel

    register_kernel()
    register_method()
