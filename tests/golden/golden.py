"""What both fixture scripts share: inputs, expected outputs in float64, and files."""

import json
import os

import torch
from safetensors.torch import save_file

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "golden")


def quantize_tokens(x, kind):
    """x as a model that quantizes activations a token sees it, in float64 (see types.h)."""
    if kind is None:
        return x.double()
    x = x.float()
    top = {"int8": 127.0, "fp8": 448.0}[kind]
    largest = x.abs().amax(dim=1, keepdim=True)
    scale = torch.where(largest > 0, largest / top, torch.ones_like(largest))
    if kind == "int8":
        q = torch.clamp(torch.round(x / scale), -128, 127)
    else:
        q = torch.clamp(x / scale, -448, 448).to(torch.float8_e4m3fn)
    return q.double() * scale.double()


def expect(outputs, layer, weight, bias, dtype, generator, activation=None, m=5):
    """Draw x and add the layer's tensors to the expected outputs.

    weight is [N, K] in float64. All of it fits float32 exactly, so it is kept as that.
    """
    assert weight.dtype == torch.float64
    assert torch.equal(weight.float().double(), weight), layer
    n, k = weight.shape
    x = torch.randn(m, k, generator=generator, dtype=torch.float64)
    x[:, :: max(1, k // 3)] *= 8  # a few large columns, as activations have
    x = x.to(dtype)
    y = quantize_tokens(x, activation) @ weight.T
    if bias is not None:
        y = y + bias.double()
    outputs[layer + ".weight"] = weight.float().contiguous()
    outputs[layer + ".x"] = x.contiguous()
    outputs[layer + ".y"] = y.contiguous()


def save(path, tensors):
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)
    os.chmod(path, 0o644)


def write(case, tensors, outputs, files):
    """Write model.safetensors and its configs, and the expected outputs apart from them."""
    folder = os.path.join(DATA, case)
    os.makedirs(folder, exist_ok=True)
    save(os.path.join(folder, "model.safetensors"), tensors)
    for name, content in files.items():
        with open(os.path.join(folder, name), "w") as file:
            json.dump(content, file, indent=1)
            file.write("\n")
    expected = os.path.join(DATA, "expected")
    os.makedirs(expected, exist_ok=True)
    save(os.path.join(expected, case + ".safetensors"), outputs)


def model_config(dtype):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "torch_dtype": str(dtype).removeprefix("torch.")}
