"""Decisions: the chosen kernel and, for each other candidate, why not."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from ._library import Handle, call, ffi, formatted, lib, new, text
from ._linear import Linear, linear_of

Verdict = Literal["chosen", "accepts", "refuses"]
_VERDICTS = {1: "chosen", 2: "accepts", 3: "refuses"}


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why a kernel says no: a code for programs, a sentence for people."""

    code: str
    found: int
    needed: int
    reason: str


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A kernel of the device's platform and its answer. `refusal` is of the description as it
    stands, `rewritten_refusal` of the rewrite that the core tried."""

    kernel: str
    plugin: str
    priority: int
    fallback: bool
    verdict: Verdict
    padding_bytes: int
    refusal: Refusal | None
    rewritten_refusal: Refusal | None

    @property
    def reason(self) -> str:
        """Why it refuses; "" where it accepts."""
        if self.verdict != "refuses":
            return ""
        first = self.refusal.reason if self.refusal else ""
        again = self.rewritten_refusal.reason if self.rewritten_refusal else first
        return first if again == first else f"{first}; with groups split: {again}"


@dataclasses.dataclass(frozen=True)
class Decision:
    """What was decided for a description on a device."""

    device: str
    chosen: Candidate | None
    candidates: tuple[Candidate, ...]
    asked: Linear
    decided: Linear
    rewrite: Literal["none", "split_groups"]
    rewrite_bytes: int

    @property
    def kernel(self) -> str | None:
        """The chosen kernel's name."""
        return self.chosen.kernel if self.chosen else None

    @property
    def outcome(self) -> Literal["fast", "slow", "none"]:
        """`slow` is the platform's fallback."""
        if self.chosen is None:
            return "none"
        return "slow" if self.chosen.fallback else "fast"

    @property
    def refusals(self) -> tuple[Candidate, ...]:
        return tuple(c for c in self.candidates if c.verdict == "refuses")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def table(self) -> str:
        """The candidates in their order, as `kernelry explain` shows them."""
        verdicts = {"chosen": "runs it", "accepts": "accepts", "refuses": "refuses"}
        rows: list[tuple[str, ...]] = [
            ("#", "KERNEL", "PLUGIN", "PRIORITY", "VERDICT", "WHY")]
        for rank, c in enumerate(self.candidates, 1):
            priority = f"{c.priority} (fallback)" if c.fallback else str(c.priority)
            rows.append((str(rank), c.kernel, c.plugin, priority, verdicts[c.verdict], c.reason))
        lines = [f"{self.asked} on {self.device}", *columns(rows)]
        if self.chosen is None:
            lines.append("  No kernel can run it.")
        else:
            slow = ", the fallback: a slow path" if self.chosen.fallback else ""
            lines.append(f"  {self.chosen.kernel} runs it{slow}.")
        if self.rewrite != "none":
            lines.append(f"  Groups of {self.asked.group_size} are split to "
                         f"{self.decided.group_size} ({self.rewrite_bytes} bytes more).")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def columns(rows: list[tuple[str, ...]]) -> list[str]:
    """Rows of text, aligned."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
            for row in rows]


def _refusal(struct: Any) -> Refusal | None:
    if struct == ffi.NULL:
        return None
    return Refusal(text(lib.kry_refusal_code_string(struct.code)), struct.found, struct.needed,
                   formatted(lib.kry_refusal_format, struct))


def _candidate(decision: Any, index: int) -> Candidate:
    c = new("kry_candidate")
    call(lib.kry_decision_candidate(decision, index, c))
    return Candidate(text(c.kernel), text(c.plugin), c.priority, bool(c.fallback),
                     _VERDICTS[c.verdict], c.padding_bytes,  # type: ignore[arg-type]
                     _refusal(c.refusal), _refusal(c.rewritten_refusal))


def decide(registry: Any, device: Any, device_name: str, linear: Linear) -> Decision:
    """Ask each kernel of the device's platform."""
    out = ffi.new("kry_decision **")
    call(lib.kry_decide(registry, device, linear.to_c(), out))
    handle = Handle(out[0], lib.kry_decision_destroy)
    info = new("kry_decision_info")
    call(lib.kry_decision_describe(handle.pointer, info))
    candidates = tuple(_candidate(handle.pointer, i) for i in range(info.candidate_count))
    return Decision(device_name, candidates[info.chosen] if info.chosen >= 0 else None, candidates,
                    linear_of(info.asked), linear_of(info.decided),
                    "split_groups" if info.rewrite == 1 else "none", info.rewrite_bytes)
