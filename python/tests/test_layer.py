"""Layers: numbers, operands that do not fit, ends."""

import threading
import time
import weakref

import numpy
import pytest
from conftest import error_of

import kernelry
from kernelry import Layer, Linear, Registry, Weights


@pytest.fixture
def made(quantized):
    """A small layer in f32 and the matrix that it stands for."""
    stored = quantized()
    linear = Linear(in_features=96, out_features=40, group_size=32, x_type="f32")
    return Layer(linear, Weights.compressed_tensors(**stored.compressed_tensors())), stored.matrix


def test_leading_dimensions_strides_and_bias_are_taken(made, rng):
    layer, matrix = made
    bias = rng.standard_normal(40).astype(numpy.float32)
    wide = rng.standard_normal((6, 200)).astype(numpy.float32)
    for x in (wide[0, :96], wide[:, :96], wide[::2, 50:146], wide.reshape(2, 3, 200)[..., 7:103],
              wide[:0, :96], wide[:, None, :96]):
        y = layer(x, bias=bias)
        assert y.shape == (*x.shape[:-1], 40)
        if x.size:
            assert error_of(y, x.astype(numpy.float64) @ matrix.T + bias) < 1e-5


def test_out_is_written_where_it_lies(made, rng):
    layer, matrix = made
    x = rng.standard_normal((4, 96)).astype(numpy.float32)
    wide = numpy.full((4, 100), numpy.nan, numpy.float32)
    assert layer(x, out=wide[:, 30:70]) is not None
    assert error_of(wide[:, 30:70], x.astype(numpy.float64) @ matrix.T) < 1e-5
    assert numpy.isnan(wide[:, :30]).all() and numpy.isnan(wide[:, 70:]).all()


def test_f16_is_within_its_bound(quantized, rng):
    stored = quantized(k=2112, n=64, group_size=64, scale_type=numpy.float16)
    linear = Linear(in_features=2112, out_features=64, group_size=64, x_type="f16")
    layer = Layer(linear, Weights.compressed_tensors(**stored.compressed_tensors()))
    x = rng.standard_normal((5, 2112)).astype(numpy.float16)
    assert error_of(layer(x), x.astype(numpy.float64) @ stored.matrix.T) < 1e-3


def test_bf16_comes_as_bits(quantized, rng):
    stored = quantized()
    linear = Linear(in_features=96, out_features=40, group_size=32, x_type="bf16", scale_type="f32")
    layer = Layer(linear, Weights.compressed_tensors(**stored.compressed_tensors()))
    bits = (rng.standard_normal((3, 96)).astype(numpy.float32).view(numpy.uint32) >> 16)
    x = (bits << 16).view(numpy.float32)
    y = layer(bits.astype(numpy.uint16))
    assert y.dtype == numpy.uint16
    wide = (y.astype(numpy.uint32) << 16).view(numpy.float32)
    assert error_of(wide, x.astype(numpy.float64) @ stored.matrix.T) < 4e-3


READ_ONLY = numpy.zeros((3, 40), numpy.float32)
READ_ONLY.flags.writeable = False


