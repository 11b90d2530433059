"""vLLM generates with Kernelry inside: models of every kind, in one process."""

import dataclasses
import json
import pathlib
import shutil

import pytest

pytest.importorskip("vllm")

import checkpoints
import torch
from checkpoints import Model
from engine import TOKENS, Generated, generate, same_tokens

from kernelry.vllm import _place

KERNELS = _place.kernels._POSSIBLE_KERNELS[_place.PlatformEnum.CPU]


@dataclasses.dataclass(frozen=True)
class Case:
    """A checkpoint; `vllm_runs`: vLLM's own kernel accepts its layers."""

    model: Model
    method: str = "compressed-tensors"
    group_size: int = 64
    zero_points: bool = False
    vllm_runs: bool = True
    actorder: str = ""


ODD = Model(intermediate=200, hidden=208, heads=2, kv_heads=1, head_size=32)
CASES = {
    "aligned": Case(Model()),
    "2112": Case(Model(intermediate=2112, family="gemma")),
    "zero_points": Case(Model(), zero_points=True),
    "gptq": Case(Model(), "gptq"),
    "awq": Case(Model(), "awq"),
    "actorder": Case(Model(), zero_points=True, vllm_runs=False, actorder="group"),
    "static": Case(Model(), actorder="static"),
    "odd": Case(ODD, group_size=8, vllm_runs=False),
    "short_group": Case(ODD, zero_points=True, vllm_runs=False),
}


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory):
    """Checkpoints, made when they are asked for."""
    root, made = tmp_path_factory.mktemp("models"), {}

    def write(name: str) -> pathlib.Path:
        case, folder = CASES[name], root / name
        dense = checkpoints.write_dense(case.model, root / f"{name}-dense")
        if case.actorder:
            checkpoints.write_ordered(dense, folder, case.group_size, case.actorder,
                                      case.zero_points)
        elif case.method == "compressed-tensors":
            options = ["--group-size", str(case.group_size), *["--asym"] * case.zero_points]
            checkpoints.write_compressed_tensors(dense, folder, *options)
        else:
            checkpoints.write_packed(dense, folder, case.method, case.group_size)
        checkpoints.write_dequantized(folder, root / f"{name}-exact", case.group_size)
        return folder

    def find(name: str) -> pathlib.Path:
        if name not in made:
            made[name] = write(name)
        return made[name]

    return find


@pytest.fixture
def position(monkeypatch):
    """Sets KERNELRY_VLLM_POSITION for the models to come."""
    before = list(KERNELS)

    def put(value: str) -> None:
        monkeypatch.setenv(_place.VARIABLE, value)
        _place.register_kernel()

    yield put
    KERNELS[:] = before


LAYERS = [f"model.layers.{i}.{name}" for i in range(2) for name in
          ("self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj")]


@pytest.fixture(scope="session")
def exact(folder_of):
    """What the dense model that a checkpoint stands for generates, by vLLM's own linears."""
    made: dict[str, Generated] = {}

    def find(name: str) -> Generated:
        folder = folder_of(name)
        if name not in made:
            made[name] = generate(folder.with_name(f"{name}-exact"), "float32")
        # No model that stutters, nor one that hardly prefers any token.
        assert len({token for tokens in made[name].tokens for token in tokens}) > 8
        assert sum(margin > 0.1 for row in made[name].margins for margin in row) > TOKENS
        return made[name]

    return find


@pytest.mark.parametrize("name", [n for n in CASES if n != "odd"])  # short_group is as odd
def test_method_of_its_own_generates_what_the_exact_model_does(folder_of, exact, name):
    ours = generate(folder_of(name), "float32", quantization="kernelry")
    assert ours.kernels == dict.fromkeys(LAYERS, "KernelryLinearKernel")
    assert same_tokens(ours, exact(name), tie=1e-4)


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.vllm_runs])
def test_first_position_runs_each_layer_in_float16(folder_of, exact, position, name):
    position("first")
    ours = generate(folder_of(name), "float16")
    assert ours.kernels == dict.fromkeys(LAYERS, "KernelryLinearKernel")
    assert same_tokens(ours, exact(name), tie=0.05)  # float16 rounds between layers


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.vllm_runs])
def test_float16_generates_what_vllms_own_kernel_does(folder_of, position, name):
    if not hasattr(torch.ops._C, "cpu_gemm_wna16"):
        pytest.skip("vLLM has no W4A16 kernel for a processor without AVX-512")
    folder = folder_of(name)
    position("last")
    theirs = generate(folder, "float16")
    assert set(theirs.kernels.values()) == {"CPUWNA16LinearKernel"}
    position("before:CPUWNA16LinearKernel")
    ours = generate(folder, "float16")
    assert set(ours.kernels.values()) == {"KernelryLinearKernel"}
    assert same_tokens(ours, theirs, tie=0.01)


def test_last_position_leaves_vllms_kernels_what_they_take(folder_of, exact, position):
    position("last")
    aligned = generate(folder_of("aligned"), "float16", run=False)
    assert set(aligned.kernels.values()) == {"CPUWNA16LinearKernel"}
    odd = generate(folder_of("odd"), "float16")
    assert odd.kernels == dict.fromkeys(LAYERS, "KernelryLinearKernel")
    assert same_tokens(odd, exact("odd"), tie=0.05)


def test_traced_model_generates_as_the_eager_one_does(folder_of, exact, position, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_CI_ENV", "1")  # traced by Dynamo as a whole, compiled by nobody
    monkeypatch.setenv("VLLM_DISABLE_COMPILE_CACHE", "1")
    position("first")
    ours = generate(folder_of("aligned"), "float32", enforce_eager=False)
    assert set(ours.kernels.values()) == {"KernelryLinearKernel"}
    assert same_tokens(ours, exact("aligned"), tie=1e-4)


def test_odd_shapes_fail_without_kernelry(folder_of, position, monkeypatch):
    monkeypatch.setenv("VLLM_DISABLED_KERNELS", "KernelryLinearKernel")
    with pytest.raises(ValueError, match="multiples of 32"):
        generate(folder_of("odd"), "float16", run=False)


def test_activation_order_is_refused_without_the_method(folder_of):
    with pytest.raises(ValueError, match="no longer supported"):
        generate(folder_of("actorder"), "float16", run=False)


def test_layer_is_logged_once_with_its_kernel(folder_of, caplog):
    generate(folder_of("aligned"), "float16", quantization="kernelry", run=False)
    lines = [r.getMessage() for r in caplog.records if "layers.1.mlp.down_proj" in r.getMessage()]
    assert len(lines) == 1
    assert "(512×256 u4b8 g64 f16) runs on" in lines[0]


def test_checkpoint_asks_for_the_method_by_name(folder_of, tmp_path):
    folder = tmp_path / "asks"
    shutil.copytree(folder_of("short_group"), folder)
    text = (folder / "config.json").read_text()
    asks = text.replace('"quant_method": "compressed-tensors"', '"quant_method": "kernelry"')
    assert asks != text
    (folder / "config.json").write_text(asks)
    assert generate(folder, "float16", run=False).kernels == dict.fromkeys(
        LAYERS, "KernelryLinearKernel")


def test_checkpoint_of_another_method_is_refused(folder_of, tmp_path):
    config = json.loads((folder_of("aligned") / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "activation_scheme": "dynamic"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="kernelry"):
        generate(tmp_path, "float16", run=False, quantization="kernelry")
