#!/usr/bin/env python3
"""Make the GPTQ and AWQ fixtures from what is known of their formats.

Codes, scales and zero points are drawn, so what is expected is known before anything is
packed: W[n][k] = (q[n][k] - z[n][g(k)]) * s[n][g(k)]. The packing is written out element by
element, in integers of Python's own, apart from any C.
"""

import json
import os

import numpy
import torch

import golden

LAYER = "model.layers.0."
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def word_of(fields, bits):
    """Fields, lowest first, as one number of 32 bits."""
    return sum(int(f) << (bits * i) for i, f in enumerate(fields)) % 2**32


def int32(words):
    return torch.from_numpy(numpy.array(words, dtype=numpy.uint32).astype(numpy.int32))


def pack_rows(matrix, bits, adjust=lambda word: word):
    """[R, C] along C: [R, C * bits / 32]."""
    per_word = 32 // bits
    return int32([[adjust(word_of(row[c:c + per_word], bits))
                   for c in range(0, len(row), per_word)] for row in matrix.tolist()])


def pack_rows_awq(matrix):
    return int32([[word_of([row[c + e] for e in AWQ_ORDER], 4) for c in range(0, len(row), 8)]
                  for row in matrix.tolist()])


def draw(generator, n, k, bits, groups, dtype, fixed_zero):
    """Codes [N, K], scales [N, G] of dtype, zero points [N, G]."""
    q = torch.randint(0, 2**bits, (n, k), generator=generator)
    s = (torch.rand(n, groups, generator=generator) * 0.02 + 0.001).to(dtype)
    z = torch.randint(0, 2**bits, (n, groups), generator=generator)
    z[torch.rand(n, groups, generator=generator) < 0.2] = 0
    z[::7] = 2**bits - 1
    if fixed_zero:
        z[:] = 2 ** (bits - 1)
    return q, s, z


