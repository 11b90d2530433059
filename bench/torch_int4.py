"""What the peers that drive PyTorch's int4 weight-only product share."""

from peer import need


class TorchInt4:
    """The library, and the layers that its product takes; see peer.Server for the whole of a peer."""

    def __init__(self, compute):
        import torch

        need(compute == "bf16", f"computes in bf16, not in {compute}")
        torch.set_grad_enabled(False)
        self.torch = torch
        self.version = torch.__version__
        self.weights, self.outputs = [], []

    def accept(self, layer, k_multiple, n_multiple):
        need(layer.bits == 4, "weights of 4 bits")
        need(layer.group_size in (32, 64, 128, 256), "groups of 32, 64, 128 or 256")
        need(layer.k % k_multiple == 0, f"K a multiple of {k_multiple}")
        need(layer.k % layer.group_size == 0, "K a multiple of the group")
        need(layer.n % n_multiple == 0, f"N a multiple of {n_multiple}")
        self.group_size = layer.group_size

    def scales_and_zeros(self, scales, zero_points):
        """As the product reads them: a weight is (code - 8) * scale + zero."""
        torch = self.torch
        zeros = scales * 0
        if zero_points is not None:
            zeros = scales * (8 - zero_points.astype("float32"))
        both = torch.stack([torch.from_numpy(scales.T), torch.from_numpy(zeros.T)], -1)
        return both.contiguous().to(torch.bfloat16)

    def release(self):
        self.weights, self.outputs = [], []
