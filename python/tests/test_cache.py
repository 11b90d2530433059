"""Prepared weights in files: saved, mapped, and what is not good noticed and made anew."""

import os
import pathlib
import resource
import subprocess
import sys

import numpy
import pytest
from conftest import error_of, run_python

import kernelry
from kernelry import Checkpoint, Layer, Linear, Status, Weights

LINEAR = Linear(in_features=96, out_features=40, group_size=32, x_type="f32")
UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"


@pytest.fixture
def saved(quantized, tmp_path):
    """The file of a layer, and what the layer gives."""
    layer = Layer(LINEAR, Weights.compressed_tensors(**quantized().compressed_tensors()))
    layer.save(tmp_path / "layer.kry", "weights 1")
    x = numpy.random.default_rng(6).standard_normal((3, 96)).astype(numpy.float32)
    return tmp_path / "layer.kry", x, layer(x)


def room_for(layer: Layer) -> numpy.ndarray:
    block = numpy.zeros(layer.sizes.prepared_bytes + 256, numpy.uint8)
    begin = -block.ctypes.data % 256
    return block[begin : begin + layer.sizes.prepared_bytes]


@pytest.mark.parametrize("how", [{}, {"copy": True}, {"verify": False}, {"prepared": True}])
def test_mapped_layer_gives_the_saved_ones_numbers(saved, how):
    path, x, y = saved
    layer = Layer(LINEAR)
    if how.get("prepared"):
        how = {"prepared": room_for(layer)}
    layer.map(path, "weights 1", **how)
    assert (layer(x) == y).all()
    if "prepared" in how:
        assert how["prepared"].any()
    layer.save(path.with_name("again.kry"), "weights 1")
    assert path.with_name("again.kry").read_bytes() == path.read_bytes()


