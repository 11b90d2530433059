"""The kernelry command that comes with the package, and `check`, which asks it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from typing import Any, Literal, NoReturn

from ._errors import Error, Status
from ._library import HERE

COMMAND = HERE / "bin" / "kernelry"


def main() -> NoReturn:
    """The entry point `kernelry`: this process becomes the command."""
    os.execv(COMMAND, ["kernelry", *sys.argv[1:]])


@dataclasses.dataclass(frozen=True)
class CheckRow:
    """Layers that share a description, and which kernel runs them. `finding` is "answered",
    "unsplit" or "undescribed"; `reason` tells of the latter two."""

    names: tuple[str, ...]
    layers: int
    split: Literal["column", "row", "replicated"]
    ranks: tuple[int, ...]
    finding: str
    outcome: Literal["fast", "slow", "none"]
    linear: dict[str, Any] | None
    kernel: str | None
    plugin: str | None
    reason: str
    candidates: tuple[dict[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Check:
    """Which kernel will run each layer of a model: as stored, and as serving stacks fuse them."""

    model: str
    device: dict[str, Any]
    ranks: int
    stored: tuple[CheckRow, ...]
    fused: tuple[CheckRow, ...]
    summary: dict[str, int]
    ok: bool
    _text: str = dataclasses.field(repr=False, compare=False, default="")

    def table(self) -> str:
        """As `kernelry check` shows it."""
        return self._text

    def __str__(self) -> str:
        return self._text


def _run(arguments: list[str]) -> str:
    """The command's output; 0 and 1 (no) are answers, else its sentence is raised."""
    try:
        done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        raise Error(f"{COMMAND} cannot be started: {error}. Reinstall the package",
                    Status.IO) from error
    if done.returncode not in (0, 1):
        lines = done.stderr.strip() or f"exit status {done.returncode}"
        status = {2: Status.ARGUMENT, 3: Status.FORMAT}.get(done.returncode, Status.IO)
        raise Error(lines, status)
    return done.stdout


def _row(row: dict[str, Any]) -> CheckRow:
    return CheckRow(tuple(row["names"]), row["layers"], row["split"], tuple(row["ranks"]),
                    row["finding"], row["outcome"], row.get("linear"), row.get("kernel"),
                    row.get("plugin"), row.get("reason") or "", tuple(row.get("candidates", ())))


def check(model: str | os.PathLike[str], *, device: str = "cpu", ranks: int = 1,
          allow_int8_activations: bool = False) -> Check:
    """Which kernel will run each layer of a model folder, before anything is loaded.

    `ranks` splits layers as tensor-parallel stacks do. It runs the package's own command, with
    this process's environment.
    """
    arguments = ["check", os.fspath(model), "--device", device, "--tp", str(ranks)]
    if allow_int8_activations:
        arguments += ["--allow", "int8"]
    found = json.loads(_run([*arguments, "--json"]))
    if "error" in found:
        raise Error(found["error"], Status.NOT_FOUND)
    return Check(os.fspath(model), found["device"], ranks, tuple(map(_row, found["stored"])),
                 tuple(map(_row, found["fused"])), found["summary"], found["ok"],
                 _run(arguments))
