"""Every packing that is described gives the product of the numbers that it stands for."""

import numpy
import pytest
from conftest import error_of

import kernelry
from kernelry import Layer, Linear, View, Weights


def describe(layer, group_size, x_type="f32", **more):
    n, k = layer.codes.shape
    kinds = {(4, False): "u4b8", (4, True): "u4", (8, False): "u8b128", (8, True): "u8"}
    return Linear(in_features=k, out_features=n, group_size=group_size, x_type=x_type,
                  weight_type=kinds[layer.bits, layer.zeros is not None], **more)


def check(layer, linear, weights, rng):
    x = rng.standard_normal((3, linear.in_features)).astype(numpy.float32)
    y = Layer(linear, weights)(x)
    assert y.shape == (3, linear.out_features)
    assert error_of(y, x.astype(numpy.float64) @ layer.matrix.T) < 1e-5


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("group_size", [32, 36, -1])
def test_compressed_tensors_of_every_kind_are_read(quantized, rng, bits, zeros, group_size):
    layer = quantized(k=92, n=44, group_size=group_size, bits=bits, zeros=zeros)
    weights = Weights.compressed_tensors(**layer.compressed_tensors(), bits=bits)
    check(layer, describe(layer, group_size), weights, rng)


def test_compressed_tensors_with_signed_bytes_for_zero_points_are_read(quantized, rng):
    layer = quantized(zeros=True)
    stored = {**layer.compressed_tensors(), "weight_zero_point": (layer.zeros - 8).astype(numpy.int8)}
    check(layer, describe(layer, 32), Weights.compressed_tensors(**stored), rng)


@pytest.mark.parametrize("version,zero", [(1, "minus_one"), (2, "true")])
@pytest.mark.parametrize("bits", [4, 8])
def test_gptq_of_both_versions_is_read(quantized, rng, version, zero, bits):
    layer = quantized(zeros=True, bits=bits)
    check(layer, describe(layer, 32), Weights.gptq(**layer.gptq(version), bits=bits, zero=zero), rng)


def test_gptq_with_act_order_is_read(quantized, rng):
    layer = quantized(act_order=True)
    weights = Weights.gptq(**layer.gptq(), g_idx=layer.g_idx)
    check(layer, describe(layer, 32, act_order=True), weights, rng)


def test_g_idx_that_only_counts_up_is_no_act_order(quantized, rng):
    layer = quantized()
    check(layer, describe(layer, 32), Weights.gptq(**layer.gptq(), g_idx=layer.g_idx), rng)


def test_g_idx_that_reorders_needs_act_order(quantized):
    layer = quantized(act_order=True)
    with pytest.raises(kernelry.ArgumentError, match="act_order=True"):
        Layer(describe(layer, 32), Weights.gptq(**layer.gptq(), g_idx=layer.g_idx))


def test_awq_is_read(quantized, rng):
    layer = quantized(zeros=True)
    check(layer, describe(layer, 32), Weights.awq(**layer.awq()), rng)


def test_unpacked_zero_points_and_codes_of_8_bits_are_read(quantized, rng):
    layer = quantized(zeros=True, bits=8)
    weights = Weights.unpacked(layer.codes.astype(numpy.uint8), layer.scales,
                               layer.zeros.astype(numpy.uint8), bits=8)
    check(layer, describe(layer, 32), weights, rng)


def test_strided_tensors_are_viewed_where_they_lie(quantized, rng):
    layer = quantized()
    stored = layer.compressed_tensors()
    wide = numpy.zeros((40, 24), numpy.int32)
    wide[:, ::2] = stored["weight_packed"]
    weights = Weights.compressed_tensors(wide[:, ::2], numpy.asfortranarray(stored["weight_scale"]))
    check(layer, describe(layer, 32), weights, rng)


def test_partition_that_starts_inside_a_group_is_viewed_in_the_whole(quantized, rng):
    layer = quantized(k=128, group_size=32)
    stored = {name: kernelry._arrays.array(value, name)
              for name, value in layer.compressed_tensors().items()}
    linear = Linear(in_features=48, out_features=40, group_size=32, x_type="f32",
                    full_in_features=128, k_offset=48)
    assert linear.starts_inside_group and linear.groups == 2
    weights = Weights(View(stored["weight_packed"], element_bits=4, j_begin=48),
                      View(stored["weight_scale"], j_begin=1))
    layer.codes, layer.g_idx = layer.codes[:, 48:96], layer.g_idx[48:96]
    check(layer, linear, weights, rng)


