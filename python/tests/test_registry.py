"""What was found, what is decided, and how that is told."""

import json
import signal

import pytest

import kernelry
from kernelry import Layer, Linear, Registry

LINEAR = Linear(in_features=2112, out_features=64, group_size=64, x_type="f32")


def test_registry_finds_the_packages_own_plugins():
    registry = Registry(environment=False)
    plugins = {plugin.name: plugin for plugin in registry.plugins}
    assert {"cpu_reference", "cpu_platform"} <= plugins.keys()
    assert plugins["cpu_reference"].state == "loaded"
    package = kernelry.__file__.rsplit("/", 1)[0]
    assert registry.search_path == (f"{package}/lib/kernelry/plugins",)
    kernels = registry.kernels("cpu")
    assert kernels[-1].name == "reference" and kernels[-1].fallback
    assert registry.kernels("nonesuch") == ()


@pytest.mark.parametrize("probe", [False, True])
def test_plugins_are_tried_in_processes_of_their_own_when_asked_for(probe):
    children = []
    before = signal.signal(signal.SIGCHLD, lambda number, _: children.append(number))
    try:
        registry = Registry(environment=False, probe=probe)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert {"cpu_reference", "cpu_platform"} <= {
        plugin.name for plugin in registry.plugins if plugin.state == "loaded"}
    assert bool(children) == probe


def test_devices_begin_with_this_cpu():
    device, *_ = kernelry.devices()
    assert device.platform == "cpu" and not device.hypothetical and device.multiprocessors > 0
    there = kernelry.default_registry().device("cuda:sm_90")
    assert there.hypothetical and there.arch == "sm_90" and str(there) == "cuda:sm_90"


@pytest.mark.parametrize("name,error", [("nonesuch", kernelry.NotFoundError),
                                        ("", kernelry.ArgumentError),
                                        (3, kernelry.ArgumentError)])
def test_device_that_is_not_here_is_an_error(name, error):
    with pytest.raises(error):
        kernelry.default_registry().device(name)


def test_decision_tells_every_candidate_with_its_reason():
    decision = kernelry.explain(LINEAR)
    assert decision.kernel == decision.chosen.kernel
    assert decision.candidates[-1].kernel == "reference"
    for refusal in decision.refusals:
        assert refusal.refusal.code != "none" and refusal.reason in decision.table()
    assert f"{decision.kernel} runs it" in str(decision)
    assert json.loads(json.dumps(decision.to_dict()))["asked"]["in_features"] == 2112


def test_options_change_the_order():
    first = Registry(prefer=["reference"]).decide(LINEAR)
    assert first.kernel == "reference" and first.outcome == "slow"
    assert "reference" not in {k.name for k in Registry(disable=["reference"]).kernels()}
    kernels = Registry(priority={"reference": 7}).kernels("cpu")
    assert next(k for k in kernels if k.name == "reference").priority == 7
    bare = Registry(cpu_features=[])
    assert bare.devices()[0].cpu_features == "none"
    assert bare.decide(LINEAR).kernel == "reference"


@pytest.mark.parametrize("options,words", [
    ({"disable": "reference"}, "expected several"),
    ({"cpu_features": ["avx9000"]}, "avx9000"),
    ({"plugin_paths": [""]}, r"plugin_paths\[0\] is empty"),
])
def test_option_that_is_wrong_is_refused(options, words):
    with pytest.raises(kernelry.ArgumentError, match=words):
        Registry(**options)


def test_no_kernel_carries_the_refusals():
    registry = Registry(disable=["reference"], cpu_features=[])
    with pytest.raises(kernelry.NoKernelError) as caught:
        Layer(LINEAR, registry=registry)
    assert caught.value.status is kernelry.Status.NO_KERNEL
    # What needs features that are masked is not loaded, and the error says so.
    assert "no plugin serves platform 'cpu'" in str(caught.value)
    with pytest.raises(kernelry.NoKernelError) as caught:
        Layer(Linear(in_features=2112, out_features=64, required_features=1 << 50))
    assert caught.value.refusals and caught.value.refusals[-1].kernel == "reference"
    assert all(c.refusal.code == "feature" or c.reason for c in caught.value.refusals)


def test_registry_without_plugins_says_what_to_do():
    with pytest.raises(kernelry.NoKernelError, match="no plugin was loaded.*KERNELRY_PLUGIN_PATH"):
        Layer(LINEAR, registry=Registry(default_directory=False, environment=False))


def test_closed_registry_says_so():
    registry = Registry()
    with registry:
        device = registry.device("cpu")
    for use in (lambda: registry.plugins, lambda: registry.kernels(), lambda: registry.devices(),
                lambda: registry.decide(LINEAR, device), lambda: registry.search_path,
                lambda: Layer(LINEAR, registry=registry), lambda: registry.device("cpu")):
        with pytest.raises(kernelry.Error, match="the registry is closed: make another"):
            use()


@pytest.mark.parametrize("change,words", [
    ({"in_features": 0}, "in_features"), ({"in_features": 1 << 70}, "beyond"),
    ({"in_features": -1}, "in_features"), ({"in_features": 2.5}, "whole number"),
    ({"in_features": True}, "whole number"), ({"group_size": 0}, "group_size"),
    ({"weight_type": "u5"}, "u5.*u4b8, u4, u8b128, u8"), ({"x_type": None}, "x_type is None"),
    ({"activation_quantization": "fp4"}, "fp4"), ({"k_offset": 5}, "k_offset|full_in_features"),
])
def test_description_that_cannot_be_is_refused_by_field(change, words):
    with pytest.raises(kernelry.ArgumentError, match=words):
        Linear(**{"in_features": 64, "out_features": 64, "group_size": 32, **change})


def test_description_fills_in_what_is_left_out():
    linear = Linear(in_features=1056, out_features=8, group_size=64, full_in_features=2112,
                    k_offset=1056)
    assert (linear.scale_type, linear.y_type, linear.full_out_features) == ("bf16", "bf16", 8)
    assert linear.groups == 17 and linear.starts_inside_group
    assert str(linear) == "1056×8 u4b8 g64 bf16 from k 1056 of 2112 (inside a group)"
    assert hash(linear) == hash(Linear(in_features=1056, out_features=8, group_size=64,
                                       full_in_features=2112, k_offset=1056))
