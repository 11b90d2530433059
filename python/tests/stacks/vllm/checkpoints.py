"""Small checkpoints with random weights, as the quantizers of this world write them.

Dense ones are quantized to compressed-tensors by `kernelry quantize`, to GPTQ and AWQ here. Each
comes with the dense checkpoint that it stands for.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys

import numpy
from conftest import AWQ_ORDER, Quantized, compressed_tensors_config
from safetensors.numpy import load_file, save_file

VOCABULARY = 128


@dataclasses.dataclass(frozen=True)
class Model:
    """The shape of a decoder of two layers."""

    intermediate: int = 512
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 64
    family: str = "llama"  # or gemma: norms of 1 + w, GELU, tied embeddings

    def config(self) -> dict:
        gemma = self.family == "gemma"
        return {
            "architectures": ["GemmaForCausalLM" if gemma else "LlamaForCausalLM"],
            "model_type": self.family,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": 2,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_size,
            "hidden_act": "gelu_pytorch_tanh" if gemma else "silu",
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "vocab_size": VOCABULARY,
            "tie_word_embeddings": gemma,
            "bos_token_id": 0,
            "eos_token_id": VOCABULARY - 1,
            "torch_dtype": "float16",
        }

    def linears(self) -> dict[str, tuple[int, int]]:
        """Names within a layer, as (out_features, in_features)."""
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        return {
            "self_attn.q_proj": (q, self.hidden),
            "self_attn.k_proj": (kv, self.hidden),
            "self_attn.v_proj": (kv, self.hidden),
            "self_attn.o_proj": (self.hidden, q),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }


def write_tokenizer(folder: pathlib.Path) -> None:
    """A word for each token: "w7" is token 7."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w1"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "w0",
        "eos_token": f"w{VOCABULARY - 1}", "unk_token": "w1"}))


def write_dense(model: Model, folder: pathlib.Path, seed: int = 6) -> pathlib.Path:
    """Weights of variance 1/K, so that neither layer outweighs the other."""
    random = numpy.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> numpy.ndarray:
        return (random.standard_normal(shape, dtype=numpy.float32) * scale).astype(numpy.float16)

    center = 0.0 if model.family == "gemma" else 1.0
    norm = lambda: normal(model.hidden, scale=0.1) + numpy.float16(center)  # noqa: E731
    # Embeddings that are the head, too, would have each token followed by itself: they are small
    # beside what the layers add, and the last norm makes up for it in the logits.
    gemma = model.family == "gemma"
    tensors = {"model.embed_tokens.weight": normal(VOCABULARY, model.hidden,
                                                   scale=0.003 if gemma else 0.5),
               "model.norm.weight": norm() + numpy.float16(40 if gemma else 0)}
    if not gemma:
        tensors["lm_head.weight"] = normal(VOCABULARY, model.hidden, scale=model.hidden ** -0.5)
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        tensors[prefix + "input_layernorm.weight"] = norm()
        tensors[prefix + "post_attention_layernorm.weight"] = norm()
        for name, (rows, columns) in model.linears().items():
            tensors[f"{prefix}{name}.weight"] = normal(rows, columns, scale=columns ** -0.5)
    return _write(folder, model.config(), tensors)


def write_compressed_tensors(dense: pathlib.Path, folder: pathlib.Path,
                             *options: str) -> pathlib.Path:
    """By the command that comes with the package."""
    command = pathlib.Path(sys.executable).with_name("kernelry")
    subprocess.run([command, "quantize", dense, folder, *options], check=True,
                   stdout=subprocess.DEVNULL)
    return folder


