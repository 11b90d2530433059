"""Shards of layers as vLLM's linear layers load them, without an engine: any rank, any format."""

import numpy
import pytest

pytest.importorskip("vllm")

import torch
from conftest import error_of
from vllm.model_executor import parameter

from kernelry.vllm import _kernel, _method, _shards

FORMATS = {"compressed-tensors": _shards.COMPRESSED_TENSORS, "gptq": _shards.GPTQ,
           "awq": _shards.AWQ}


@pytest.fixture(autouse=True)
def no_group(monkeypatch):
    """Parameters ask for a rank before the layer tells them its own."""
    monkeypatch.setattr(parameter, "get_tensor_model_parallel_rank", lambda: 0)
    monkeypatch.setattr(parameter, "get_tensor_model_parallel_world_size", lambda: 1)


def stored_tensors(layer, method):
    tensors = {"compressed-tensors": layer.compressed_tensors, "gptq": layer.gptq,
               "awq": layer.awq}[method]()
    if method == "gptq":
        tensors["g_idx"] = layer.g_idx
        tensors.setdefault("qzeros", numpy.zeros((1, 1), numpy.int32))
    return {name: torch.from_numpy(numpy.array(t)) for name, t in tensors.items()}


def make(layer, method, rank, partition_k, partition_n, group_size, act_order=False):
    """A module with this rank's parameters, and the method that runs it."""
    module = torch.nn.Module()
    module.tp_rank, module.prefix = rank, "down_proj"
    linear = _method.KernelryLinearMethod(
        FORMATS[method], _method.TYPES_BY_BITS[layer.bits, layer.zeros is None], group_size,
        layer.zeros is not None, act_order=act_order, zero_add=1 if method == "gptq" else 0)
    n, k = layer.codes.shape
    linear.create_weights(module, partition_k, [partition_n], k, n, torch.float32,
                          weight_loader=None)
    return module, linear


def load_rows(module, tensors):
    parameters = dict(module.named_parameters())
    for name, tensor in tensors.items():
        if name in parameters:
            parameters[name].load_row_parallel_weight(tensor)


@pytest.mark.parametrize("method,k,ranks,group_size,zeros,act_order", [
    ("compressed-tensors", 704, 2, 64, False, False),
    ("compressed-tensors", 704, 4, 64, True, False),  # 176: 2.75 groups
    ("compressed-tensors", 84, 2, 32, True, False),  # 42: inside a word
    ("compressed-tensors", 96, 2, -1, True, False),
    ("gptq", 704, 4, 64, False, False),
    ("gptq", 88, 2, 32, True, False),  # 44: inside a word
    ("gptq", 96, 2, 32, False, True),
    ("gptq", 96, 3, 24, True, True),
    ("awq", 704, 4, 64, True, False),
    ("awq", 88, 8, 32, True, False),  # 11
])
def test_row_parallel_shards_add_up_to_the_layer(quantized, rng, method, k, ranks, group_size,
                                                 zeros, act_order):
    layer = quantized(k, 40, group_size, zeros=zeros, act_order=act_order)
    tensors = stored_tensors(layer, method)
    x = rng.standard_normal((3, k)).astype(numpy.float32)
    y, size = numpy.zeros((3, 40)), k // ranks
    for rank in range(ranks):
        module, linear = make(layer, method, rank, size, 40, group_size, act_order)
        load_rows(module, tensors)
        linear.process_weights_after_loading(module)
        part = torch.from_numpy(x[:, rank * size:(rank + 1) * size].copy())
        y += linear.apply(module, part).numpy()
    assert error_of(y, x @ layer.matrix.T) < 1e-5


