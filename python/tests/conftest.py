"""What the tests share: weights of every packing, their product in float64, files of both.

Nothing here is of the package: weights are packed and files are written by the tests' own code.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import struct
import subprocess
import sys

import numpy
import pytest

SEED = 2112


def pack(codes: numpy.ndarray, axis: int, bits: int, order: tuple[int, ...] | None = None):
    """Fields of 32-bit words along an axis, the lowest bits first."""
    per_word = 32 // bits
    codes = numpy.moveaxis(codes.astype(numpy.uint32), axis, -1)
    missing = -codes.shape[-1] % per_word
    codes = numpy.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, missing)])
    codes = codes.reshape(*codes.shape[:-1], -1, per_word)
    words = numpy.zeros(codes.shape[:-1], numpy.uint32)
    for place, element in enumerate(order or range(per_word)):
        words |= codes[..., element] << numpy.uint32(bits * place)
    return numpy.ascontiguousarray(numpy.moveaxis(words, -1, axis)).view(numpy.int32)


AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


@dataclasses.dataclass
class Quantized:
    """Codes, scales, zero points of a random layer, and the matrix that they stand for."""

    codes: numpy.ndarray  # [N, K]
    scales: numpy.ndarray  # [N, G]
    zeros: numpy.ndarray | None  # [N, G]
    g_idx: numpy.ndarray  # [K]
    bits: int

    @property
    def matrix(self) -> numpy.ndarray:
        zero = (self.zeros[:, self.g_idx].astype(numpy.float64) if self.zeros is not None
                else 2.0 ** (self.bits - 1))
        return (self.codes - zero) * self.scales.astype(numpy.float64)[:, self.g_idx]

    def compressed_tensors(self) -> dict[str, numpy.ndarray]:
        found = {"weight_packed": pack(self.codes, 1, self.bits), "weight_scale": self.scales}
        if self.zeros is not None:
            found["weight_zero_point"] = pack(self.zeros, 0, self.bits)
        return found

    def gptq(self, version: int = 1) -> dict[str, numpy.ndarray]:
        found = {"qweight": pack(self.codes.T, 0, self.bits),
                 "scales": numpy.ascontiguousarray(self.scales.T)}
        if self.zeros is not None:
            stored = self.zeros.T.astype(numpy.int64)
            if version == 1:
                stored = (stored - 1) % 2**self.bits
            found["qzeros"] = pack(stored, 1, self.bits)
        return found

    def awq(self) -> dict[str, numpy.ndarray]:
        found = {"qweight": pack(self.codes.T, 1, 4, AWQ_ORDER),
                 "scales": numpy.ascontiguousarray(self.scales.T)}
        if self.zeros is not None:
            found["qzeros"] = pack(self.zeros.T, 1, 4, AWQ_ORDER)
        return found


@pytest.fixture
def rng():
    return numpy.random.default_rng(SEED)


@pytest.fixture
def quantized(rng):
    def make(k=96, n=40, group_size=32, bits=4, zeros=False, act_order=False,
             scale_type=numpy.float32) -> Quantized:
        groups = -(-k // group_size) if group_size > 0 else 1
        g_idx = numpy.arange(k) // group_size if group_size > 0 else numpy.zeros(k, int)
        if act_order:
            g_idx = rng.permutation(g_idx)
        scales = (rng.integers(10, 103, (n, groups)) / 1024).astype(scale_type)  # exact in bf16, too
        return Quantized(rng.integers(0, 2**bits, (n, k)), scales,
                         rng.integers(0, 2**bits, (n, groups)) if zeros else None,
                         g_idx.astype(numpy.int32), bits)
    return make


def error_of(y, expected) -> float:
    y = numpy.asarray(y, numpy.float64)
    return float(numpy.linalg.norm(y - expected) / numpy.linalg.norm(expected))


def write_safetensors(path: pathlib.Path, tensors: dict[str, numpy.ndarray]) -> None:
    names = {"float32": "F32", "float16": "F16", "int32": "I32", "int64": "I64", "uint16": "BF16"}
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": names[tensor.dtype.name], "shape": list(tensor.shape),
                        "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(numpy.ascontiguousarray(tensor).tobytes())


def compressed_tensors_config(group_size=32, bits=4, symmetric=True) -> dict:
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, "strategy": "group",
               "group_size": group_size, "dynamic": False, "actorder": None}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized",
            "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights,
                                          "input_activations": None}}}


def write_model(folder: pathlib.Path, tensors: dict[str, numpy.ndarray], quantization: dict,
                dtype: str = "float32") -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama", "torch_dtype": dtype, "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config))
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


@pytest.fixture
def model(tmp_path, quantized, rng):
    """A model folder with two layers, one with a bias, and a dense tensor; and the layers."""
    layers = {"model.layers.0.mlp.up_proj": quantized(96, 40), "model.layers.0.mlp.down_proj":
              quantized(40, 96)}
    tensors = {"model.norm.weight": rng.standard_normal(96).astype(numpy.float32)}
    for name, layer in layers.items():
        for key, value in layer.compressed_tensors().items():
            tensors[f"{name}.{key}"] = value
        shape = [layer.codes.shape[0], layer.codes.shape[1]]
        tensors[f"{name}.weight_shape"] = numpy.array(shape, numpy.int64)
    bias = rng.standard_normal(40).astype(numpy.float32)
    tensors["model.layers.0.mlp.up_proj.bias"] = bias
    folder = write_model(tmp_path / "model", tensors, compressed_tensors_config())
    return folder, layers, bias, tensors


def run_python(source: str, *, timeout: float = 60, **environment: str):
    """A process of its own: how it ended and what it wrote."""
    return subprocess.run([sys.executable, "-c", source], capture_output=True, text=True,
                          timeout=timeout, env={**os.environ, **environment}, check=False)
