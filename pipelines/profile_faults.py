"""Faults of profiles and where they are; and what a profile's text is before anybody knows what it means."""

from __future__ import annotations

from dataclasses import dataclass

SIZE_MAX = 64 << 10  # bytes of a profile


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: in a file, or on the command line; line and column from 1, 0 if there are none."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a profile, or (`warning`) what will not do what it seems to."""

    place: Place
    code: str
    reason: str
    hint: str = ""
    warning: bool = False

    def fields(self) -> dict[str, object]:
        """The same for JSON."""
        place = self.place
        severity = "warning" if self.warning else "error"
        return {"file": place.file, "line": place.line, "column": place.column, "severity": severity,
                "code": self.code, "reason": self.reason, "hint": self.hint}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as text, whatever it means."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Items:
    """A list."""

    nodes: tuple[Tree, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Pairs:
    """A mapping, in the order in which it is written."""

    pairs: tuple[tuple[Scalar, Tree], ...]
    place: Place


Tree = Scalar | Items | Pairs
