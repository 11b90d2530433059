#!/usr/bin/env python3
"""Make the compressed-tensors fixtures with the library itself.

Which cases are made depends on the version of compressed_tensors that is imported: the
current one, 0.11.0 (the last lines to know actorder "group", which stores weight_g_idx) and
0.8.1 (which stores zero points unpacked). See requirements.txt.

The library quantizes, packs and writes the config. What is expected comes from the library's
own decompression, given the scales in float64, so that W is exact; the product is torch's.
"""

import json
import os

import torch
import compressed_tensors
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

import golden

VERSION = compressed_tensors.__version__
CURRENT = "0.20.0"


# ---- a model whose module names look like a real one's ---------------------------------


def build(shapes, dtype, generator):
    """A tree of Linear layers, {name: (N, K, bias)}, with weights of differing ranges."""
    root = torch.nn.Module()
    for name, (n, k, bias) in shapes.items():
        *path, leaf = name.split(".")
        parent = root
        for part in path:
            if not hasattr(parent, part):
                parent.add_module(part, torch.nn.Module())
            parent = getattr(parent, part)
        linear = torch.nn.Linear(k, n, bias=bias, dtype=dtype)
        weight = torch.randn(n, k, generator=generator) * 0.05
        weight += torch.randn(n, 1, generator=generator) * 0.05  # rows off centre: zero points vary
        weight[0] = weight[0].abs() + 0.01  # a zero point at one end
        weight[-1] = -weight[-1].abs() - 0.01  # and at the other
        linear.weight.data = weight.to(dtype)
        if bias:
            linear.bias.data = torch.randn(n, generator=generator).to(dtype)
        parent.add_module(leaf, linear)
    return root


def groups_of(k, size, arguments, generator):
    """Each column's group; a real act-order's is any assignment that fills every group."""
    index = torch.arange(k) // size
    if arguments.actorder in ("group", "dynamic"):
        index = index[torch.randperm(k, generator=generator)]
    return index.to(torch.int32)