def stored_zeros(z, bits, writer):
    """qzeros [G, N words] of zero points [N, G] as a writer stores them."""
    ones = word_of([1] * (32 // bits), bits)
    if writer == "v2":
        return pack_rows(z.T, bits)
    if writer == "word":  # one subtraction from the word: a zero borrows from the next field
        return pack_rows(z.T, bits, lambda word: (word - ones) % 2**32)
    return pack_rows((z.T - 1) % 2**bits, bits)


def gptq_layer(out, name, n, k, bits, size, writer, generator, dtype=torch.float16, sym=False,
               desc_act=False, bias=False):
    """Add one layer's tensors to out["tensors"] and out["outputs"]."""
    size = k if size == -1 else size
    groups = -(-k // size)
    group = torch.arange(k) // size
    if desc_act:
        group = group[torch.randperm(k, generator=generator)]
    q, s, z = draw(generator, n, k, bits, groups, dtype, sym)
    b = torch.randn(n, generator=generator).to(dtype) if bias else None
    tensors = {"qweight": pack_rows(q, bits).T, "scales": s.T,
               "qzeros": stored_zeros(z, bits, writer), "g_idx": group.to(torch.int32)}
    if bias:
        tensors["bias"] = b
    out["tensors"].update({f"{name}.{key}": t for key, t in tensors.items()})
    weight = (q - z[:, group]).double() * s.double()[:, group]
    golden.expect(out["outputs"], name, weight, b, dtype, generator)


def start(seed):
    return {"tensors": {}, "outputs": {}}, torch.Generator().manual_seed(seed)


def config_json(dtype, quantization):
    return {"config.json": {**golden.model_config(dtype), "quantization_config": quantization}}


def field_rule():
    """As AutoGPTQ stores it: (z - 1) mod 2^bits in each field; no checkpoint_format."""
    out, generator = start(21)
    gptq_layer(out, LAYER + "self_attn.q_proj", 32, 64, 4, 32, "field", generator, bias=True)
    gptq_layer(out, LAYER + "mlp.down_proj", 64, 32, 4, 32, "field", generator)
    golden.write("gptq-v1-field", out["tensors"], out["outputs"], config_json(torch.float16, {
        "quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": False}))


def word_rule():
    """As GPTQModel stores it, with "dynamic" giving some layers other bits and groups."""
    out, generator = start(22)
    gptq_layer(out, LAYER + "self_attn.q_proj", 24, 64, 4, 32, "word", generator)
    gptq_layer(out, LAYER + "mlp.down_proj", 20, 48, 8, 16, "word", generator, bias=True)
    gptq_layer(out, "model.layers.1.mlp.up_proj", 16, 64, 4, 64, "word", generator, sym=True)
    gptq_layer(out, "model.layers.1.mlp.down_proj", 12, 64, 8, 16, "word", generator)
    out["tensors"][LAYER + "mlp.skip_proj.weight"] = torch.randn(8, 32, generator=generator).half()
    golden.write("gptq-v1-word", out["tensors"], out["outputs"], config_json(torch.float16, {
        "quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": False,
        "checkpoint_format": "gptq", "meta": {"quantizer": ["gptqmodel:1.4.2"]},
        "dynamic": {r"-:.*skip_proj": {}, r"+:.*\.down_proj$": {"bits": 8, "group_size": 16},
                    r"model\.layers\.1\.": {"sym": True, "group_size": 64}}}))


def v2_act_order():
    """v2, act-order, bf16, in two shards with an index."""
    case, dtype = "gptq-v2-act-order", torch.bfloat16
    out, generator = start(23)
    gptq_layer(out, LAYER + "mlp.up_proj", 16, 96, 4, 32, "v2", generator, dtype, desc_act=True)
    gptq_layer(out, LAYER + "mlp.down_proj", 24, 64, 4, 16, "v2", generator, dtype, desc_act=True,
               bias=True)
    golden.write(case, {}, out["outputs"], config_json(dtype, {
        "quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": True,
        "checkpoint_format": "gptq_v2",
        "dynamic": {".*down_proj": {"group_size": 16}}}))
    folder = os.path.join(golden.DATA, case)
    os.remove(os.path.join(folder, "model.safetensors"))
    shards = {}
    for i, part in enumerate(("up_proj", "down_proj")):
        shard = f"model-{i + 1:05}-of-00002.safetensors"
        own = {name: t for name, t in out["tensors"].items() if part in name}
        golden.save(os.path.join(folder, shard), own)
        shards.update({name: shard for name in own})
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {}, "weight_map": shards}, file, indent=1)


def symmetric():
    """Symmetric, 8 bits, act-order; the config in quantize_config.json alone."""
    out, generator = start(24)
    gptq_layer(out, LAYER + "mlp.up_proj", 32, 48, 8, 16, "field", generator, sym=True,
               desc_act=True)
    golden.write("gptq-sym", out["tensors"], out["outputs"], {
        "config.json": golden.model_config(torch.float16),
        "quantize_config.json": {"bits": 8, "group_size": 16, "damp_percent": 0.01,
                                 "desc_act": True, "static_groups": False, "sym": True,
                                 "true_sequential": True, "model_name_or_path": None}})


def symmetric_with_v2_zeros():
    """Symmetric files say z = 8 whatever qzeros holds; these hold it unshifted, marked v1."""
    out, generator = start(25)
    gptq_layer(out, LAYER + "mlp.up_proj", 16, 64, 4, 32, "v2", generator, sym=True)
    golden.write("gptq-sym-v2-zeros", out["tensors"], out["outputs"], config_json(torch.float16, {
        "quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False,
        "checkpoint_format": "gptq", "meta": {"quantizer": "gptqmodel:0.9.9"}}))


def short_group():
    """GPTQModel: a short last group, with and without act-order, and one group a channel."""
    out, generator = start(26)
    gptq_layer(out, LAYER + "mlp.up_proj", 16, 80, 4, 32, "word", generator)
    gptq_layer(out, LAYER + "mlp.gate_proj", 8, 72, 4, 32, "word", generator, desc_act=True)
    gptq_layer(out, LAYER + "mlp.down_proj", 24, 56, 4, -1, "word", generator)
    golden.write("gptq-short-group", out["tensors"], out["outputs"], config_json(torch.float16, {
        "quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False, "desc_act": True,
        "checkpoint_format": "gptq", "meta": {"quantizer": ["gptqmodel:2.0.0"]},
        "dynamic": {"+:.*down_proj": {"group_size": -1}}}))


def awq():
    """AWQ gemm: packed along N in its own order, true zero points."""
    out, generator = start(27)
    for name, n, k, bias in (("self_attn.q_proj", 24, 64, True), ("mlp.down_proj", 16, 96, False)):
        q, s, z = draw(generator, n, k, 4, k // 32, torch.float16, False)
        group = torch.arange(k) // 32
        b = torch.randn(n, generator=generator).half() if bias else None
        tensors = {"qweight": pack_rows_awq(q.T), "scales": s.T, "qzeros": pack_rows_awq(z.T)}
        if bias:
            tensors["bias"] = b
        out["tensors"].update({f"{LAYER}{name}.{key}": t for key, t in tensors.items()})
        weight = (q - z[:, group]).double() * s.double()[:, group]
        golden.expect(out["outputs"], LAYER + name, weight, b, torch.float16, generator)
    out["tensors"][LAYER + "mlp.gate.weight"] = torch.randn(8, 64, generator=generator).half()
    golden.write("awq", out["tensors"], out["outputs"], config_json(torch.float16, {
        "quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True,
        "version": "gemm", "modules_to_not_convert": ["mlp.gate"]}))


if __name__ == "__main__":
    field_rule()
    word_rule()
    v2_act_order()
    symmetric()
    symmetric_with_v2_zeros()
    short_group()
    awq()
