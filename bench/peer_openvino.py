"""OpenVINO: weights compressed to u4 or u8 that are converted, shifted, scaled and multiplied in
the graph, which the CPU plugin fuses. f32: activations stay floats; int8: they are quantized at
run time, in groups as long as those of the weights."""

import numpy as np

from peer import need, pack_nibbles, serve


class Peer:
    def __init__(self, compute, threads):
        import openvino
        from openvino import opset13

        need(compute in ("int8", "f32"), f"computes in int8 or f32, not in {compute}")
        self.compute = compute
        self.ov, self.ops = openvino, opset13
        self.version = openvino.__version__.split("-")[0]
        self.core = openvino.Core()
        self.config = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.models, self.requests = [], []

    def constant(self, codes, shape, bits):
        """Codes of so many bits; the memory is kept as long as the model may read it."""
        flat = np.ascontiguousarray(pack_nibbles(codes) if bits == 4 else codes).reshape(-1)
        kind = self.ov.Type.u4 if bits == 4 else self.ov.Type.u8
        self.kept.append(flat)
        return self.ops.constant(self.ov.Tensor(flat, self.ov.Shape(shape), kind))

    def model(self, layer, weights):
        codes, scales, zero_points = weights
        ops, n, groups = self.ops, layer.n, layer.groups
        f32 = self.ov.Type.f32
        shape = [n, groups, layer.group_size]
        w = ops.convert(self.constant(codes.reshape(shape), shape, layer.bits), f32)
        if zero_points is None:
            zero_points = np.full((n, groups), 1 << (layer.bits - 1), np.uint8)
        # Nibbles are packed over the whole tensor, whose last axis is 1.
        z = self.constant(zero_points.reshape(1, -1), [n, groups, 1], layer.bits)
        s = ops.constant(scales.reshape(n, groups, 1))
        w = ops.multiply(ops.subtract(w, ops.convert(z, f32)), s)
        w = ops.reshape(w, ops.constant(np.array([n, layer.k])), False)
        x = ops.parameter([-1, layer.k], f32, name="x")
        return self.ov.Model([ops.result(ops.matmul(x, w, False, True))], [x])

    def build(self, layer, copies):
        need(layer.k % layer.group_size == 0, "K a multiple of the group")
        need(layer.n * layer.groups % 2 == 0, "an even number of groups")
        self.kept = []
        self.config["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = (
            layer.group_size if self.compute == "int8" else 0
        )
        for index in range(copies):
            model = self.model(layer, layer.copy(index))
            self.models.append(self.core.compile_model(model, "CPU", self.config))
            self.requests.append(self.models[-1].create_infer_request())

    def bind(self, m, x):
        self.x = x.copy()
        for request in self.requests:
            request.set_input_tensor(self.ov.Tensor(self.x, shared_memory=True))

    def apply(self, copy):
        self.requests[copy].infer()

    def result(self, copy):
        return self.requests[copy].get_output_tensor().data

    def release(self):
        self.requests, self.models, self.kept = [], [], []


if __name__ == "__main__":
    serve(Peer)