@pytest.mark.parametrize("change,words", [
    ({"weight_packed": lambda a: a.T}, r"qweight is int32 \[12, 40\], expected \[40, 12\]"),
    ({"weight_packed": lambda a: a[:, :-1]}, r"expected \[40, 12\]"),
    ({"weight_packed": lambda a: a.astype(numpy.int64)}, "int64.*expected int32"),
    ({"weight_packed": lambda a: a[:, ::-1]}, "negative"),
    ({"weight_packed": lambda a: a.astype(">i4")}, "byte order"),
    ({"weight_packed": lambda a: "words"}, "weight_packed is str"),
    ({"weight_packed": lambda a: None}, "weight_packed is NoneType"),
    ({"weight_scale": lambda a: a.T}, r"scales is float32 \[3, 40\]"),
    ({"weight_scale": lambda a: a.astype(numpy.float16)}, "the description says f32"),
    ({"weight_scale": lambda a: a.astype(numpy.float64)}, "float64.*expected float16"),
    ({"weight_zero_point": lambda a: None}, "zero_points are missing"),
    ({"weight_zero_point": lambda a: a[:-1]}, r"expected \[5, 3\]"),
])
def test_tensor_that_does_not_fit_is_refused_by_name(quantized, change, words):
    layer = quantized(zeros=True)
    stored = layer.compressed_tensors()
    for name, how in change.items():
        stored[name] = how(stored[name])
    with pytest.raises(kernelry.ArgumentError, match=words):
        Layer(describe(layer, 32), Weights.compressed_tensors(**stored))


@pytest.mark.parametrize("stored", [numpy.float32, numpy.float16])
@pytest.mark.parametrize("asked", ["f16", "bf16", "f32"])
def test_scales_of_another_type_are_the_same_where_they_are_exact(quantized, rng, stored, asked):
    layer = quantized(zeros=True, scale_type=stored)  # exact in each
    for weights in (Weights.compressed_tensors(**layer.compressed_tensors()),
                    Weights.gptq(**layer.gptq())):
        check(layer, describe(layer, 32, scale_type=asked), weights.with_scale_type(asked), rng)


@pytest.mark.parametrize("asked,value", [("f16", 0.1), ("bf16", 0.1), ("f16", 70000.0),
                                         ("f16", 1e-9), ("bf16", 1 + 2**-8)])
def test_scale_that_is_not_exact_is_not_rounded(quantized, asked, value):
    layer = quantized()
    layer.scales[7, 2] = value
    made = Layer(describe(layer, 32, scale_type=asked))
    weights = Weights.compressed_tensors(**layer.compressed_tensors())
    with pytest.raises(kernelry.ArgumentError, match=rf"scales\[7, 2\] is .*{asked} does not hold"):
        made.prepare(weights.with_scale_type(asked))
    with pytest.raises(kernelry.ArgumentError, match="expected one of"):
        weights.with_scale_type("f8")
    with pytest.raises(kernelry.ArgumentError, match="asked for f32"):
        made.prepare(weights.with_scale_type("f32"))


def test_zero_point_beyond_its_bits_is_refused(quantized):
    layer = quantized(zeros=True)
    zeros = layer.zeros.astype(numpy.uint8)
    zeros[3, 1] = 16
    stored = layer.compressed_tensors()
    weights = Weights.unpacked(stored["weight_packed"], layer.scales, zeros)
    with pytest.raises(kernelry.ArgumentError, match=r"zero_points\[3, 1\] is 16"):
        Layer(describe(layer, 32), weights)


class OnlyInterface:
    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self.owner = array


class OnlyDlpack:
    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **how):
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.mark.parametrize("wrap", [OnlyInterface, OnlyDlpack])
def test_arrays_of_other_makers_are_viewed(quantized, rng, wrap):
    layer = quantized()
    stored = {name: wrap(value) for name, value in layer.compressed_tensors().items()}
    x = rng.standard_normal((2, 96)).astype(numpy.float32)
    y = numpy.zeros((2, 40), numpy.float32)
    made = Layer(describe(layer, 32), Weights.compressed_tensors(**stored))
    made.apply(wrap(x), out=wrap(y))
    assert error_of(y, x @ layer.matrix.T) < 1e-5


def test_dlpack_that_fails_is_told_with_its_reason():
    class Broken:
        def __dlpack__(self):
            raise BufferError("requires grad")

        def __dlpack_device__(self):
            return (1, 0)

    with pytest.raises(kernelry.ArgumentError, match="Broken gives no view.*requires grad"):
        Weights.compressed_tensors(Broken(), Broken())
