"""The C library: the package's own copy, loaded once, its statuses made exceptions.

Calls through cffi release the GIL; the sentence of a failed one is the thread's own.
"""

from __future__ import annotations

import os
import pathlib
import sys
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from ._errors import Error, Status, error_of

_Self = TypeVar("_Self", bound="Closing")

HERE = pathlib.Path(__file__).resolve().parent
LIBRARY = HERE / "lib" / "libkernelry.so.0"

try:
    from ._api import ffi  # written when the wheel is built
except ModuleNotFoundError as missing:
    if missing.name != f"{__package__}._api":
        raise ImportError(
            f"kernelry needs {missing.name}, which is not installed: `pip install cffi`"
        ) from missing
    raise ImportError(
        "kernelry was not built: install it with `pip install ./python` and import it from there, "
        f"not from its sources ({HERE})"
    ) from missing


def _others_mapped() -> list[str]:
    """Files of other copies of the library that this process has loaded already."""
    found = set()
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[5].rstrip("\n") if line.count("/") else ""
            if os.path.basename(path).startswith("libkernelry.so"):
                found.add(path)
    return sorted(path for path in found if os.path.realpath(path) != str(LIBRARY))


class Functions:
    """The functions of a library, looked up when they are used.

    cffi's own object looks for all that are declared when it is asked for its __dict__, as those
    do who walk over a process's modules (vLLM does); each of our libraries has a part of them.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._loaded = ffi.dlopen(str(path), ffi.RTLD_NOW | ffi.RTLD_LOCAL)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        function = getattr(self._loaded, name)
        setattr(self, name, function)
        return function


def _load(path: pathlib.Path) -> Any:
    try:
        return Functions(path)
    except OSError as error:
        raise ImportError(
            f"kernelry cannot load its library: {error}. Reinstall the package; a wheel that was "
            "made on this machine needs libjansson4 and libpcre2-8-0 (Debian's names)"
        ) from error


def _load_all() -> tuple[Any, Any]:
    # The checkpoint library finds the core by its soname: another copy would be taken for ours,
    # and layers of one would be handed to the other.
    others = _others_mapped()
    if others:
        raise ImportError(
            f"this process has loaded another copy of Kernelry, {others[0]}, and can have one: "
            f"import kernelry first and let the others use {LIBRARY}, or run them apart"
        )
    return _load(LIBRARY), _load(LIBRARY.with_name("libkernelry-checkpoint.so.0"))


lib, checkpoint_lib = _load_all()


def text(value: Any) -> str:
    """A C string, or array of chars, as str; NULL as ''."""
    return ffi.string(value).decode("utf-8", "replace") if value != ffi.NULL else ""


def call(status: int) -> None:
    """Raise what a failed call left behind."""
    if status != 0:
        raise error_of(status, text(lib.kry_error_message()))


_pointed_to: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def new(name: str, **fields: Any) -> Any:
    """A zeroed struct with its size set, which keeps what its fields point to."""
    struct = ffi.new(f"{name} *")
    struct.struct_size = ffi.sizeof(name)
    for field, value in fields.items():
        setattr(struct, field, value)
    _pointed_to[struct] = fields
    return struct


def formatted(function: Any, *arguments: Any) -> str:
    """The text of a C function that writes as snprintf does."""
    size = function(*arguments, ffi.NULL, 0) + 1
    out = ffi.new("char[]", size)
    function(*arguments, out, size)
    return text(out)


_is_finalizing = sys.is_finalizing  # modules are emptied before the last objects go


class Handle:
    """A pointer of the C library with its end.

    Whoever uses it holds it, so that closing the object around it in one thread ends it after the
    last call of another. At the interpreter's end nothing is ended: threads may still be at work,
    and the process's end does it.
    """

    __slots__ = ("pointer", "_end", "_keep", "__weakref__")

    def __init__(self, pointer: Any, end: Any, keep: Any = None) -> None:
        self.pointer = pointer
        self._end = end
        self._keep = keep  # what the pointer's object refers to

    def __del__(self) -> None:
        if self.pointer is not None and _is_finalizing is not None and not _is_finalizing():
            address = ffi.new(f"{ffi.typeof(self.pointer).cname}*", self.pointer)
            self.pointer = None
            self._end(address)


class Closing:
    """What `with` ends by its close()."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_LEVELS = {1: "error", 2: "warning", 3: "info", 4: "debug"}


def log_callback(log: Callable[[str, str], None]) -> Any:
    """A kry_host's log that calls log(level, message); keep it as long as C may call it."""
    def forward(_context: Any, level: int, message: Any) -> None:
        log(_LEVELS.get(level, "debug"), text(message))

    return ffi.callback("void(void *, int32_t, const char *)", forward)


def alive(handle: Handle | None, what: str) -> Handle:
    if handle is None:
        raise Error(f"the {what} is closed: make another", Status.STATE)
    return handle


def version() -> str:
    """The release of the C library."""
    return text(lib.kry_version())
