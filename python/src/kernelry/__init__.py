"""Kernelry: quantized linear layers from plugins.

    import kernelry

    model = kernelry.Checkpoint("model-w4")
    stored = model.weights("model.layers.0.mlp.down_proj")
    print(kernelry.explain(stored.linear))
    layer = kernelry.Layer(stored.linear, stored)
    y = layer(x)

`kernelry.torch` has the same for PyTorch.
"""

from __future__ import annotations

from ._arrays import Array
from ._cache import prepare
from ._checkpoint import Checkpoint, StoredLayer, StoredWeights, Tensor
from ._command import Check, CheckRow, check
from ._decision import Candidate, Decision, Refusal
from ._errors import (ArgumentError, Error, FileError, NoKernelError, NotFoundError,
                      OutOfMemoryError, Status)
from ._layer import Layer, Sizes, Workspace
from ._library import version
from ._linear import Linear
from ._registry import Device, Kernel, Plugin, PluginPlatform, Registry, default_registry
from ._weights import View, Weights

__version__ = version()

__all__ = [
    "ArgumentError", "Array", "Candidate", "Check", "CheckRow", "Checkpoint", "Decision", "Device",
    "Error", "FileError", "Kernel", "Layer", "Linear", "NoKernelError", "NotFoundError",
    "OutOfMemoryError", "Plugin", "PluginPlatform", "Refusal", "Registry", "Sizes", "Status",
    "StoredLayer", "StoredWeights", "Tensor", "View", "Weights", "Workspace", "__version__",
    "check", "default_registry", "devices", "explain", "prepare",
]


def explain(linear: Linear, device: str | Device = "cpu",
            registry: Registry | None = None) -> Decision:
    """Which kernel runs a description, and why every other one does not."""
    return (registry or default_registry()).decide(linear, device)


def devices(registry: Registry | None = None) -> tuple[Device, ...]:
    """Devices that are here: this CPU first."""
    return (registry or default_registry()).devices()
