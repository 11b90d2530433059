"""PyTorch: the operator, the module, whole models."""

import copy
import gc
import io
import pickle
import threading

import numpy
import pytest
from conftest import compressed_tensors_config, run_python, write_model

torch = pytest.importorskip("torch")

import kernelry
import kernelry.torch
from kernelry import Checkpoint, Linear
from kernelry.torch import Bound, QuantLinear, convert

BOUNDS = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 4e-3}
WORDS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
linear_op = torch.ops.kernelry.linear.default


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(2112)
    yield
    torch._dynamo.reset()


def tensors_of(stored) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in stored.compressed_tensors().items()}


@pytest.fixture
def make(quantized):
    """A module, and its matrix in float64."""
    def made(dtype=torch.float32, bias=True, scales=torch.float32, **how):
        stored = quantized(**how)
        tensors = tensors_of(stored)
        tensors["weight_scale"] = tensors["weight_scale"].to(scales)
        n, k = stored.codes.shape
        linear = Linear(in_features=k, out_features=n, group_size=how.get("group_size", 32),
                        weight_type="u4" if how.get("zeros") else "u4b8", x_type=WORDS[dtype],
                        scale_type=WORDS[scales])
        module = QuantLinear.from_tensors(linear, tensors,
                                          bias=torch.randn(n).to(dtype) if bias else None)
        return module, torch.from_numpy(stored.matrix)
    return made


def error_of(y, x, matrix, bias=None) -> float:
    expected = x.double() @ matrix.T + (bias.double() if bias is not None else 0)
    return ((y.double() - expected).norm() / expected.norm()).item()


# ---- the operator ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BOUNDS)
def test_operator_gives_the_product_for_every_shape_and_stride(make, dtype):
    module, matrix = make(dtype, k=96, n=40)
    wide = torch.randn(6, 4, 200).to(dtype)
    for x in (wide[0, 0, :96], wide[0, :, 3:99], wide[:, 1, :96], wide[..., :96],
              wide.transpose(0, 1)[..., :96], wide[:, :, ::2][..., :96], wide[0, :1, :96],
              wide[0, :1, :96].expand(3, 96)):
        y = linear_op(x, module.prepared, module.bias, 40)
        assert y.shape == (*x.shape[:-1], 40) and y.is_contiguous() and y.dtype == dtype
        assert error_of(y, x, matrix, module.bias) < BOUNDS[dtype]
    assert linear_op(wide[:0, 0, :96], module.prepared, None, 40).shape == (0, 40)


def test_opcheck_passes(make):
    module, _ = make()
    for bias in (None, module.bias):
        results = torch.library.opcheck(linear_op, (torch.randn(3, 96), module.prepared, bias, 40))
        assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize("call,words", [
    (lambda m, x: linear_op(x.half(), m.prepared, None, 40), "x is float16.*takes float32"),
    (lambda m, x: linear_op(x.long(), m.prepared, None, 40), "x is of another dtype"),
    (lambda m, x: linear_op(x[:, :95], m.prepared, None, 40), "95 features.*takes 96"),
    (lambda m, x: linear_op(x, m.prepared, None, 41), "out_features is 41, the layer has 40"),
    (lambda m, x: linear_op(x, m.prepared, m.bias[:39], 40), r"bias is not dense \[40\]"),
    (lambda m, x: linear_op(x, m.prepared, m.bias.half(), 40), "bias is float16"),
    (lambda m, x: linear_op(x[0, 0], m.prepared, None, 40), "0 dimensions"),
    (lambda m, x: linear_op(x, m.prepared[256:], None, 40), "belongs to no layer"),
    (lambda m, x: linear_op(x, torch.zeros(0), None, 40), "belongs to no layer"),
    (lambda m, x: linear_op(x, torch.zeros(4, dtype=torch.uint8), None, 40), "belongs to no layer"),
    (lambda m, x: linear_op(x.to("meta"), m.prepared, None, 40), "device|meta"),
])
def test_operand_that_does_not_fit_is_refused(make, call, words):
    module, _ = make()
    with pytest.raises(RuntimeError, match=words):
        call(module, torch.randn(2, 96))


