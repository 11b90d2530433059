"""Tensor parallel under torch.distributed: slices of one checkpoint, one a process, all-reduced.

gloo between processes on the CPU; NCCL between GPUs, where there are two.
"""

import os
import socket

import numpy
import pytest
from conftest import compressed_tensors_config, write_model

torch = pytest.importorskip("torch")

import kernelry
import kernelry.torch
from kernelry import Checkpoint
from kernelry.torch import QuantLinear

M = 5
# A row-parallel layer's K and group size. Of 704 at 64 a half is 5.5 groups and a quarter 2.75, of
# 29568 at 128 115.5 and 57.75.
LAYERS = {"mlp.down_proj": (704, 64), "mlp.long_proj": (29568, 128), "mlp.shuffled_proj": (704, 64)}


def _write_models(folder, quantized, rng):
    """Each layer as a model of its own: (matrix in float64, bias)."""
    layers = {}
    for name, (k, group_size) in LAYERS.items():
        shuffled = name == "mlp.shuffled_proj"
        layer = quantized(k, 48, group_size=group_size, zeros=shuffled, act_order=shuffled,
                          scale_type=numpy.float16)
        bias = rng.standard_normal(48).astype(numpy.float16)
        tensors = {f"{name}.bias": bias}
        if shuffled:
            tensors |= {f"{name}.{key}": value for key, value in layer.gptq().items()}
            tensors[f"{name}.g_idx"] = layer.g_idx
            config = {"quant_method": "gptq", "bits": 4, "group_size": group_size,
                      "sym": False, "desc_act": True}
        else:
            tensors |= {f"{name}.{key}": value for key, value in layer.compressed_tensors().items()}
            tensors[f"{name}.weight_shape"] = numpy.array([48, k], numpy.int64)
            config = compressed_tensors_config(group_size)
        write_model(folder / name, tensors, config, "float16")
        layers[name] = layer.matrix, bias
    return layers


def _rank(rank, world, backend, folder, dtype, port):
    """One process: its slice of each layer, the sum over all, and what column-parallel parts
    give when they are gathered. The first writes both."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    device = torch.device("cpu") if backend == "gloo" else torch.device("cuda", rank)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.distributed.init_process_group(backend, rank=rank, world_size=world)
    for name, (k, _) in LAYERS.items():
        checkpoint = Checkpoint(folder / name)
        x = torch.from_numpy(numpy.load(folder / f"{name}.npy")).to(device, dtype)
        part = slice(k * rank // world, k * (rank + 1) // world)
        rows = QuantLinear.from_checkpoint(checkpoint, name, k=part, dtype=dtype, device=device,
                                           bias=None if rank == 0 else False)
        y = rows(x[:, part])
        torch.distributed.all_reduce(y)
        columns = QuantLinear.from_checkpoint(
            checkpoint, name, n=slice(48 * rank // world, 48 * (rank + 1) // world), dtype=dtype,
            device=device)
        parts = [torch.empty(M, 48 // world, dtype=dtype, device=device) for _ in range(world)]
        torch.distributed.all_gather(parts, columns(x).contiguous())
        if rank == 0:
            torch.save((y.cpu(), torch.cat(parts, 1).cpu(), rows.kernel), folder / f"{name}.pt")
    torch.distributed.destroy_process_group()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _gpus():
    return (torch.cuda.device_count() if any(d.platform in ("cuda", "rocm")
                                             for d in kernelry.devices()) else 0)


@pytest.mark.parametrize("world,backend,dtype,bound", [
    (2, "gloo", torch.float32, 1e-5),
    (4, "gloo", torch.float32, 1e-5),
    pytest.param(2, "nccl", torch.float16, 1e-3,
                 marks=pytest.mark.skipif(_gpus() < 2, reason="no two GPUs")),
])
def test_parts_of_a_checkpoint_give_together_what_the_layer_gives(tmp_path, quantized, rng, world,
                                                                  backend, dtype, bound):
    layers = _write_models(tmp_path, quantized, rng)
    drawn = {name: rng.standard_normal((M, k)).astype(numpy.float16)
             for name, (k, _) in LAYERS.items()}
    for name, x in drawn.items():
        numpy.save(tmp_path / f"{name}.npy", x)
    torch.multiprocessing.spawn(_rank, (world, backend, tmp_path, dtype, _free_port()), world)
    for name, (matrix, bias) in layers.items():
        reduced, gathered, kernel = torch.load(tmp_path / f"{name}.pt")
        x = drawn[name].astype(numpy.float64)
        expected = torch.from_numpy(x @ matrix.T + bias)
        for how, y in (("reduced", reduced), ("gathered", gathered)):
            error = ((y.double() - expected).norm() / expected.norm()).item()
            assert error < bound, f"{name} on {kernel}, {how}: {error}"
