"""PyTorch on the first CUDA device: its int4 weight-only product in bf16, replayed as a graph."""

import time

from peer import need, serve

INNER_TILES = 8  # of K, as PyTorch's own tools choose them
TURNS_LEAST = 64  # applies in a graph


class Peer:
    def __init__(self, compute, _threads):
        import torch

        need(compute == "bf16", f"computes in bf16, not in {compute}")
        need(torch.cuda.is_available(), "PyTorch finds no CUDA device")
        self.torch = torch
        self.version = torch.__version__
        torch.set_grad_enabled(False)
        self.stream = torch.cuda.Stream()
        self.release()

    def build(self, layer, copies):
        torch = self.torch
        need(layer.bits == 4, "weights of 4 bits")
        need(layer.group_size in (32, 64, 128, 256), "groups of 32, 64, 128 or 256")
        need(layer.k % (16 * INNER_TILES) == 0, f"K a multiple of {16 * INNER_TILES}")
        need(layer.k % layer.group_size == 0, "K a multiple of the group")
        need(layer.n % 8 == 0, "N a multiple of 8")
        self.group_size = layer.group_size
        for index in range(copies):
            codes, scales, zero_points = layer.copy(index)
            packed = torch.ops.aten._convert_weight_to_int4pack(
                torch.from_numpy(codes[:, 0::2] << 4 | codes[:, 1::2]).cuda(), INNER_TILES
            )
            # A weight is (code - 8) * scale + zero.
            zeros = scales * 0
            if zero_points is not None:
                zeros = scales * (8 - zero_points.astype("float32"))
            both = torch.stack([torch.from_numpy(scales.T), torch.from_numpy(zeros.T)], -1)
            self.weights.append((packed, both.contiguous().to(torch.bfloat16).cuda()))
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
        self.weights, self.outputs = [], []
        self.torch.cuda.empty_cache()


if __name__ == "__main__":
    serve(Peer)
