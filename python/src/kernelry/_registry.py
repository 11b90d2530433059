"""The registry: which plugins were found, which kernels they bring, which devices are here."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from ._decision import Decision, decide
from ._errors import ArgumentError
from ._library import (
    LIBRARY, Closing, Handle, alive, call, ffi, formatted, lib, log_callback, new, text,
)
from ._linear import Linear

_STATES = {1: "loaded", 2: "refused", 3: "shadowed", 4: "disabled", 5: "not_a_plugin"}


@dataclasses.dataclass(frozen=True)
class PluginPlatform:
    """A platform that a plugin serves, as its note says."""

    name: str
    priority: int
    fallback: bool


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A file that could have been a plugin, and what became of it; `reason` says why not."""

    path: str
    name: str
    version: str
    state: Literal["loaded", "refused", "shadowed", "disabled", "not_a_plugin"]
    reason: str
    abi: tuple[int, int]
    kernel_count: int
    cpu_features: str
    platforms: tuple[PluginPlatform, ...]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel as registered, and the layout of its prepared weights."""

    name: str
    plugin: str
    platform: str
    summary: str
    layout_name: str
    layout_version: int
    priority: int
    fallback: bool
    deterministic: bool
    batch_invariant: bool
    int8_activations: bool


@dataclasses.dataclass(frozen=True)
class Device:
    """A device; ordinal -1 and `hypothetical` where it is only named."""

    platform: str
    arch: str
    name: str
    ordinal: int
    hypothetical: bool
    multiprocessors: int
    memory_bytes: int
    cpu_features: str
    _struct: Any = dataclasses.field(repr=False, compare=False, default=None)

    def __str__(self) -> str:
        if self.hypothetical and self.platform != "cpu":
            return f"{self.platform}:{self.arch}"
        which = f":{self.ordinal}" if self.ordinal > 0 else ""
        return f"{self.platform}{which}" + (f" ({self.name})" if self.name else "")


def kernel_of(struct: Any) -> Kernel:
    return Kernel(text(struct.kernel), text(struct.plugin), text(struct.platform),
                  text(struct.summary), text(struct.layout_name), struct.layout_version,
                  struct.priority, bool(struct.fallback), bool(struct.flags & 1),
                  bool(struct.flags & 2), bool(struct.flags & 4))


def _device_of(struct: Any) -> Device:
    features = formatted(lib.kry_cpu_features_format, struct.cpu_features)
    return Device(text(struct.platform), text(struct.arch), text(struct.name), struct.ordinal,
                  bool(struct.flags & 1), struct.multiprocessors, struct.memory_bytes,
                  features if text(struct.platform) == "cpu" else "", struct)


def _plugin_of(info: Any) -> Plugin:
    platforms = tuple(
        PluginPlatform(text(p.name), p.priority, bool(p.fallback))
        for p in info.platforms[0:info.platform_count])
    return Plugin(text(info.path), text(info.name), text(info.version),
                  _STATES[info.state],  # type: ignore[arg-type]
                  text(info.reason), (info.abi_major, info.abi_minor), info.kernel_count,
                  formatted(lib.kry_cpu_features_format, info.cpu_features), platforms)


@functools.cache
def _feature_bits() -> dict[str, int]:
    names = {formatted(lib.kry_cpu_features_format, 1 << bit): 1 << bit for bit in range(64)}
    return {name: bit for name, bit in names.items() if not name.startswith("0x")}


class _Options:
    """kry_registry_options with what it points to."""

    def __init__(self, options: dict[str, Iterable[str]]) -> None:
        self.struct = new("kry_registry_options")
        self.keep: list[Any] = []
        for field, values in options.items():
            if isinstance(values, (str, bytes, os.PathLike)):
                raise ArgumentError(f"{field} is {values!r}, expected several: [{values!r}]")
            strings = [ffi.new("char[]", os.fsencode(value)) for value in values]
            items = ffi.new("char *[]", strings)
            self.keep += [strings, items]
            setattr(self.struct, field, ffi.cast("char const *const *", items))
            count = {"plugin_paths": "plugin_path_count"}.get(field, f"{field}_count")
            setattr(self.struct, count, len(strings))


def _listed(struct: str, count: int, read: Callable[[int, Any], int]) -> Iterator[Any]:
    """Each of `count` structs, filled by its index."""
    for index in range(count):
        info = new(struct)
        call(read(index, info))
        yield info


class Registry(Closing):
    """An immutable snapshot of the plugins found and the kernels in their order.

    plugin_paths are directories and files that are searched before `KERNELRY_PLUGIN_PATH` and the
    package's own directory; disable, prefer and priority ({name: number}) name plugins and
    kernels; cpu_features are those that may be used, all by default. log(level, message) is
    called for each log line, from any thread. Layers outlive their registry.

    With probe each plugin is loaded and asked in a process of its own first; one that crashes, or
    takes more than probe_milliseconds (0: 10 seconds), is refused with the step it was at.
    """

    def __init__(
        self,
        *,
        plugin_paths: Iterable[str | os.PathLike[str]] = (),
        disable: Iterable[str] = (),
        prefer: Iterable[str] = (),
        priority: dict[str, int] | None = None,
        cpu_features: Iterable[str] | None = None,
        log: Callable[[str, str], None] | None = None,
        default_directory: bool = True,
        environment: bool = True,
        relax_trust: bool = False,
        probe: bool = False,
        probe_milliseconds: int = 0,
    ) -> None:
        options = _Options({
            "plugin_paths": plugin_paths,  # type: ignore[dict-item]
            "disable": disable,
            "prefer": prefer,
            "priority": [f"{name}={value}" for name, value in (priority or {}).items()],
        })
        struct = options.struct
        struct.flags = ((not default_directory) | (not environment) << 1 | relax_trust << 2
                        | probe << 3)
        struct.probe_milliseconds = probe_milliseconds
        if cpu_features is not None:
            # No bit at all would mean all of them: the highest stands for none of ours.
            struct.cpu_mask = self._mask(cpu_features) or 1 << 63
        self._log = log_callback(log) if log is not None else None
        if self._log is not None:
            struct.host = self._host = new("kry_host", log=self._log)
        out = ffi.new("kry_registry **")
        call(lib.kry_registry_open(struct, out))
        self._handle: Handle | None = Handle(out[0], lib.kry_registry_close, self._log)

    @staticmethod
    def _mask(features: Iterable[str]) -> int:
        mask = 0
        for name in features:
            if name not in _feature_bits():
                raise ArgumentError(f"cpu_features: {name!r} is unknown, expected of "
                                    f"{', '.join(_feature_bits())}")
            mask |= _feature_bits()[name]
        return mask

    def close(self) -> None:
        """Drop the registry; layers keep what they need of it."""
        self._handle = None

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Every file that was found, in the order of finding."""
        handle = alive(self._handle, "registry")  # kept, whoever closes meanwhile
        return tuple(_plugin_of(info) for info in _listed(
            "kry_plugin_info", lib.kry_registry_plugin_count(handle.pointer),
            lambda index, info: lib.kry_registry_plugin(handle.pointer, index, info)))

    @property
    def search_path(self) -> tuple[str, ...]:
        """The directories that were searched, in order."""
        handle = alive(self._handle, "registry")
        found: list[str] = []
        while (path := lib.kry_registry_search_path(handle.pointer, len(found))) != ffi.NULL:
            found.append(text(path))
        return tuple(found)

    def kernels(self, platform: str | None = None) -> tuple[Kernel, ...]:
        """Kernels of a platform (None: of all) in the order in which they are asked."""
        handle = alive(self._handle, "registry")  # kept, whoever closes meanwhile
        name = ffi.new("char[]", platform.encode()) if platform is not None else ffi.NULL
        return tuple(kernel_of(info) for info in _listed(
            "kry_kernel_info", lib.kry_registry_kernel_count(handle.pointer, name),
            lambda index, info: lib.kry_registry_kernel(handle.pointer, name, index, info)))

    def devices(self) -> tuple[Device, ...]:
        """Devices that are here: this CPU first."""
        handle = alive(self._handle, "registry")  # kept, whoever closes meanwhile
        return tuple(_device_of(device) for device in _listed(
            "kry_device", lib.kry_registry_device_count(handle.pointer),
            lambda index, device: lib.kry_registry_device(handle.pointer, index, device)))

    def device(self, name: str | Device = "cpu") -> Device:
        """A device by its name: "cpu", "cuda", "cuda:1", "cuda:sm_80" and "cpu:avx2"
        (hypothetical)."""
        if isinstance(name, Device):
            return name
        if not isinstance(name, str):
            raise ArgumentError(f"device is {name!r}, expected a name such as 'cpu' or 'cuda:0'")
        handle = alive(self._handle, "registry")
        device = new("kry_device")
        call(lib.kry_registry_find_device(handle.pointer, name.encode(), device))
        return _device_of(device)

    def decide(self, linear: Linear, device: str | Device = "cpu") -> Decision:
        """Which kernel runs a description, and why the others do not."""
        handle = alive(self._handle, "registry")
        found = self.device(device)
        decision = decide(handle.pointer, found._struct, str(found), linear)
        return decision

    def why_empty(self) -> str:
        """What to say when no plugin is there at all; "" when one is."""
        if any(plugin.state == "loaded" for plugin in self.plugins):
            return ""
        reasons = "; ".join(f"{p.path} {p.reason}" for p in self.plugins if p.reason)
        places = ", ".join(self.search_path) or str(LIBRARY.parent / "kernelry" / "plugins")
        return (f"no plugin was loaded from {places}" + (f" ({reasons})" if reasons else "")
                + ": reinstall the package or set KERNELRY_PLUGIN_PATH")


@functools.cache
def default_registry() -> Registry:
    """The registry that is used where none is given; opened once."""
    return Registry()