@pytest.mark.parametrize("call,words", [
    (lambda layer, x: layer(x[:, :95]), r"x is float32 \[3, 95\], expected \[..., 96\]"),
    (lambda layer, x: layer(x.astype(numpy.float64)), "x is float64.*takes f32"),
    (lambda layer, x: layer(x.T.copy().T), "strides.*contiguous"),
    (lambda layer, x: layer(x[::-1]), "contiguous"),
    (lambda layer, x: layer(numpy.float32(1)), "expected an array|expected \\[..., 96\\]"),
    (lambda layer, x: layer([1.0] * 96), "x is list"),
    (lambda layer, x: layer(x, out=numpy.zeros((2, 40), numpy.float32)), "3 rows"),
    (lambda layer, x: layer(x, out=READ_ONLY), "read-only"),
    (lambda layer, x: layer(x, bias=numpy.zeros(39, numpy.float32)), r"bias is .*\[39\]"),
    (lambda layer, x: layer(x, bias=numpy.zeros((40, 40), numpy.float32)), r"expected \[40\]"),
    (lambda layer, x: layer(x, scratch=numpy.zeros(8, numpy.uint8)), "scratch has 8 bytes"),
    (lambda layer, x: layer.prepare({"qweight": 1}), "expected kernelry.Weights"),
    (lambda layer, x: layer.workspace(-1), "m -1"),
])
def test_operand_that_does_not_fit_is_refused_by_name(made, rng, call, words):
    layer, _ = made
    x = rng.standard_normal((3, 96)).astype(numpy.float32)
    with pytest.raises(kernelry.ArgumentError, match=words):
        call(layer, x)


class OnDevice:
    """An array that says that it lies on a GPU; nobody may follow its address."""

    def __init__(self, array):
        self.__cuda_array_interface__ = {**array.__array_interface__, "data": (4096, False)}


class OnStrangeDevice:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **_):
        raise BufferError("not of this host")

    def __dlpack_device__(self):
        return (8, 0)


@pytest.mark.parametrize("call", [
    lambda layer, x: layer(OnDevice(x)),
    lambda layer, x: layer(x, out=OnDevice(numpy.zeros((3, 40), numpy.float32))),
    lambda layer, x: layer(x, bias=OnDevice(numpy.zeros(40, numpy.float32))),
])
def test_operand_on_another_device_is_refused(made, rng, call):
    x = rng.standard_normal((3, 96)).astype(numpy.float32)
    with pytest.raises(kernelry.ArgumentError, match="lies on cuda:0, the layer is of cpu"):
        call(made[0], x)


def test_weights_on_another_device_are_refused(quantized):
    stored = quantized().compressed_tensors()
    layer = Layer(Linear(in_features=96, out_features=40, group_size=32, x_type="f32"))
    away = {name: OnDevice(tensor) for name, tensor in stored.items()}
    with pytest.raises(kernelry.ArgumentError, match="weights lie on cuda, the layer is of cpu"):
        layer.prepare(Weights.compressed_tensors(**away))
    with pytest.raises(kernelry.ArgumentError, match="weight.* in different places.*move them"):
        layer.prepare(Weights.compressed_tensors(
            **{**stored, "weight_scale": away["weight_scale"]}))
    with pytest.raises(kernelry.ArgumentError, match="not of this host"):
        layer(OnStrangeDevice(numpy.zeros((1, 96), numpy.float32)))


def test_layer_without_weights_says_so(rng):
    layer = Layer(Linear(in_features=96, out_features=40, group_size=32, x_type="f32"))
    with pytest.raises(kernelry.Error, match="no prepared weights") as caught:
        layer(numpy.zeros((1, 96), numpy.float32))
    assert caught.value.status is kernelry.Status.STATE


def test_closed_layer_says_so(made):
    layer, _ = made
    with layer:
        pass
    for use in (lambda: layer(numpy.zeros(96, numpy.float32)), lambda: layer.sizes,
                lambda: layer.workspace(1)):
        with pytest.raises(kernelry.Error, match="the layer is closed"):
            use()


def test_layer_outlives_its_registry(quantized, rng):
    stored = quantized()
    lines = []
    registry = Registry(log=lambda level, message: lines.append((level, message)),
                        disable=["no_such_kernel"])
    layer = Layer(Linear(in_features=96, out_features=40, group_size=32, x_type="f32"),
                  Weights.compressed_tensors(**stored.compressed_tensors()), registry=registry)
    # The core may call the log as long as a layer lives.
    callback = weakref.ref(registry._log)
    registry.close()
    del registry
    assert callback() is not None
    x = rng.standard_normal((2, 96)).astype(numpy.float32)
    assert error_of(layer(x), x @ stored.matrix.T) < 1e-5
    assert any(level == "warning" and "no_such_kernel" in message for level, message in lines)
    del layer
    assert callback() is None