def test_layers_share_a_file(saved, quantized):
    path, x, y = saved
    other = Layer(LINEAR, Weights.compressed_tensors(**quantized().compressed_tensors()))
    size = os.path.getsize(path)
    place = -(-size // 4096) * 4096
    other.save(path, "weights 2", offset=place)
    first, second = Layer(LINEAR), Layer(LINEAR)
    first.map(path, "weights 1", size=size)
    second.map(path, "weights 2", offset=place, size=size)
    assert (first(x) == y).all() and (second(x) == other(x)).all()


def test_mapped_layer_takes_other_weights(saved, quantized):
    path, x, _ = saved
    before = path.read_bytes()
    layer, other = Layer(LINEAR), quantized()
    layer.map(path, "weights 1")
    layer.prepare(Weights.compressed_tensors(**other.compressed_tensors()))
    assert error_of(layer(x), x @ other.matrix.T) < 1e-5
    assert path.read_bytes() == before


def spoil(path: pathlib.Path, at: int) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("harm,status,words", [
    (lambda path: path.unlink(), Status.NOT_FOUND, "layer.kry"),
    (lambda path: spoil(path, 4096 + 7), Status.FORMAT, "damaged"),
    (lambda path: os.truncate(path, 5000), Status.FORMAT, "damaged"),
    (lambda path: path.write_bytes(b"not a file of ours" * 300), Status.FORMAT, "no file of"),
    (lambda path: path.chmod(0o666), Status.TRUST, "written by anyone"),
    (lambda path: None, Status.STALE, "of weights 'weights 1', expected 'weights 2'"),
])
def test_file_that_is_no_good_is_refused_and_leaves_the_layer(saved, quantized, harm, status, words):
    path, x, _ = saved
    layer = Layer(LINEAR, Weights.compressed_tensors(**quantized().compressed_tensors()))
    y = layer(x)
    content = "weights 2" if status is Status.STALE else "weights 1"
    harm(path)
    with pytest.raises(kernelry.Error, match=words) as caught:
        layer.map(path, content)
    assert caught.value.status is status
    assert isinstance(caught.value, kernelry.NotFoundError) == (status is Status.NOT_FOUND)
    assert (layer(x) == y).all()
    if status is Status.TRUST:
        layer.map(path, content, relax_trust=True)


def test_file_of_another_description_is_foreign(saved):
    with pytest.raises(kernelry.Error, match="foreign") as caught:
        Layer(Linear(in_features=96, out_features=48, group_size=32, x_type="f32")).map(
            saved[0], "weights 1")
    assert caught.value.status is Status.FOREIGN


@pytest.mark.parametrize("call,words", [
    (lambda layer, path: layer.map(path, None), "content is NoneType"),
    (lambda layer, path: layer.map(path, ""), "content"),
    (lambda layer, path: layer.map(path, "x" * 256), "content"),
    (lambda layer, path: layer.map(path, "naïve"), "printable ASCII"),
    (lambda layer, path: layer.map(path, "a\0b"), "zero byte"),
    (lambda layer, path: layer.map(7, "weights 1"), "path is int"),
    (lambda layer, path: layer.map("", "weights 1"), "path"),
    (lambda layer, path: layer.map(path, "weights 1", offset=-1), "offset is -1"),
    (lambda layer, path: layer.map(path, "weights 1", offset=100), "multiple of 4096"),
    (lambda layer, path: layer.map(path, "weights 1", size=1.5), "size is 1.5"),
    (lambda layer, path: layer.map(path, "weights 1", prepared=numpy.zeros(8)), "prepared has"),
    (lambda layer, path: layer.save(path, "weights 1", offset=5), "multiple of 4096"),
    (lambda layer, path: layer.save(path, b"weights 1"), "content is bytes"),
])
def test_argument_that_does_not_fit_is_refused(saved, call, words):
    layer = Layer(LINEAR)
    layer.map(saved[0], "weights 1")
    with pytest.raises(kernelry.ArgumentError, match=words):
        call(layer, saved[0])


def test_nothing_to_save_or_no_place_to_save_in(saved, tmp_path):
    with pytest.raises(kernelry.Error, match="no prepared weights") as caught:
        Layer(LINEAR).save(tmp_path / "other.kry", "weights 1")
    assert caught.value.status is Status.STATE
    layer = Layer(LINEAR)
    layer.map(saved[0], "weights 1")
    with pytest.raises(kernelry.FileError):
        layer.save(tmp_path / "absent" / "layer.kry", "weights 1")
    layer.close()
    for use in (layer.save, layer.map):
        with pytest.raises(kernelry.Error, match="the layer is closed"):
            use(saved[0], "weights 1")


# ---- a model's file --------------------------------------------------------------------------


def start(folder, cache, **options):
    """What a start of a server does, what became of its layers, and what they give."""
    checkpoint, told = Checkpoint(folder), []
    layers = {stored.name: Layer(stored.linear) for stored in checkpoint.layers}
    outcomes = kernelry.prepare(checkpoint, layers, cache=cache, warn=told.append, **options)
    y = {name: layer(numpy.ones((2, layer.linear.in_features), numpy.float32))
         for name, layer in layers.items()}
    return outcomes, told, y


def alike(a, b) -> bool:
    return all((a[name] == b[name]).all() for name in a)


def test_second_start_maps_what_the_first_has_saved(model, tmp_path):
    folder, cache = model[0], tmp_path / "cache"
    plain, _, expected = start(folder, None)
    assert set(plain.values()) == {"prepared"} and not cache.exists()
    for outcome in ("missing", "mapped", "mapped"):
        outcomes, told, y = start(folder, cache)
        assert outcomes == {UP: outcome, DOWN: outcome} and told == []
        assert alike(y, expected)
    assert len(list(cache.iterdir())) == 1


def test_command_and_package_share_their_files(model, tmp_path):
    folder, cache = model[0], tmp_path / "cache"
    command = pathlib.Path(sys.executable).with_name("kernelry")
    subprocess.run([command, "prepare", folder, "--cache", cache], check=True, capture_output=True)
    [file] = cache.iterdir()
    before = file.stat()
    outcomes, _, _ = start(folder, cache)
    assert set(outcomes.values()) == {"mapped"} and [*cache.iterdir()] == [file]
    assert file.stat().st_ino == before.st_ino  # not replaced
    file.unlink()
    start(folder, cache)
    done = subprocess.run([command, "prepare", folder, "--cache", cache], check=True,
                          capture_output=True, text=True)
    assert "2 mapped" in done.stdout


@pytest.mark.parametrize("harm,outcome,others", [
    (lambda file: spoil(file, 4096 + 3), "damaged", "mapped"),
    (lambda file: spoil(file, 100), "damaged", "mapped"),
    (lambda file: os.truncate(file, 0), "damaged", "damaged"),
    (lambda file: file.unlink(), "missing", "missing"),
])
def test_what_is_no_good_is_prepared_anew(model, tmp_path, harm, outcome, others):
    folder, cache = model[0], tmp_path / "cache"
    _, _, expected = start(folder, cache)
    [file] = cache.iterdir()
    harm(file)
    first, second = (stored.name for stored in Checkpoint(folder).layers)
    outcomes, told, y = start(folder, cache)
    assert outcomes == {first: outcome, second: others} and alike(y, expected)
    assert len(told) == sum(o == "damaged" for o in outcomes.values())
    assert all("prepared anew" in message for message in told)
    outcomes, told, y = start(folder, cache)
    assert set(outcomes.values()) == {"mapped"} and told == [] and alike(y, expected)
    assert [*cache.iterdir()] == [file]


def test_other_weights_make_it_stale(model, tmp_path):
    folder, cache = model[0], tmp_path / "cache"
    start(folder, cache)
    tensors = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(tensors[:-200] + bytes(200))
    outcomes, told, y = start(folder, cache)
    assert set(outcomes.values()) == {"stale"} and len(told) == 2
    assert alike(y, start(folder, None)[2])
    assert set(start(folder, cache, content="bytes")[0].values()) == {"stale"}  # another kind of key
    (folder / "model.safetensors").touch()
    assert set(start(folder, cache, content="bytes")[0].values()) == {"mapped"}


def test_cache_that_cannot_be_is_an_error(model, tmp_path):
    folder = model[0]
    (tmp_path / "file").write_text("")
    with pytest.raises(kernelry.FileError, match="cache cannot be used"):
        start(folder, tmp_path / "file")
    cache = tmp_path / "cache"
    start(folder, cache)
    cache.chmod(0o777)
    with pytest.raises(kernelry.Error) as caught:
        start(folder, cache)
    assert caught.value.status is Status.TRUST
    with pytest.raises(kernelry.NotFoundError):
        kernelry.prepare(Checkpoint(folder), {"nonesuch": Layer(LINEAR)})
    with pytest.raises(kernelry.ArgumentError, match="expected a Layer"):
        kernelry.prepare(Checkpoint(folder), {UP: LINEAR})
    with pytest.raises(kernelry.ArgumentError, match="files or bytes"):
        Checkpoint(folder).content(UP, how="name")


def test_failed_fill_leaves_the_file_as_it_was(model, tmp_path):
    folder, cache = model[0], tmp_path / "cache"
    start(folder, cache)
    [file] = cache.iterdir()
    spoil(file, 4096 + 3)
    before, (soft, hard) = file.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        with pytest.raises(kernelry.FileError, match="File too large"):
            start(folder, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [*cache.iterdir()] == [file] and file.read_bytes() == before


def test_failed_prepare_leaves_the_file_as_it_was(model, tmp_path, monkeypatch):
    folder, cache = model[0], tmp_path / "cache"
    start(folder, cache)
    [file] = cache.iterdir()
    os.truncate(file, 0)
    prepare, prepared = Layer.prepare, []

    def fail_second(self, weights):
        prepared.append(self)
        if len(prepared) == 2:
            raise kernelry.FileError("the second layer's weights are away")
        prepare(self, weights)

    monkeypatch.setattr(Layer, "prepare", fail_second)
    with pytest.raises(kernelry.FileError, match="are away"):
        start(folder, cache)
    assert [*cache.iterdir()] == [file] and file.read_bytes() == b""


def test_processes_share_the_memory_of_a_file(model, tmp_path):
    folder, cache = model[0], tmp_path / "cache"
    start(folder, cache)
    done = run_python(f"""
import kernelry, numpy
model = kernelry.Checkpoint({str(folder)!r})
layers = {{s.name: kernelry.Layer(s.linear) for s in model.layers}}
assert set(kernelry.prepare(model, layers, cache={str(cache)!r}).values()) == {{"mapped"}}
for layer in layers.values():
    layer(numpy.ones((1, layer.linear.in_features), numpy.float32))
inside, own, here = False, 0, 0
for line in open("/proc/self/smaps"):
    if "-" in line.split()[0] and ":" not in line.split()[0]:
        inside = {str(cache)!r} in line
    elif inside and line.startswith(("Private_Dirty", "Anonymous")):
        own += int(line.split()[1])
    elif inside and line.startswith("Rss"):
        here += int(line.split()[1])
assert here > 0 and own == 0, (here, own)
""")
    assert done.returncode == 0, done.stderr
