"""PyTorch: its int4 weight-only product in bf16."""

import os
import sys

# OpenMP reads it when it is loaded.
os.environ["OMP_NUM_THREADS"] = sys.argv[2]

from peer import need, serve  # noqa: E402


class Peer:
    def __init__(self, compute, threads):
        import torch

        need(compute == "bf16", f"computes in bf16, not in {compute}")
        self.torch = torch
        self.version = torch.__version__
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.weights, self.outputs = [], []

    def build(self, layer, copies):
        torch = self.torch
        need(layer.bits == 4, "weights of 4 bits")
        need(layer.group_size in (32, 64, 128, 256), "groups of 32, 64, 128 or 256")
        need(layer.k % layer.group_size == 0, "K a multiple of the group")
        need(layer.n % 16 == 0, "N a multiple of 16")
        self.group_size = layer.group_size
        for index in range(copies):
            codes, scales, zero_points = layer.copy(index)
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(
                torch.from_numpy(codes).to(torch.int32), 1
            )
            # A weight is (code - 8) * scale + zero.
            zeros = scales * 0
            if zero_points is not None:
                zeros = scales * (8 - zero_points.astype("float32"))
            both = torch.stack([torch.from_numpy(scales.T), torch.from_numpy(zeros.T)], -1)
            self.weights.append((packed, both.contiguous().to(torch.bfloat16)))
        self.outputs = [None] * copies

    def bind(self, m, x):
        self.x = self.torch.from_numpy(x.copy()).to(self.torch.bfloat16)

    def apply(self, copy):
        packed, scales_and_zeros = self.weights[copy]
        self.outputs[copy] = self.torch.ops.aten._weight_int4pack_mm_for_cpu(
            self.x, packed, self.group_size, scales_and_zeros
        )

    def result(self, copy):
        return self.outputs[copy].to(self.torch.float32).numpy()

    def release(self):
        self.weights, self.outputs = [], []


if __name__ == "__main__":
    serve(Peer)
