"""Exceptions: a status of the C library and the sentence behind it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._decision import Candidate, Decision


class Status(enum.IntEnum):
    """How a call of the C library ended (KRY_E_* of kernelry/types.h)."""

    ARGUMENT = 1
    MEMORY = 2
    IO = 3
    FORMAT = 4
    ABI = 5
    TRUST = 6
    DEPENDENCY = 7
    NO_KERNEL = 8
    DEVICE = 9
    WORKSPACE = 10
    PLUGIN = 11
    UNSUPPORTED = 12
    NOT_FOUND = 13
    STATE = 14
    FOREIGN = 15
    STALE = 16


class Error(Exception):
    """What went wrong, where, what was found and what was expected; `status` says of which kind."""

    status: Status = Status.STATE

    def __init__(self, message: str, status: Status | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status


class ArgumentError(Error, ValueError):
    """An argument is wrong: a type, a shape, a stride, a device."""

    status = Status.ARGUMENT


class OutOfMemoryError(Error, MemoryError):
    """An allocation failed."""

    status = Status.MEMORY


class FileError(Error, OSError):
    """The system refused to open, read, map or write a file."""

    status = Status.IO


class NotFoundError(Error, LookupError):
    """No plugin, kernel, device, layer or tensor of that name."""

    status = Status.NOT_FOUND


class NoKernelError(Error):
    """No kernel can implement a description: `refusals` has every candidate with its reason."""

    status = Status.NO_KERNEL

    def __init__(self, message: str, decision: Decision | None = None) -> None:
        super().__init__(message)
        self.decision = decision

    @property
    def refusals(self) -> tuple[Candidate, ...]:
        return self.decision.candidates if self.decision is not None else ()


_CLASSES: dict[Status, type[Error]] = {
    cls.status: cls
    for cls in (ArgumentError, OutOfMemoryError, FileError, NotFoundError, NoKernelError)
}


def error_of(status: int, message: str) -> Error:
    """The exception for a status of the C library."""
    try:
        known = Status(status)
    except ValueError:
        return Error(f"{message} (status {status})")
    cls = _CLASSES.get(known)
    return cls(message) if cls is not None else Error(message, known)