def calibrate(linear, generator):
    """Set scales and zero points by min and max of each group."""
    arguments = linear.quantization_scheme.weights
    weight = linear.weight.data.float()
    n, k = weight.shape
    size = arguments.group_size if arguments.strategy == "group" else k
    index = groups_of(k, size, arguments, generator)
    count = int(index.max()) + 1
    low = torch.stack([weight[:, index == g].amin(1) for g in range(count)], 1).clamp(max=0)
    high = torch.stack([weight[:, index == g].amax(1) for g in range(count)], 1).clamp(min=0)
    top = 2**arguments.num_bits - 1
    if arguments.symmetric:
        scale = torch.maximum(-low, high) / (top / 2)
        zero = torch.zeros_like(scale)
    else:
        scale = (high - low) / top
        zero = torch.round(-(top + 1) // 2 - low / scale).clamp(-(top + 1) // 2, top // 2)
    linear.weight_scale.data = scale.to(linear.weight.dtype)
    if hasattr(linear, "weight_zero_point"):
        linear.weight_zero_point.data = zero.to(torch.int8)
    if hasattr(linear, "weight_g_idx"):
        linear.weight_g_idx.data = index.to(linear.weight_g_idx.dtype)


# ---- through the library ---------------------------------------------------------------


def compress(model, config):
    """Pack with the library; returns the state dict as it would be saved."""
    compressor = ModelCompressor.from_pretrained_model(
        model, **({"quantization_format": config["format"]}))
    if hasattr(compressor, "compress_model"):
        compressor.compress_model(model)
        return compressor, model.state_dict()
    return compressor, compressor.compress(model)


def decompress(state, scheme):
    """The library's own dequantization of one layer's tensors, in float64."""
    state = {name: t.double() if name == "weight_scale" else t for name, t in state.items()}
    if VERSION == CURRENT:
        from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
        return PackedQuantizationCompressor.decompress(state, scheme)["weight"]
    # 0.11.0 leaves packed zero points to others, so its parts are called one by one.
    from compressed_tensors.compressors.quantized_compressors import pack_quantized
    from compressed_tensors.quantization.lifecycle.forward import dequantize
    shape, bits, zero = state["weight_shape"], scheme.weights.num_bits, None
    if not scheme.weights.symmetric:
        zero = state["weight_zero_point"]
        if zero.dtype == torch.int32:
            zero = pack_quantized.unpack_from_int32(
                zero, bits, torch.Size((shape[0], state["weight_scale"].shape[1])), packed_dim=0)
    codes = pack_quantized.unpack_from_int32(state["weight_packed"], bits, torch.Size(shape))
    return dequantize(codes, state["weight_scale"], zero, g_idx=state.get("weight_g_idx"))


def make(case, config, shapes, dtype, seed, activation=None):
    """One checkpoint: config is a quantization config, shapes {layer: (N, K, bias)}."""
    generator = torch.Generator().manual_seed(seed)
    model = build(shapes, dtype, generator)
    apply_quantization_config(model, QuantizationConfig.model_validate(config))
    layers = {name: module for name, module in model.named_modules()
              if getattr(module, "quantization_scheme", None) is not None}
    for linear in layers.values():
        calibrate(linear, generator)
    schemes = {name: linear.quantization_scheme for name, linear in layers.items()}
    compressor, state = compress(model, config)

    folder = os.path.join(golden.DATA, case)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as file:
        json.dump(golden.model_config(dtype), file)
    compressor.update_config(folder)
    with open(os.path.join(folder, "config.json")) as file:
        written = json.load(file)
    # The library spells out what was ignored; people write patterns, and those are to be read.
    written["quantization_config"]["ignore"] = config["ignore"]

    outputs = {}
    for name, scheme in schemes.items():
        own = {key.removeprefix(name + "."): t for key, t in state.items()
               if key.startswith(name + ".")}
        golden.expect(outputs, name, decompress(own, scheme), own.get("bias"), dtype, generator,
                      activation)
    golden.write(case, state, outputs, {"config.json": written})
    print(case, *sorted(schemes))


# ---- the cases -------------------------------------------------------------------------


def weights(bits=4, symmetric=True, group=None, actorder=None):
    out = {"num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False,
           "strategy": "group" if group else "channel"}
    if group:
        out["group_size"] = group
    if actorder:
        out["actorder"] = actorder
    return out


def config_of(groups, ignore=()):
    """groups: [(targets, weights, input_activations)]."""
    return {"quant_method": "compressed-tensors", "format": "pack-quantized",
            "ignore": list(ignore),
            "config_groups": {
                f"group_{i}": {"targets": targets, "weights": w, "input_activations": a}
                for i, (targets, w, a) in enumerate(groups)}}


LAYER = "model.layers.0."
TOKEN = {"num_bits": 8, "symmetric": True, "strategy": "token", "dynamic": True}


def current_cases():
    make("ct-w4-group", config_of([(["Linear"], weights(group=32), None)]),
         {LAYER + "self_attn.q_proj": (24, 96, True), LAYER + "mlp.down_proj": (19, 64, False)},
         torch.bfloat16, 1)
    make("ct-w4-group-asym", config_of([(["Linear"], weights(symmetric=False, group=32), None)]),
         {LAYER + "self_attn.q_proj": (24, 96, False), LAYER + "mlp.down_proj": (21, 64, True)},
         torch.float16, 2)
    make("ct-w4-channel", config_of([(["Linear"], weights(), None)]),
         {LAYER + "mlp.up_proj": (16, 64, False), LAYER + "mlp.down_proj": (13, 93, True)},
         torch.float16, 3)
    make("ct-channel-asym", config_of([
        (["re:.*up_proj$"], weights(symmetric=False), None),
        (["re:.*down_proj$"], weights(bits=8, symmetric=False), None)]),
         {LAYER + "mlp.up_proj": (11, 61, False), LAYER + "mlp.down_proj": (9, 75, True)},
         torch.bfloat16, 4)
    make("ct-w8", config_of([(["Linear"], weights(bits=8, group=20), None)]),
         {LAYER + "mlp.up_proj": (18, 60, False), LAYER + "mlp.down_proj": (14, 100, False)},
         torch.bfloat16, 5)
    make("ct-mixed", config_of([
        (["re:.*self_attn.*", LAYER + "mlp.gate_proj"], weights(bits=8, group=16), None),
        (["re:model.layers.1.mlp"], weights(group=12, symmetric=False), None),
        (["Linear"], weights(group=24), None)],
        ["lm_head", "re:.*router$", LAYER + "mlp.ignored_proj"]),
         {LAYER + "self_attn.q_proj": (12, 48, True), LAYER + "mlp.gate_proj": (10, 48, False),
          LAYER + "mlp.down_proj": (9, 72, False), LAYER + "mlp.ignored_proj": (6, 24, False),
          "model.layers.1.mlp.down_proj": (17, 60, False), "vision.model.layers.1.mlp.up_proj": (8, 48, False),
          "model.layers.1.router": (4, 24, False), "lm_head": (8, 24, False)},
         torch.float16, 6)
    make("ct-w4a8-int8", config_of([(["Linear"], weights(group=32), {**TOKEN, "type": "int"})]),
         {LAYER + "mlp.down_proj": (20, 96, True)}, torch.bfloat16, 7, "int8")
    make("ct-w4a8-fp8", config_of([(["Linear"], weights(group=32), {**TOKEN, "type": "float"})]),
         {LAYER + "mlp.down_proj": (20, 96, False)}, torch.bfloat16, 8, "fp8")
    ragged_case()


def ragged_case():
    """K that its groups do not divide: the library quantizes no such layer, so codes, scales
    and zero points are drawn, and only the packing is the library's."""
    from compressed_tensors.compressors.pack_quantized import pack_to_int32
    generator = torch.Generator().manual_seed(13)
    config = config_of([(["re:.*up_proj"], weights(symmetric=False, group=16), None),
                        (["Linear"], weights(group=32), None)])
    tensors, outputs = {}, {}
    for name, n, k, size, asymmetric in ((LAYER + "mlp.up_proj", 10, 53, 16, True),
                                         (LAYER + "mlp.down_proj", 11, 20, 32, False)):
        count = -(-k // size)
        q = torch.randint(-8, 8, (n, k), generator=generator, dtype=torch.int8)
        zero = torch.zeros(n, count, dtype=torch.int8)
        scale = (torch.rand(n, count, generator=generator) * 0.01 + 0.001).to(torch.float16)
        if asymmetric:
            zero = torch.randint(-8, 8, (n, count), generator=generator, dtype=torch.int8)
            tensors[name + ".weight_zero_point"] = pack_to_int32(zero, 4, packed_dim=0)
        tensors[name + ".weight_packed"] = pack_to_int32(q, 4)
        tensors[name + ".weight_scale"] = scale
        tensors[name + ".weight_shape"] = torch.tensor([n, k])
        group = torch.arange(k) // size
        weight = (q.double() - zero.double()[:, group]) * scale.double()[:, group]
        golden.expect(outputs, name, weight, None, torch.float16, generator)
    golden.write("ct-ragged", tensors, outputs, {
        "config.json": {**golden.model_config(torch.float16), "quantization_config": config}})
    print("ct-ragged")


def actorder_cases():
    make("ct-actorder", config_of([(["Linear"], weights(group=16, actorder="group"), None)]),
         {LAYER + "mlp.up_proj": (10, 64, False), LAYER + "mlp.down_proj": (15, 80, True)},
         torch.bfloat16, 9)
    make("ct-actorder-asym", config_of([
        (["re:.*up_proj"], weights(symmetric=False, group=16, actorder="group"), None),
        (["Linear"], weights(bits=8, symmetric=False, group=32, actorder="weight"), None)]),
         {LAYER + "mlp.up_proj": (11, 64, False), LAYER + "mlp.down_proj": (9, 96, False)},
         torch.float16, 10)


def old_cases():
    make("ct-unpacked-zeros", config_of([
        (["re:.*up_proj"], weights(symmetric=False, group=32), None),
        (["Linear"], weights(bits=8, symmetric=False), None)]),
         {LAYER + "mlp.up_proj": (11, 64, False), LAYER + "mlp.down_proj": (10, 45, True)},
         torch.bfloat16, 12)


if __name__ == "__main__":
    {CURRENT: current_cases, "0.11.0": actorder_cases, "0.8.1": old_cases}[VERSION]()