def test_reload_in_place_changes_the_numbers_and_not_the_place(made, quantized, rng):
    layer, _ = made
    block = numpy.zeros(layer.sizes.prepared_bytes + 256, numpy.uint8)
    begin = -block.ctypes.data % 256
    place = block[begin : begin + layer.sizes.prepared_bytes]
    x = rng.standard_normal((2, 96)).astype(numpy.float32)
    for _ in range(2):
        other = quantized()
        layer.prepare(Weights.compressed_tensors(**other.compressed_tensors()), prepared=place)
        assert error_of(layer(x), x @ other.matrix.T) < 1e-5
    assert place.any()
    third = quantized()
    layer.prepare(Weights.compressed_tensors(**third.compressed_tensors()))
    assert error_of(layer(x), x @ third.matrix.T) < 1e-5


def test_named_kernel_runs_and_unknown_one_does_not(quantized, rng):
    stored = quantized()
    linear = Linear(in_features=96, out_features=40, group_size=32, x_type="f32")
    weights = Weights.compressed_tensors(**stored.compressed_tensors())
    assert Layer(linear, weights, kernel="reference").kernel.fallback
    with pytest.raises(kernelry.NotFoundError, match="nonesuch"):
        Layer(linear, weights, kernel="nonesuch")


def test_other_threads_run_while_it_applies(quantized):
    """apply and prepare release the GIL: this thread goes on meanwhile."""
    stored = quantized(k=2048, n=512, group_size=32)
    linear = Linear(in_features=2048, out_features=512, group_size=32, x_type="f32")
    layer = Layer(linear, kernel="reference")
    weights = Weights.compressed_tensors(**stored.compressed_tensors())
    x = numpy.ones((256, 2048), numpy.float32)
    for work in (lambda: layer.prepare(weights), lambda: layer(x)):
        spans = []

        def timed():
            began = time.monotonic()
            work()
            spans.append((began, time.monotonic()))

        thread = threading.Thread(target=timed)
        ticks = []
        thread.start()
        while thread.is_alive():
            ticks.append(time.monotonic())
        began, ended = spans[0]
        inside = [tick for tick in ticks if began < tick < ended]
        # One of the interpreter's own switches at either end is all that a held GIL would give.
        assert len(inside) > 50 or ended - began < 0.01


def test_layer_that_is_closed_meanwhile_ends_after_the_call(quantized):
    stored = quantized(k=2048, n=512, group_size=32)
    linear = Linear(in_features=2048, out_features=512, group_size=32, x_type="f32")
    layer = Layer(linear, Weights.compressed_tensors(**stored.compressed_tensors()),
                  kernel="reference")
    x, order, real = numpy.ones((256, 2048), numpy.float32), [], layer._handle._end

    def end(address):
        order.append("ended")
        real(address)

    def work():
        started.set()
        layer(x)
        order.append("applied")

    layer._handle._end = end
    started = threading.Event()
    thread = threading.Thread(target=work)
    thread.start()
    started.wait()
    time.sleep(0.02)  # of an apply that takes a tenth of a second at least
    layer.close()
    order.append("closed")
    thread.join()
    assert order.index("ended") > order.index("closed") or order[0] == "applied"
    assert sorted(order) == ["applied", "closed", "ended"]


def test_layer_closed_under_another_threads_feet_ends_its_calls(made):
    layer, _ = made
    x = numpy.ones((64, 96), numpy.float32)
    problems = []

    def apply():
        while True:
            try:
                layer(x)
            except kernelry.Error as error:
                problems.append(error)
                return

    threads = [threading.Thread(target=apply) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    layer.close()
    for thread in threads:
        thread.join(10)
    assert [str(problem) for problem in problems] == ["the layer is closed: make another"] * 4