def test_prepared_weights_of_a_layer_that_is_gone_are_refused(make):
    module, _ = make()
    x, prepared = torch.randn(2, 96), module.prepared
    stays = prepared.clone()
    linear_op(x, stays, None, 40)
    del module
    gc.collect()
    for tensor in (prepared, stays):
        with pytest.raises(RuntimeError, match="belongs to no layer of this process"):
            linear_op(x, tensor, None, 40)


def test_threads_and_many_layers_find_their_own(make):
    made = [make(k=64, n=8 + i % 5, bias=False) for i in range(200)]
    del made[::3]
    problems = []

    def work():
        for module, matrix in made:
            x = torch.randn(2, 64)
            if error_of(module(x), x, matrix) > 1e-5:
                problems.append(module)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_pytorchs_threads_do_the_work(make):
    """torch.set_num_threads counts: the numbers are the same with each, whoever runs."""
    module, matrix = make(k=512, n=512)
    before, x = torch.get_num_threads(), torch.randn(32, 512)
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            assert error_of(module(x), x, matrix, module.bias) < 1e-5
    finally:
        torch.set_num_threads(before)


def test_fork_after_use_runs_in_the_child():
    done = run_python("""
import os, torch, kernelry, kernelry.torch
linear = kernelry.Linear(in_features=512, out_features=512, group_size=32, x_type="f32")
module = kernelry.torch.QuantLinear.from_tensors(linear, {
    "weight_packed": torch.full((512, 64), 0x12345678, dtype=torch.int32),
    "weight_scale": torch.ones(512, 16)})
x = torch.ones(64, 512)
y = module(x)
child = os.fork()
if child == 0:
    os._exit(0 if torch.equal(module(x), y) else 1)
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(module(x), y)
""")
    assert done.returncode == 0, done.stderr


# ---- graphs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_whole_gives_the_same(make, dtype):
    module, _ = make(dtype)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for m in (1, 3, 7):
        x = torch.randn(m, 96).to(dtype)
        assert torch.equal(compiled(x), module(x))