def round_to_nearest(weight: numpy.ndarray, group_size: int, zero_points: bool) -> Quantized:
    """Four bits; a last group may be short."""
    weight = weight.astype(numpy.float32)
    rows, columns = weight.shape
    groups = -(-columns // group_size)
    padded = numpy.pad(weight, ((0, 0), (0, groups * group_size - columns)))
    grouped = padded.reshape(rows, groups, group_size)
    if zero_points:
        low, high = grouped.min(-1).clip(max=0), grouped.max(-1).clip(min=0)
        scales = ((high - low) / 15).astype(numpy.float16)
        zeros = numpy.rint(-low / scales.astype(numpy.float32)).clip(0, 15)
    else:
        scales = (numpy.abs(grouped).max(-1) / 7).astype(numpy.float16)
        zeros = numpy.full((rows, groups), 8.0, numpy.float32)
    codes = numpy.rint(grouped / scales.astype(numpy.float32)[..., None]) + zeros[..., None]
    codes = codes.clip(0, 15).reshape(rows, -1)[:, :columns]
    return Quantized(codes.astype(numpy.uint8), scales, zeros.astype(numpy.uint8),
                     numpy.arange(columns) // group_size, bits=4)


def write_ordered(dense: pathlib.Path, folder: pathlib.Path, group_size: int, actorder: str,
                  zero_points: bool) -> pathlib.Path:
    """A dense checkpoint as compressed-tensors with activation order. Of "group", groups are columns
    anywhere, as weight_g_idx tells, alike for layers of one input; "static" changes nothing."""
    tensors, orders = {}, {}
    random = numpy.random.default_rng(7)
    for name, weight in load_file(str(dense / "model.safetensors")).items():
        module = name.removesuffix(".weight")
        if not module.endswith("_proj"):
            tensors[name] = weight
            continue
        columns = weight.shape[1]
        block, last = module.rsplit(".", 1)
        shared = (block, last if last in ("o_proj", "down_proj") else "")
        order = orders.setdefault(shared, random.permutation(columns) if actorder == "group" else
                                  numpy.arange(columns))
        layer = round_to_nearest(weight[:, order], group_size, zero_points)
        back = numpy.argsort(order)
        layer = dataclasses.replace(layer, codes=layer.codes[:, back], g_idx=layer.g_idx[back],
                                    zeros=layer.zeros if zero_points else None)
        parts = {**layer.compressed_tensors(), "weight_shape": numpy.array(weight.shape)}
        if actorder == "group":
            parts["weight_g_idx"] = layer.g_idx.astype(numpy.int32)
        tensors |= {f"{module}.{part}": tensor for part, tensor in parts.items()}
    quantization = compressed_tensors_config(group_size, symmetric=not zero_points)
    quantization["config_groups"]["group_0"]["weights"]["actorder"] = actorder
    config = json.loads((dense / "config.json").read_text())
    return _write(folder, {**config, "quantization_config": quantization}, tensors)


def _stored(layer: Quantized, method: str) -> dict[str, numpy.ndarray]:
    if method == "awq":
        return layer.awq()
    return {**layer.gptq(), "g_idx": layer.g_idx.astype(numpy.int32)}


def write_packed(dense: pathlib.Path, folder: pathlib.Path, method: str,
                 group_size: int) -> pathlib.Path:
    """A dense checkpoint as GPTQ ("gptq", symmetric) or AWQ ("awq", with zero points)."""
    tensors = {}
    for name, weight in load_file(str(dense / "model.safetensors")).items():
        if "_proj.weight" not in name:
            tensors[name] = weight
            continue
        layer = round_to_nearest(weight, group_size, zero_points=method == "awq")
        for part, tensor in _stored(layer, method).items():
            tensors[f"{name.removesuffix('.weight')}.{part}"] = tensor
    quantization = {"quant_method": method, "bits": 4, "group_size": group_size}
    quantization |= ({"desc_act": False, "sym": True} if method == "gptq" else
                     {"version": "gemm", "zero_point": True, "modules_to_not_convert": ["lm_head"]})
    config = json.loads((dense / "config.json").read_text())
    return _write(folder, {**config, "quantization_config": quantization}, tensors)


def _write(folder: pathlib.Path, config: dict, tensors: dict[str, numpy.ndarray]) -> pathlib.Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    # safetensors writes a transposed array's memory as it lies.
    dense = {name: numpy.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(dense, str(folder / "model.safetensors"), metadata={"format": "pt"})
    write_tokenizer(folder)
    return folder


def _unpack(words: numpy.ndarray, axis: int, size: int,
            order: tuple[int, ...] = tuple(range(8))) -> numpy.ndarray:
    words = numpy.moveaxis(words.view(numpy.uint32), axis, -1)
    codes = numpy.zeros((*words.shape, 8))
    for field, element in enumerate(order):
        codes[..., element] = words >> numpy.uint32(4 * field) & 15
    return numpy.moveaxis(codes.reshape(*words.shape[:-1], -1)[..., :size], -1, axis)


def _matrix(parts: dict[str, numpy.ndarray], group_size: int) -> numpy.ndarray:
    """What a layer's stored tensors stand for, [N, K]."""
    if "weight_packed" in parts:
        scales, (n, k) = parts["weight_scale"], parts["weight_shape"]
        codes, zeros = _unpack(parts["weight_packed"], 1, k), 8.0
        if "weight_zero_point" in parts:
            zeros = _unpack(parts["weight_zero_point"], 0, n)
    elif "g_idx" in parts:  # GPTQ, symmetric
        scales = parts["scales"].T
        codes, zeros = _unpack(parts["qweight"], 0, len(parts["g_idx"])).T, 8.0
    else:
        scales, k = parts["scales"].T, parts["qweight"].shape[0]
        codes = _unpack(parts["qweight"], 1, scales.shape[0], AWQ_ORDER).T
        zeros = _unpack(parts["qzeros"], 1, scales.shape[0], AWQ_ORDER).T
    groups = parts.get("weight_g_idx", numpy.arange(codes.shape[1]) // group_size)
    zeros = zeros if isinstance(zeros, float) else zeros[:, groups]
    return ((codes - zeros) * scales.astype(numpy.float64)[:, groups]).astype(numpy.float32)


def write_dequantized(folder: pathlib.Path, out: pathlib.Path, group_size: int) -> pathlib.Path:
    """The dense checkpoint in float32 that a quantized one stands for, exactly."""
    layers: dict[str, dict[str, numpy.ndarray]] = {}
    tensors = {}
    for name, tensor in load_file(str(folder / "model.safetensors")).items():
        module, _, part = name.rpartition(".")
        if module.endswith("_proj"):
            layers.setdefault(module, {})[part] = tensor
        else:
            tensors[name] = tensor.astype(numpy.float32)
    for module, parts in layers.items():
        tensors[f"{module}.weight"] = _matrix(parts, group_size)
    config = json.loads((folder / "config.json").read_text())
    config.pop("quantization_config")
    return _write(out, {**config, "torch_dtype": "float32"}, tensors)
