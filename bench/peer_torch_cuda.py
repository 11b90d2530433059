"""PyTorch on the first CUDA device: its int4 weight-only product in bf16, replayed as a graph."""

import time

from peer import need, serve
from torch_int4 import TorchInt4

INNER_TILES = 8  # of K, as PyTorch's own tools choose them
TURNS_LEAST = 64  # applies in a graph


class Peer(TorchInt4):
    def __init__(self, compute, _threads):
        super().__init__(compute)
        need(self.torch.cuda.is_available(), "PyTorch finds no CUDA device")
        self.stream = self.torch.cuda.Stream()
        self.release()

    def build(self, layer, copies):
        torch = self.torch
        self.accept(layer, 16 * INNER_TILES, 8)
        for index in range(copies):
            codes, scales, zero_points = layer.copy(index)
            packed = torch.ops.aten._convert_weight_to_int4pack(
                torch.from_numpy(codes[:, 0::2] << 4 | codes[:, 1::2]).cuda(), INNER_TILES
            )
            both = self.scales_and_zeros(scales, zero_points)
            self.weights.append((packed, both.cuda()))
        self.outputs = [None] * copies

    def bind(self, m, x):
        torch = self.torch
        self.x = torch.from_numpy(x.copy()).to(torch.bfloat16).cuda()
        copies = len(self.weights)
        rounds = -(-TURNS_LEAST // copies)
        with torch.cuda.stream(self.stream):
            for copy in range(copies):
                self.apply(copy)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=self.stream):
            for copy in list(range(copies)) * rounds:
                self.apply(copy)
        self.turns = rounds * copies
        self.run(1)

    def apply(self, copy):
        packed, scales_and_zeros = self.weights[copy]
        self.outputs[copy] = self.torch.ops.aten._weight_int4pack_mm(
            self.x, packed, self.group_size, scales_and_zeros
        )

    def run(self, applies):
        """Nanoseconds of so many applies: of each the average, since they are waited for together."""
        replays = -(-applies // self.turns)
        begin = time.perf_counter_ns()
        for _ in range(replays):
            self.graph.replay()
        self.torch.cuda.synchronize()
        each = (time.perf_counter_ns() - begin) // (replays * self.turns)
        return [max(each, 1)] * applies

    def result(self, copy):
        self.torch.cuda.synchronize()
        return self.outputs[copy].to(self.torch.float32).cpu().numpy()

    def release(self):
        self.graph = None
        super().release()
        self.torch.cuda.empty_cache()


if __name__ == "__main__":
    serve(Peer)