def test_blocks_that_look_alike_share_one_graph(make):
    """No number of this process is in the graph: another layer's weights need no new one."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    blocks = [make(k=96, n=96)[0] for _ in range(4)]

    def block(x, prepared, bias):
        return torch.relu(linear_op(x, prepared, bias, 96))

    compiled = torch.compile(block, fullgraph=True, backend=counter)
    x = torch.randn(2, 96)
    for module in blocks:
        expected = torch.relu(module(x))
        assert torch.equal(compiled(x, module.prepared, module.bias), expected)
    assert counter.frame_count == 1


def test_inductor_compiles_it_whole(make):
    module, _ = make()
    model = torch.nn.Sequential(module, torch.nn.GELU())
    try:
        y = torch.compile(model, fullgraph=True)(torch.ones(2, 96))
    except Exception as error:
        if "compiler" in str(error).lower():
            pytest.skip(f"inductor has no C++ compiler: {error}")
        raise
    torch.testing.assert_close(y, model(torch.ones(2, 96)), rtol=1e-4, atol=1e-5)


def test_exported_program_runs_what_the_module_runs(make):
    module, matrix = make()
    x = torch.randn(3, 96)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},))
    assert "kernelry.linear" in str(program.graph_module.code)
    for m in (2, 9):
        x = torch.randn(m, 96)
        assert torch.equal(program.module()(x), module(x))


def test_program_that_was_saved_says_that_it_holds_no_layer(make):
    module, _ = make()
    file = io.BytesIO()
    torch.export.save(torch.export.export(module, (torch.randn(2, 96),)), file)
    del module
    gc.collect()
    file.seek(0)
    with pytest.raises(RuntimeError, match="belongs to no layer of this process"):
        torch.export.load(file).module()(torch.randn(2, 96))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_brings_x_to_the_layers_type(make, dtype):
    module, matrix = make(dtype)
    x = torch.randn(3, 96)
    with pytest.raises(RuntimeError, match="under autocast"):
        module(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = module(x)
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")(x)
    assert y.dtype == dtype and torch.equal(y, compiled)
    assert torch.equal(y, module(x.to(dtype)))


# ---- the module ------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [False, True])
def test_state_goes_round(make, zeros):
    module, matrix = make(zeros=zeros)
    state = module.state_dict()
    assert set(state) == {"bias", "weight_packed", "weight_scale",
                          *(["weight_zero_point"] if zeros else [])}
    other = QuantLinear(module.linear, bias=True)
    with pytest.raises(kernelry.Error, match="no weights yet"):
        other(torch.randn(96))
    assert other.kernel is None
    other.load_state_dict(state)
    x = torch.randn(3, 96)
    assert torch.equal(other(x), module(x)) and other.kernel == module.kernel
    state["weight_packed"].zero_()  # what was loaded is its own
    assert other.state_dict()["weight_packed"].any()
    file = io.BytesIO()
    torch.save(other.state_dict(), file)
    file.seek(0)
    third = QuantLinear(module.linear, bias=True)
    third.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(third(x), other(x))


def test_loading_again_replaces_the_weights_in_place(make):
    (module, _), (other, matrix) = make(), make()
    address, x = module.prepared.data_ptr(), torch.randn(3, 96)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    assert not torch.equal(compiled(x), other(x))
    module.load_state_dict(other.state_dict())
    assert module.prepared.data_ptr() == address
    assert torch.equal(module(x), other(x)) and torch.equal(compiled(x), other(x))


@pytest.mark.parametrize("change,words", [
    (lambda s: s.pop("weight_scale"), "Missing key.*weight_scale"),
    (lambda s: s.update(weight_scale=s["weight_scale"][:-1]), r"scales is float32 \[39, 3\]"),
    (lambda s: s.update(weight_packed=s["weight_packed"].long()), "int64.*expected int32"),
    (lambda s: s.update(bias=torch.zeros(3)), "size mismatch for bias"),
    (lambda s: s.update(weight=torch.zeros(3)), "Unexpected key.*weight"),
])
def test_state_that_does_not_fit_is_refused(make, change, words):
    module, _ = make()
    state = module.state_dict()
    change(state)
    with pytest.raises(RuntimeError, match=words):
        QuantLinear(module.linear, bias=True).load_state_dict(state)


@pytest.mark.parametrize("format,version", [("gptq", 1), ("gptq_v2", 2), ("awq", 0)])
def test_formats_of_checkpoints_are_states(quantized, format, version):
    stored = quantized(zeros=True)
    tensors = stored.awq() if format == "awq" else stored.gptq(version)
    linear = Linear(in_features=96, out_features=40, group_size=32, weight_type="u4", x_type="f32")
    module = QuantLinear(linear, format=format)
    module.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    x = torch.randn(2, 96)
    assert error_of(module(x), x, torch.from_numpy(stored.matrix)) < 1e-5
    assert set(module.state_dict()) == set(tensors)


def test_copies_and_pickles_stand_alone(make):
    module, _ = make()
    x = torch.randn(3, 96)
    expected = module(x)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    del module
    gc.collect()
    for other in copies:
        assert torch.equal(other(x), expected)


def test_module_follows_its_dtype(make):
    module, matrix = make()
    x = torch.randn(3, 96)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        module.to(dtype)
        assert module.dtype == module.bias.dtype == dtype
        assert error_of(module(x.to(dtype)), x.to(dtype), matrix, module.bias) < BOUNDS[dtype]
    with pytest.raises(kernelry.ArgumentError, match="float64"):
        module.double()
    module.to("cpu").requires_grad_(False).eval()
    module.release_stored()
    module.to("cpu")
    for use in (module.state_dict, module.half, lambda: pickle.dumps(module.state_dict())):
        with pytest.raises(kernelry.Error, match="prepared weights alone"):
            use()


def test_scales_that_no_kernel_takes_become_xs_type_where_exact(make, model, monkeypatch):
    real = kernelry.torch.Layer

    def as_on_a_gpu(linear, **options):
        if linear.scale_type != linear.x_type:
            raise kernelry.NoKernelError("scales of another type")
        return real(linear, **options)

    (plain, matrix), x = make(torch.float16), torch.randn(3, 96).half()
    monkeypatch.setattr(kernelry.torch, "Layer", as_on_a_gpu)
    module = pickle.loads(pickle.dumps(plain))
    assert module._bound.layer.linear.scale_type == "f16" and module.linear.scale_type == "f32"
    assert error_of(module(x), x, matrix, module.bias) < BOUNDS[torch.float16]
    state = module.state_dict()
    assert state["weight_scale"].dtype == torch.float32
    state["weight_scale"][3, 1] = 0.1
    with pytest.raises(RuntimeError, match=r"scales\[3, 1\] is 0.1.*not rounded"):
        module.load_state_dict(state)
    stored = QuantLinear.from_checkpoint(Checkpoint(model[0]), "model.layers.0.mlp.up_proj",
                                         dtype=torch.bfloat16)
    assert stored._bound.layer.linear.scale_type == "bf16"
    y = stored(x.bfloat16())
    assert error_of(y, x.bfloat16(), torch.from_numpy(
        model[1]["model.layers.0.mlp.up_proj"].matrix), stored.bias) < BOUNDS[torch.bfloat16]


def test_module_that_cannot_be_is_refused(make):
    module, _ = make()
    with pytest.raises(kernelry.ArgumentError, match="format is 'marlin'"):
        QuantLinear(module.linear, format="marlin")
    with pytest.raises(kernelry.ArgumentError, match="expected cpu or cuda"):
        QuantLinear.from_tensors(module.linear, module._stored.tensors, device="meta")
    with pytest.raises(kernelry.ArgumentError, match="bias.*expected of compressed-tensors"):
        QuantLinear.from_tensors(module.linear, module.state_dict())
    with pytest.raises(kernelry.ArgumentError, match="modules have one type"):
        QuantLinear(Linear(in_features=96, out_features=40, x_type="f16", y_type="f32"))


# ---- whole models ----------------------------------------------------------------------------


class Mlp(torch.nn.Module):
    """Named as Hugging Face names them."""

    def __init__(self):
        super().__init__()
        self.up_proj = torch.nn.Linear(96, 40)
        self.down_proj = torch.nn.Linear(40, 96, bias=False)

    def forward(self, x):
        return self.down_proj(torch.relu(self.up_proj(x)))


class Model(torch.nn.Module):
    base_model_prefix = "model"

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.ModuleDict({"mlp": Mlp()})])
        self.norm = torch.nn.LayerNorm(96, bias=False)
        self.head = torch.nn.Linear(96, 4)

    def forward(self, x):
        return self.norm(x + self.layers[0]["mlp"](x))


@pytest.mark.parametrize("meta", [False, True])
def test_model_is_converted_in_place(model, meta):
    folder, layers, bias, tensors = model
    with torch.device("meta" if meta else "cpu"):
        net = Model()
    report = convert(net, str(folder), dtype=torch.float32)
    assert set(report.kernels) == {"layers.0.mlp.up_proj", "layers.0.mlp.down_proj"}
    assert report.loaded == ("norm.weight",)
    assert report.missing == ("head.bias", "head.weight")
    up, down = (torch.from_numpy(layers[f"model.layers.0.mlp.{name}_proj"].matrix)
                for name in ("up", "down"))
    x = torch.randn(3, 96)
    hidden = torch.relu(x.double() @ up.T + torch.from_numpy(bias).double()) @ down.T
    expected = torch.nn.functional.layer_norm(
        x.double() + hidden, (96,), torch.from_numpy(tensors["model.norm.weight"]).double())
    assert torch.allclose(net(x).double(), expected, rtol=1e-4, atol=1e-4)
    state = net.layers[0]["mlp"].state_dict()
    assert torch.equal(state["up_proj.weight_packed"], torch.from_numpy(
        tensors["model.layers.0.mlp.up_proj.weight_packed"]))
    state["up_proj.weight_packed"].zero_()  # no page of the file
    again = Model()
    convert(again, Checkpoint(folder))
    assert torch.equal(again.layers[0]["mlp"](x), net.layers[0]["mlp"](x))


def converted(folder, cache=None):
    net = Model()
    report = convert(net, str(folder), cache=cache)
    return net.layers[0]["mlp"], report.cached


def test_second_start_maps_a_models_weights(model, tmp_path):
    folder, cache, x = model[0], tmp_path / "cache", torch.randn(3, 96)
    plain, outcomes = converted(folder)
    assert set(outcomes.values()) == {"prepared"}
    for outcome in ("missing", "mapped"):
        mlp, outcomes = converted(folder, cache)
        assert outcomes == {"layers.0.mlp.up_proj": outcome, "layers.0.mlp.down_proj": outcome}
        assert torch.equal(mlp(x), plain(x))
    [file] = cache.iterdir()
    with open(file, "r+b") as stream:
        stream.seek(4096 + 3)
        stream.write(b"spoilt")
    with pytest.warns(UserWarning, match="damaged.*prepared anew"):
        mlp, outcomes = converted(folder, cache)
    assert sorted(outcomes.values()) == ["damaged", "mapped"] and torch.equal(mlp(x), plain(x))


EXPORTED = """
import sys, torch, kernelry.torch
folder, cache, file = sys.argv[1:]
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.up_proj, self.down_proj = torch.nn.Linear(96, 40), torch.nn.Linear(40, 96, bias=False)
    def forward(self, x):
        return self.down_proj(self.up_proj(x))
net = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.ModuleDict({"mlp": Model()})])})
net.base_model_prefix = "model"
found = kernelry.torch.convert(net, folder, cache=cache, dense=False).cached
mlp, x = net["layers"][0]["mlp"], torch.arange(192.0).reshape(2, 96) / 96
"""


def test_exported_program_finds_its_layers_in_another_process(model, tmp_path):
    arguments = [str(model[0]), str(tmp_path / "cache"), str(tmp_path / "program.pt2")]

    def run(source):
        done = run_python(f"import sys; sys.argv[1:] = {arguments!r}" + EXPORTED + source)
        assert done.returncode == 0, done.stderr

    run("""
assert set(found.values()) == {"missing"}
torch.export.save(torch.export.export(mlp, (x,)), file)
""")
    run("""
assert set(found.values()) == {"mapped"}
program = torch.export.load(file).module()
assert torch.equal(program(x), mlp(x))
# With other weights the layers are others: the program's are not here any more.
state = mlp.state_dict()
state["up_proj.weight_scale"] *= 2
mlp.load_state_dict(state)
try:
    program(x)
except RuntimeError as error:
    assert "belongs to no layer of this process" in str(error), error
else:
    raise SystemExit("ran with other weights")
""")


def test_mapped_module_is_a_module_like_others(model, tmp_path):
    folder, cache, x = model[0], tmp_path / "cache", torch.randn(3, 96)
    plain, _ = converted(folder)
    converted(folder, cache)
    mlp, outcomes = converted(folder, cache)
    assert set(outcomes.values()) == {"mapped"}
    expected, up = plain(x), mlp.up_proj
    # A head: the weights are the file's.
    assert up.prepared.numel() < plain.up_proj.prepared.numel()
    assert torch.equal(linear_op(x, up.prepared.clone(), up.bias, 40), plain.up_proj(x))
    assert torch.equal(torch.compile(mlp, fullgraph=True, backend="aot_eager")(x), expected)
    for other in (copy.deepcopy(mlp), pickle.loads(pickle.dumps(mlp))):
        assert torch.equal(other(x), expected)
    state, address = mlp.state_dict(), up.prepared.data_ptr()
    assert all(torch.equal(state[name], tensor) for name, tensor in plain.state_dict().items())
    state["up_proj.weight_scale"] *= 2
    before = [file.read_bytes() for file in cache.iterdir()]
    mlp.load_state_dict(state)
    plain.load_state_dict(state)
    assert torch.equal(mlp(x), plain(x)) and not torch.equal(mlp(x), expected)
    assert up.prepared.data_ptr() == address
    assert [file.read_bytes() for file in cache.iterdir()] == before
    mlp.half()
    assert mlp(x.half()).dtype == torch.float16


def test_model_that_does_not_fit_is_left_as_it_was(model, tmp_path):
    folder = model[0]
    net = Model()
    net.layers[0]["mlp"].up_proj = torch.nn.Linear(97, 40)
    with pytest.raises(kernelry.ArgumentError, match="96×40 in the checkpoint.*97×40"):
        convert(net, str(folder))
    assert isinstance(net.layers[0]["mlp"].down_proj, torch.nn.Linear)
    del net.layers[0]["mlp"].up_proj
    with pytest.raises(kernelry.ArgumentError, match="up_proj of the checkpoint is not there"):
        convert(net, str(folder))


def test_partitions_of_a_checkpoint_add_up(model):
    """Row-parallel: two ranks, the second starts inside a group; one of them adds the bias."""
    folder, layers, bias, _ = model
    name = "model.layers.0.mlp.up_proj"
    checkpoint, x = Checkpoint(folder), torch.randn(3, 96)
    ranks = [QuantLinear.from_checkpoint(checkpoint, name, k=part, bias=None if first else False)
             for first, part in ((True, slice(0, 48)), (False, slice(48, 96)))]
    assert ranks[0].bias is not None and ranks[1].bias is None
    y = ranks[0](x[:, :48]) + ranks[1](x[:, 48:])
    matrix = torch.from_numpy(layers[name].matrix)
    assert error_of(y, x, matrix, torch.from_numpy(bias)) < 1e-5
    with pytest.raises(kernelry.Error, match="is a partition"):
        ranks[0].state_dict()


# ---- CUDA ------------------------------------------------------------------------------------


def on_gpu() -> bool:
    return torch.cuda.is_available() and any(
        d.platform in ("cuda", "rocm") for d in kernelry.devices())


@pytest.mark.skipif(not on_gpu(), reason="no GPU with a plugin for it")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_captured_graph_gives_the_product_also_after_a_reload(make, dtype):
    (module, matrix), (other, again) = (
        make(dtype, scales=dtype, k=2048, n=256) for _ in range(2))
    module.to("cuda")
    x = torch.randn(2, 2048, device="cuda").to(dtype)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        module(x)
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = module(x)
    for product, source in ((matrix, None), (again, other)):
        if source is not None:
            module.load_state_dict(source.state_dict())
        x.normal_()
        graph.replay()
        torch.cuda.synchronize()
        assert error_of(y.cpu(), x.cpu(), product, module.bias.cpu()) < BOUNDS[dtype]
    copied = linear_op(x, module.prepared.clone(), module.bias, 256)
    assert torch.equal(copied, module(x))


@pytest.mark.skipif(not on_gpu(), reason="no GPU with a plugin for it")
def test_operator_works_on_the_current_stream(make):
    module, matrix = make(torch.float16, scales=torch.float16, k=2048, n=2048)
    module.to("cuda")
    stream = torch.cuda.Stream()
    x = torch.zeros(64, 2048, device="cuda", dtype=torch.float16)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x.normal_()
        y = module(x)
    stream.synchronize()
    assert error_of(y.cpu(), x.cpu(), matrix, module.bias.cpu()) < 1e-3


@pytest.mark.skipif(not on_gpu(), reason="no GPU with a plugin for it")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_second_start_on_a_gpu_maps_weights_whose_scales_it_converted(model, tmp_path, dtype):
    """The checkpoint's scales are of one type, so one of the two is converted."""
    x = torch.randn(3, 96).to(dtype)
    plain = Model().to(dtype)
    convert(plain, str(model[0]))
    outputs = []
    for outcome in ("missing", "mapped"):
        net = Model().to("cuda", dtype)
        report = convert(net, str(model[0]), cache=tmp_path / "cache")
        assert set(report.cached.values()) == {outcome}
        outputs.append(net.layers[0]["mlp"](x.to("cuda")).cpu())
    assert torch.equal(*outputs)
    expected = plain.layers[0]["mlp"](x).double()
    assert (outputs[0].double() - expected).norm() / expected.norm() < 2 * BOUNDS[dtype]
