"""onnxruntime: com.microsoft.MatMulNBits, in int8 (accuracy_level 4) or f32 (0)."""

import numpy as np

from peer import need, pack_nibbles, serve

ACCURACY_LEVELS = {"int8": 4, "f32": 0}


class Peer:
    def __init__(self, compute, threads):
        import onnx
        import onnxruntime

        need(compute in ACCURACY_LEVELS, f"computes in int8 or f32, not in {compute}")
        self.level = ACCURACY_LEVELS[compute]
        self.onnx, self.runtime = onnx, onnxruntime
        self.version = onnxruntime.__version__
        onnxruntime.set_default_logger_severity(3)
        # One pool for all sessions: pools of their own would spin in each other's way.
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        self.options = onnxruntime.SessionOptions()
        self.options.use_per_session_threads = False
        self.sessions, self.bindings = [], []

    def model(self, layer, weights):
        codes, scales, zero_points = weights
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        # The last group may be short; what fills it up is never read.
        short = layer.groups * layer.group_size - layer.k
        codes = np.pad(codes, ((0, 0), (0, short)))
        blobs = codes.reshape(layer.n, layer.groups, layer.group_size)
        if layer.bits == 4:
            blobs = pack_nibbles(blobs)
        tensors = [numpy_helper.from_array(blobs, "w"), numpy_helper.from_array(scales, "s")]
        if zero_points is not None:
            if layer.bits == 4:
                odd = layer.groups % 2
                zero_points = pack_nibbles(np.pad(zero_points, ((0, 0), (0, odd))))
            tensors.append(numpy_helper.from_array(zero_points, "z"))
        node = helper.make_node(
            "MatMulNBits",
            ["x"] + [tensor.name for tensor in tensors],
            ["y"],
            domain="com.microsoft",
            K=layer.k,
            N=layer.n,
            bits=layer.bits,
            block_size=layer.group_size,
            accuracy_level=self.level,
        )
        floats = self.onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            [node],
            "layer",
            [helper.make_tensor_value_info("x", floats, ["m", layer.k])],
            [helper.make_tensor_value_info("y", floats, ["m", layer.n])],
            tensors,
        )
        opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        return model.SerializeToString()

    def build(self, layer, copies):
        group = layer.group_size
        need(group >= 16 and group & (group - 1) == 0, "groups of a power of two from 16 on")
        for index in range(copies):
            self.sessions.append(
                self.runtime.InferenceSession(
                    self.model(layer, layer.copy(index)),
                    self.options,
                    providers=["CPUExecutionProvider"],
                )
            )

    def bind(self, m, x):
        # Bound to places of their own, so that nothing is allocated or copied in an apply.
        self.x = self.runtime.OrtValue.ortvalue_from_numpy(x)
        self.bindings = []
        for session in self.sessions:
            n = session.get_outputs()[0].shape[1]
            y = self.runtime.OrtValue.ortvalue_from_numpy(np.empty((m, n), np.float32))
            binding = session.io_binding()
            binding.bind_ortvalue_input("x", self.x)
            binding.bind_ortvalue_output("y", y)
            self.bindings.append((binding, y))

    def apply(self, copy):
        self.sessions[copy].run_with_iobinding(self.bindings[copy][0])

    def result(self, copy):
        return self.bindings[copy][1].numpy()

    def release(self):
        self.bindings, self.sessions = [], []


if __name__ == "__main__":
    serve(Peer)
