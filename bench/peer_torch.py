"""PyTorch: its int4 weight-only product in bf16."""

import os
import sys

# OpenMP reads it when it is loaded.
os.environ["OMP_NUM_THREADS"] = sys.argv[2]

from peer import serve  # noqa: E402
from torch_int4 import TorchInt4  # noqa: E402


class Peer(TorchInt4):
    def __init__(self, compute, threads):
        super().__init__(compute)
        self.torch.set_num_threads(threads)

    def build(self, layer, copies):
        torch = self.torch
        self.accept(layer, 1, 16)
        for index in range(copies):
            codes, scales, zero_points = layer.copy(index)
            packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(
                torch.from_numpy(codes).to(torch.int32), 1
            )
            self.weights.append((packed, self.scales_and_zeros(scales, zero_points)))
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


if __name__ == "__main__":
    serve(Peer)