@pytest.mark.parametrize("method", FORMATS)
@pytest.mark.parametrize("rank", [0, 1])
def test_fused_columns_are_cut_from_each_part(quantized, rng, method, rank):
    # gate and up of 48 rows each, 24 a rank; but for AWQ, whose words hold 8 rows, 20 of 40.
    n = 48 if method == "awq" else 40
    parts = [quantized(96, n, 32, zeros=True) for _ in range(2)]
    fused = quantized(96, 2 * n, 32, zeros=True)  # the shape alone counts
    module, linear = make(fused, method, rank, 96, n, 32)
    parameters = dict(module.named_parameters())
    for index, part in enumerate(parts):
        for name, tensor in stored_tensors(part, method).items():
            if name in parameters:
                parameters[name].load_merged_column_weight(
                    tensor, shard_id=index, shard_offset=index * n // 2, shard_size=n // 2)
    linear.process_weights_after_loading(module)
    x = rng.standard_normal((2, 96)).astype(numpy.float32)
    rows = slice(rank * n // 2, (rank + 1) * n // 2)
    expected = x @ numpy.concatenate([part.matrix[rows] for part in parts]).T
    assert error_of(linear.apply(module, torch.from_numpy(x)).numpy(), expected) < 1e-5


def test_heads_of_k_that_ranks_share_are_loaded_by_each(quantized, rng):
    layer = quantized(96, 32, 32, zeros=True)
    tensors = stored_tensors(layer, "compressed-tensors")
    for rank in range(4):  # two heads of 16 rows on four ranks
        module, linear = make(layer, "compressed-tensors", rank, 96, 16, 32)
        for name, tensor in tensors.items():
            getattr(module, name).load_qkv_weight(tensor, shard_id="k", num_heads=2,
                                                  shard_offset=0, shard_size=16)
        linear.process_weights_after_loading(module)
        x = rng.standard_normal((2, 96)).astype(numpy.float32)
        head = slice(rank // 2 * 16, rank // 2 * 16 + 16)
        y = linear.apply(module, torch.from_numpy(x)).numpy()
        assert error_of(y, x @ layer.matrix[head].T) < 1e-5


def test_reload_keeps_the_place_of_prepared_weights(quantized, rng):
    first, second = quantized(96, 40, 32), quantized(96, 40, 32)
    module, linear = make(first, "compressed-tensors", 0, 96, 40, 32)
    load_rows(module, stored_tensors(first, "compressed-tensors"))
    linear.process_weights_after_loading(module)
    place = module.kernelry_prepared.data_ptr()
    assert module.weight_packed.numel() == 0  # nothing is held twice
    fresh, _ = make(second, "compressed-tensors", 0, 96, 40, 32)
    load_rows(fresh, stored_tensors(second, "compressed-tensors"))
    for name in ("weight_packed", "weight_scale"):
        getattr(module, name).data = getattr(fresh, name).data
    linear.process_weights_after_loading(module)
    x = rng.standard_normal((2, 96)).astype(numpy.float32)
    assert module.kernelry_prepared.data_ptr() == place
    y = linear.apply(module, torch.from_numpy(x)).numpy()
    assert error_of(y, x @ second.matrix.T) < 1e-5


def test_stored_shape_of_another_model_is_refused(quantized):
    layer, other = quantized(96, 40, 32), quantized(96, 40, 16)
    module, _ = make(layer, "compressed-tensors", 0, 96, 40, 32)
    with pytest.raises(ValueError, match="group size"):
        module.weight_scale.load_merged_column_weight(
            torch.from_numpy(other.scales), shard_offset=0, shard_size=40)


@pytest.mark.parametrize("dtype,scale,told", [
    (torch.float16, 0.25, ""),
    (torch.float16, 0.1, "rounded to torch.float16, by a part in"),
    (torch.bfloat16, 0.1, "rounded to torch.bfloat16, by a part in"),
    (torch.float16, 1e6, ValueError),
    (torch.bfloat16, 2.0**20, ""),
])
def test_scales_of_another_type_are_rounded_aloud(monkeypatch, dtype, scale, told):
    lines = []
    monkeypatch.setattr(_shards.logger, "warning_once", lambda text, *a: lines.append(text % a))
    parameter_ = _shards.ShardParameter(data=torch.empty(4, 2, dtype=dtype), weight_loader=None,
                                        n_axis=0, rank=0)
    stored = torch.full((4, 2), scale)
    if told is ValueError:
        with pytest.raises(ValueError, match="beyond torch.float16"):
            parameter_.load_column_parallel_weight(stored)
        return
    parameter_.load_column_parallel_weight(stored)
    assert torch.equal(parameter_.data, stored.to(dtype))
    assert len(lines) == bool(told) and told in "".join(lines)


def test_rows_that_share_a_word_are_refused(quantized):
    layer = quantized(96, 40, 32, zeros=True)
    with pytest.raises(ValueError, match="packs 8 rows in a word, this rank has 20"):
        make(layer, "awq", 1, 96, 20, 32)


def test_fused_parts_in_different_orders_are_refused(quantized):
    layer = quantized(96, 40, 32, act_order=True)
    module, _ = make(layer, "gptq", 0, 96, 40, 32, act_order=True)
    module.g_idx.load_merged_column_weight(torch.from_numpy(layer.g_idx))
    with pytest.raises(ValueError, match="differently"):
        module.g_idx.load_merged_column_weight(torch.from_numpy(layer.g_idx[::-1].copy()))


@pytest.mark.parametrize("changed,expected", [
    ({}, ("u4b8", False, 1)),
    ({"desc_act": True}, ("u4b8", True, 1)),
    ({"desc_act": True, "group_size": -1}, ("u4b8", False, 1)),
    ({"sym": False, "checkpoint_format": "gptq_v2"}, ("u4", False, 0)),
    ({"sym": False, "bits": 8}, ("u8", False, 1)),
])
def test_gptq_configuration_is_read(changed, expected):
    config = _method.KernelryConfig.from_config(
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True, "desc_act": False,
         **changed})
    method = _method._gptq_method(config)
    kind = _kernel.WEIGHT_TYPES[method.fields["weight_type"], method.fields["zero_points"]]
    assert (kind, method.fields["act_order"], method.zero_add) == expected
