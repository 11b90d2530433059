"""A folder of prepared weights: a file a model, whose layers are mapped while they are good and
prepared anew when they are not. `kernelry prepare --cache` fills and reads the same files."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import string
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from ._checkpoint import Checkpoint
from ._errors import ArgumentError, Error, FileError, Status
from ._layer import Layer
from ._library import alive, call, ffi, lib, new

Outcome = Literal["prepared", "mapped", "missing", "damaged", "foreign", "stale"]

# What preparing anew mends; other errors are the caller's to see.
_MENDED: dict[Status, Outcome] = {Status.NOT_FOUND: "missing", Status.FORMAT: "damaged",
                                  Status.FOREIGN: "foreign", Status.STALE: "stale"}
HEADER = 4096  # KRY_SAVED_HEADER
_GOOD = frozenset((string.ascii_letters + string.digits + "._-").encode())


@dataclasses.dataclass
class Part:
    """A layer on its way to weights: map takes path, content, offset and size as keywords."""

    name: str
    layer: Layer
    content: str
    prepare: Callable[[], None]
    map: Callable[..., None]
    offset: int = 0
    saved: bool = False

    @property
    def size(self) -> int:
        return HEADER + self.layer.sizes.prepared_bytes

    @property
    def end(self) -> int:
        return self.offset + -(-self.size // HEADER) * HEADER


def hash_of(text: str, layer: Layer, seed: int = 0) -> int:
    """Goes on with a text, a layer's layout and its description as the kernel takes it."""
    pointer = alive(layer._handle, "layer").pointer
    info = new("kry_kernel_info")
    call(lib.kry_layer_kernel(pointer, info))
    version = ffi.new("uint32_t *", info.layout_version)
    linear = lib.kry_layer_linear(pointer, 1)
    name, layout = text.encode(), ffi.string(info.layout_name)
    for data, size in ((name, len(name)), (version, 4), (layout, len(layout)),
                       (linear, ffi.sizeof("kry_linear"))):
        seed = lib.kry_hash64(ffi.from_buffer(data) if isinstance(data, bytes) else data, size,
                              seed)
    return seed


class Cache:
    """The file of one model in a folder, beside which a new one is made where layers are not good.

    What was there stays whole until the new one, with the good layers too, takes its place.
    """

    def __init__(self, folder: str | os.PathLike[str], model: str, parts: Iterable[Part],
                 warn: Callable[[str], None]) -> None:
        self.parts, self.warn = list(parts), warn
        end = seed = 0
        for part in self.parts:
            seed = hash_of(part.name, part.layer, seed)
            part.offset = end
            end = part.end
        name = os.path.basename(os.path.realpath(model)).encode(errors="surrogateescape")
        clean = bytes(c if c in _GOOD else ord("_") for c in name[:127]).decode()
        os.makedirs(folder, mode=0o755, exist_ok=True)
        self.path = os.path.join(os.fspath(folder), f"{clean}.{seed:016x}.kry")
        self._new: tuple[int, str] | None = None  # descriptor and path

    def _save(self, part: Part) -> None:
        if self._new is None:
            self._new = tempfile.mkstemp(".tmp", os.path.basename(self.path) + ".",
                                         os.path.dirname(self.path))
            os.truncate(self._new[0], self.parts[-1].end)  # zeros until something is saved there
        part.layer.save(self._new[1], part.content, offset=part.offset)
        part.saved = True

    def fill(self, part: Part) -> Outcome:
        """Map a layer's weights, or prepare and save them."""
        try:
            part.map(path=self.path, content=part.content, offset=part.offset, size=part.size)
            return "mapped"
        except Error as error:
            outcome = _MENDED.get(error.status)
            if outcome is None:
                raise
            if outcome != "missing":
                self.warn(f"{error}; layer '{part.name}' is prepared anew")
        part.prepare()
        self._save(part)
        return outcome

    def _copy_good(self, to: int) -> None:
        """What is wrong with a layer that is copied shows when it is mapped."""
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as old:
            for part in self.parts:
                at = os.lseek(to, part.offset, os.SEEK_SET)
                while not part.saved and at < part.offset + part.size:
                    sent = os.sendfile(to, old.fileno(), at, part.offset + part.size - at)
                    if sent == 0:
                        break
                    at += sent

    def finish(self) -> None:
        """Let the new file, if there is one, take its place as a whole."""
        if self._new is None:
            return
        descriptor, path = self._new
        self._copy_good(descriptor)
        os.fchmod(descriptor, 0o644)  # for its owner alone to write: mapping trusts no other
        os.fsync(descriptor)
        os.replace(path, self.path)

    def close(self) -> None:
        if self._new is not None:
            os.close(self._new[0])
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._new[1])
            self._new = None


def fill_all(folder: str | os.PathLike[str], model: str, parts: Iterable[Part],
             warn: Callable[[str], None]) -> dict[str, Outcome]:
    """Give every layer its weights, from a folder where they are good there."""
    try:
        cache = Cache(folder, model, parts, warn)
        try:
            outcomes = {part.name: cache.fill(part) for part in cache.parts}
            cache.finish()
        finally:
            cache.close()
    except OSError as error:
        if isinstance(error, Error):
            raise
        raise FileError(f"{folder}: the cache cannot be used: {error}") from error
    return outcomes


def prepare(checkpoint: Checkpoint, layers: Mapping[str, Layer], *,
            cache: str | os.PathLike[str] | None = None, content: Literal["files", "bytes"] = "files",
            warn: Callable[[str], None] | None = None) -> dict[str, Outcome]:
    """Give layers, by their names in a checkpoint, their weights.

    With a cache they are mapped from a file in that folder, whose memory processes share, where
    it has them; others are prepared and saved there. Returns what became of each; warn(message)
    is called where a layer of the file was no good.

        layers = {stored.name: Layer(stored.linear) for stored in model.layers}
        kernelry.prepare(model, layers, cache="/var/cache/kernelry")
    """
    for name, layer in layers.items():
        if not isinstance(layer, Layer):
            raise ArgumentError(f"layers[{name!r}] is {type(layer).__name__}, expected a Layer")

    def part(name: str, layer: Layer) -> Part:
        return Part(name, layer, checkpoint.content(name, how=content),
                    lambda: layer.prepare(checkpoint.weights(name)), layer.map)

    if cache is None:
        for name, layer in layers.items():
            layer.prepare(checkpoint.weights(name))
        return dict.fromkeys(layers, "prepared")
    return fill_all(cache, checkpoint.path, [part(*item) for item in layers.items()],
                    warn or (lambda _message: None))
