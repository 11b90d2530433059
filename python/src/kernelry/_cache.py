"""A folder of prepared weights: a file a model, whose layers are mapped while they are good and
prepared anew when they are not. `kernelry prepare --cache` fills and reads the same files."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from ._checkpoint import Checkpoint
from ._errors import ArgumentError, Error, FileError, Status
from ._layer import Layer
from ._library import Closing, Handle, alive, call, checkpoint_lib, ffi, new

Outcome = Literal["prepared", "mapped", "missing", "damaged", "foreign", "stale"]

# What preparing anew mends; other errors are the caller's to see.
_MENDED: dict[Status, Outcome] = {Status.NOT_FOUND: "missing", Status.FORMAT: "damaged",
                                  Status.FOREIGN: "foreign", Status.STALE: "stale"}


@dataclasses.dataclass
class Part:
    """A layer on its way to weights: map takes path, content, offset and size as keywords."""

    name: str
    layer: Layer
    content: str
    prepare: Callable[[], None]
    map: Callable[..., None]


class Cache(Closing):
    """The file of one model in a folder, beside which a new one is made where layers are not good."""

    def __init__(self, folder: str | os.PathLike[str], model: str, parts: Iterable[Part],
                 warn: Callable[[str], None]) -> None:
        self.parts, self.warn = list(parts), warn
        try:
            os.makedirs(folder, mode=0o755, exist_ok=True)
        except OSError as error:
            raise FileError(f"{folder}: the cache cannot be used: {error}") from error
        out = ffi.new("kry_checkpoint_cache **")
        call(checkpoint_lib.kry_checkpoint_cache_open(os.fsencode(folder), os.fsencode(model), out))
        self._handle: Handle | None = Handle(out[0], checkpoint_lib.kry_checkpoint_cache_close)
        for part in self.parts:
            call(checkpoint_lib.kry_checkpoint_cache_add(
                out[0], part.name.encode(), alive(part.layer._handle, "layer").pointer))

    def fill(self, part: Part) -> Outcome:
        """Map a layer's weights, or prepare and save them."""
        cache, name = alive(self._handle, "cache").pointer, part.name.encode()
        found, place = new("kry_map_args"), new("kry_save_args")
        call(checkpoint_lib.kry_checkpoint_cache_find(cache, name, found))
        try:
            part.map(path=ffi.string(found.path), content=part.content, offset=found.offset,
                     size=found.bytes)
            return "mapped"
        except Error as error:
            outcome = _MENDED.get(error.status)
            if outcome is None:
                raise
            if outcome != "missing":
                self.warn(f"{error}; layer '{part.name}' is prepared anew")
        part.prepare()
        call(checkpoint_lib.kry_checkpoint_cache_renew(cache, name, place))
        part.layer.save(ffi.string(place.path), part.content, offset=place.offset)
        return outcome

    def commit(self) -> None:
        """Let the new file, if there is one, take its place as a whole."""
        call(checkpoint_lib.kry_checkpoint_cache_commit(alive(self._handle, "cache").pointer))

    def close(self) -> None:
        """What was not committed is removed."""
        self._handle = None


def fill_all(folder: str | os.PathLike[str], model: str, parts: Iterable[Part],
             warn: Callable[[str], None]) -> dict[str, Outcome]:
    """Give every layer its weights, from a folder where they are good there."""
    with Cache(folder, model, parts, warn) as cache:
        outcomes = {part.name: cache.fill(part) for part in cache.parts}
        cache.commit()
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
