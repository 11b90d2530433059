"""Kernelry's place among vLLM's kernels."""

import pytest

pytest.importorskip("vllm")

from kernelry.vllm import _place, register
from kernelry.vllm._kernel import KernelryLinearKernel

LISTS = _place.kernels._POSSIBLE_KERNELS


@pytest.fixture(autouse=True)
def restored():
    before = {platform: list(kernels) for platform, kernels in LISTS.items()}
    yield
    for platform, kernels in before.items():
        LISTS[platform][:] = kernels


def names(platform):
    return [kernel.__name__ for kernel in LISTS[getattr(_place.PlatformEnum, platform)]]


@pytest.mark.parametrize("position,index", [("first", 0), ("last", -1),
                                            ("before:CPUWNA16LinearKernel", -2)])
def test_kernel_takes_the_place_once(monkeypatch, position, index):
    monkeypatch.setenv(_place.VARIABLE, position)
    for _ in range(3):
        register()
    assert names("CPU")[index] == "KernelryLinearKernel"
    assert names("CPU").count("KernelryLinearKernel") == 1


def test_default_is_last_on_each_platform(monkeypatch):
    monkeypatch.delenv(_place.VARIABLE, raising=False)
    register()
    for platform in ("CPU", "CUDA", "ROCM"):
        assert names(platform)[-1] == "KernelryLinearKernel"


def test_name_of_one_platform_places_there_and_last_elsewhere(monkeypatch):
    monkeypatch.setenv(_place.VARIABLE, "before:MarlinLinearKernel")
    register()
    cuda = names("CUDA")
    assert cuda.index("KernelryLinearKernel") == cuda.index("MarlinLinearKernel") - 1
    assert names("CPU")[-1] == "KernelryLinearKernel"


@pytest.mark.parametrize("position", ["second", "before:", "before:NoSuchKernel", "FIRST"])
def test_unknown_position_is_refused(monkeypatch, position):
    monkeypatch.setenv(_place.VARIABLE, position)
    with pytest.raises(ValueError, match="KERNELRY_VLLM_POSITION"):
        _place.register_kernel()


def test_compiled_graphs_of_another_position_are_not_found(monkeypatch):
    from vllm import envs

    keys = []
    for position in ("first", "last", "first"):
        monkeypatch.setenv(_place.VARIABLE, position)
        register()
        keys.append(envs.compile_factors())
    assert keys[0] == keys[2] != keys[1]


def test_vllm_finds_the_plugin():
    from vllm.plugins import load_plugins_by_group

    assert load_plugins_by_group("vllm.general_plugins")["kernelry"] is register


def test_int8_activations_are_allowed_by_a_variable_alone(monkeypatch):
    import torch
    from vllm.model_executor.kernels.linear import MPLinearLayerConfig
    from vllm.scalar_type import scalar_types

    from kernelry.vllm import _kernel

    asked = MPLinearLayerConfig((256, 64), (256, 64), scalar_types.uint4b8, torch.float16, 64, False)
    assert not _kernel.describe(asked).allow_int8_activations
    monkeypatch.setenv(_kernel.INT8_VARIABLE, "1")
    assert _kernel.describe(asked).allow_int8_activations


def test_descriptions_outside_of_kernelry_are_refused_with_the_reason():
    import torch
    from vllm.model_executor.kernels.linear import MPLinearLayerConfig
    from vllm.scalar_type import scalar_types

    def ask(**changed):
        fields = {"full_weight_shape": (256, 64), "partition_weight_shape": (256, 64),
                  "weight_type": scalar_types.uint4b8, "act_type": torch.float16,
                  "group_size": 64, "zero_points": False, **changed}
        return KernelryLinearKernel.can_implement(MPLinearLayerConfig(**fields))

    assert ask() == (True, None)
    for changed, word in (({"weight_type": scalar_types.uint3b4}, "uint3b4"),
                          ({"weight_type": scalar_types.uint4}, "without zero points"),
                          ({"act_type": torch.float8_e4m3fn}, "float8"),
                          ({"out_type": torch.float32}, "outputs of torch.float32"),
                          ({"group_size": 0}, "group_size")):
        accepted, reason = ask(**changed)
        assert not accepted and word in reason
