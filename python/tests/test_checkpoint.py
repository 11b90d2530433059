"""Checkpoints: layers, partitions, damaged files; `check`, which asks the command."""

import gc

import numpy
import pytest
from conftest import compressed_tensors_config, error_of, write_model

import kernelry
from kernelry import Checkpoint, Layer


def test_layers_of_a_model_are_described_and_run(model, rng):
    folder, layers, bias, _ = model
    checkpoint = Checkpoint(folder)
    assert [layer.name for layer in checkpoint.layers] == sorted(layers)
    for stored in checkpoint.layers:
        assert stored.method == "compressed-tensors" and stored.linear.x_type == "f32"
        weights = checkpoint.weights(stored.name)
        x = rng.standard_normal((3, stored.linear.in_features)).astype(numpy.float32)
        expected = x.astype(numpy.float64) @ layers[stored.name].matrix.T
        assert stored.has_bias == (weights.bias is not None)
        if stored.has_bias:
            assert weights.bias_dtype == "F32" and (weights.bias == bias).all()
            expected += bias
        assert error_of(Layer(weights.linear, weights)(x, bias=weights.bias), expected) < 1e-5


def test_partition_inside_a_group_is_its_columns_of_the_product(model, rng):
    folder, layers, _, _ = model
    name = "model.layers.0.mlp.up_proj"
    checkpoint = Checkpoint(folder)
    weights = checkpoint.weights(name, n=slice(8, 24), k=slice(48, 96))
    assert weights.linear == checkpoint.linear(name, n=slice(8, 24), k=slice(48, 96))
    assert weights.linear.starts_inside_group
    x = rng.standard_normal((2, 48)).astype(numpy.float32)
    expected = x.astype(numpy.float64) @ layers[name].matrix[8:24, 48:96].T
    assert error_of(Layer(weights.linear, weights)(x), expected) < 1e-5


def test_tensors_are_views_that_outlive_their_checkpoint(model):
    folder, _, _, tensors = model
    checkpoint = Checkpoint(folder)
    assert [tensor.name for tensor in checkpoint.tensors] == sorted(tensors)
    view = checkpoint.tensor("model.norm.weight")
    weights = checkpoint.weights("model.layers.0.mlp.down_proj")
    checkpoint.close()
    del checkpoint
    gc.collect()
    assert (view.array == tensors["model.norm.weight"]).all() and not view.array.flags.writeable
    assert Layer(weights.linear, weights)(numpy.ones(40, numpy.float32)).shape == (96,)


def test_closed_checkpoint_says_so(model):
    with Checkpoint(model[0]) as checkpoint:
        pass
    with pytest.raises(kernelry.Error, match="the checkpoint is closed"):
        checkpoint.layers


@pytest.mark.parametrize("call,error,words", [
    (lambda c: c.weights("model.layers.0.mlp.up_prj"), kernelry.NotFoundError, "up_proj"),
    (lambda c: c.tensor("nonesuch"), kernelry.NotFoundError, "nonesuch"),
    (lambda c: c.weights("model.layers.0.mlp.up_proj", k=slice(90, 200)), kernelry.ArgumentError,
     "200"),
    (lambda c: c.weights("model.layers.0.mlp.up_proj", k=slice(4, 2)), kernelry.ArgumentError,
     "k is slice"),
    (lambda c: c.weights("model.layers.0.mlp.up_proj", n=slice(0, 8, 2)), kernelry.ArgumentError,
     "n is slice"),
])
def test_name_or_slice_that_is_not_there_is_refused(model, call, error, words):
    with pytest.raises(error, match=words):
        call(Checkpoint(model[0]))


def test_weights_of_another_layer_are_refused(model):
    checkpoint = Checkpoint(model[0])
    layer = Layer(checkpoint.layer("model.layers.0.mlp.up_proj").linear)
    with pytest.raises(kernelry.ArgumentError, match="in_features is 96, these weights have 40"):
        layer.prepare(checkpoint.weights("model.layers.0.mlp.down_proj"))


def test_folder_that_is_none_and_damaged_file_are_errors(model, tmp_path):
    with pytest.raises(kernelry.FileError, match="nonesuch"):
        Checkpoint(tmp_path / "nonesuch")
    file = model[0] / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(kernelry.Error) as caught:
        Checkpoint(model[0])
    assert caught.value.status is kernelry.Status.FORMAT


def test_warnings_reach_the_log(tmp_path, quantized):
    layer = quantized()
    layer.scales[1, 2] = numpy.nan
    tensors = {f"up.{name}": value for name, value in layer.compressed_tensors().items()}
    lines = []
    checkpoint = Checkpoint(write_model(tmp_path / "m", tensors, compressed_tensors_config()),
                            log=lambda level, message: lines.append((level, message)))
    checkpoint.weights("up")
    assert any(level == "warning" and "NaN" in message for level, message in lines)


def test_check_lists_every_layer_with_its_kernel(model):
    check = kernelry.check(model[0], ranks=2)
    assert check.ok and check.ranks == 2 and check.summary["layers"] == len(model[1])
    rows = {row.names: row for row in check.stored}
    assert all(row.outcome == "fast" or row.kernel == "reference" for row in rows.values())
    inside = [row for row in check.stored if row.linear["starts_inside_group"]]
    assert inside and inside[0].split == "row"
    assert "down_proj" in check.table() and "rank" in str(check)


def test_check_of_no_model_or_device_says_what_is_wrong(model, tmp_path):
    with pytest.raises(kernelry.Error, match="nonesuch"):
        kernelry.check(tmp_path / "nonesuch")
    with pytest.raises(kernelry.Error, match="nonesuch"):
        kernelry.check(model[0], device="nonesuch")
