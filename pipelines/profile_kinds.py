"""The kinds of values a profile holds: what they look like, what they mean, and how a JSON Schema says so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from model.errors import UsageError
from model.sizes import parse_size, write_size

T = TypeVar("T")
V = TypeVar("V", covariant=True)

AUTO = "auto"
_WHOLE = re.compile(r"-?(0|[1-9][0-9]*)\Z", re.ASCII)
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,62}[A-Za-z0-9])?"
LABELS_MAX = 16
_SIZE = r"([0-9]+(\.[0-9]+)?|\.[0-9]+) *([KMGTkmgt]([iI][bB]?|[bB])?|[bB])"

Given = str | Sequence[str] | Mapping[str, str]
"""A value as it stands in a file: scalars are text there, whatever they mean."""


class Wrong(ValueError):
    """A value that will not do: why, and what would."""

    def __init__(self, code: str, why: str, hint: str = "") -> None:
        super().__init__(why)
        self.code = code
        self.hint = hint


class Kind(Protocol[V]):
    """How values of one kind are read. `parse` raises Wrong; `bounds` says in words what may be written."""

    @property
    def shape(self) -> str:
        """What stands in the file: "scalar", "list" or "mapping"."""
        ...

    def parse(self, given: Any) -> V: ...
    def written(self, value: Any) -> str: ...
    def schema(self) -> dict[str, Any]: ...
    @property
    def bounds(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number."""

    low: int
    high: int
    shape: str = "scalar"

    def parse(self, given: str) -> int:
        if not _WHOLE.match(given):
            raise Wrong("type", f"{given!r} is not a whole number", f"write one from {self.low} to {self.high}")
        if len(given) > 12 or not self.low <= int(given) <= self.high:
            only = f"write {self.low}" if self.low == self.high else f"write a number from {self.low} to {self.high}"
            raise Wrong("range", f"{given} is out of range", only)
        return int(given)

    def written(self, value: int) -> str:
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    @property
    def bounds(self) -> str:
        return f"{self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes, with a unit: a bare number is refused, because nobody can tell what was meant."""

    low: int
    high: int
    shape: str = "scalar"

    def parse(self, given: str) -> int:
        if given.strip().replace(".", "", 1).isdigit():
            raise Wrong("unit", f"{given} has no unit", f"write for example {given}MiB, or {given}B for bytes")
        try:
            size = parse_size(given)
        except ValueError as error:
            raise Wrong("type", str(error), f"write {self.bounds}") from None
        if not self.low <= size <= self.high:
            raise Wrong("range", f"{given} is out of range", f"write {self.bounds}")
        return size

    def written(self, value: int) -> str:
        return write_size(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": f"^{_SIZE}$", "examples": [write_size(self.low), write_size(self.high)]}

    @property
    def bounds(self) -> str:
        return f"{write_size(self.low)} to {write_size(self.high)}"


@dataclass(frozen=True, slots=True)
class PowerOfTwo(Size):
    """A size that is a power of two."""

    def parse(self, given: str) -> int:
        size = Size.parse(self, given)
        if size & (size - 1):
            raise Wrong("range", f"{given} is not a power of two", f"write for example {write_size(self.low)}")
        return size

    @property
    def bounds(self) -> str:
        return f"a power of two, {write_size(self.low)} to {write_size(self.high)}"


@dataclass(frozen=True, slots=True)
class Rate:
    """Bytes a second, by the clock if wanted; stays text, it is only checked here."""

    shape: str = "scalar"

    def parse(self, given: str) -> str:
        from repository.store.limits import parse_limit

        if given.startswith("@"):
            return given
        try:
            parse_limit(given)
        except UsageError as error:
            raise Wrong("type", str(error), error.hint) from None
        return given

    def written(self, value: str) -> str:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(@.+|.*([0-9]|unlimited).*)$", "examples": ["50Mbit", "unlimited"]}

    @property
    def bounds(self) -> str:
        return "50Mbit, 10MiB, `08:00-18:00 50Mbit, 200Mbit`, `@FILE`, `unlimited`"


@dataclass(frozen=True, slots=True)
class Choice:
    """One of some words."""

    words: tuple[str, ...]
    shape: str = "scalar"

    def parse(self, given: str) -> str:
        if given not in self.words:
            raise Wrong("choice", f"{given!r} is not one of {', '.join(self.words)}", closest(given, self.words))
        return given

    def written(self, value: str) -> str:
        return value

    def schema(self) -> dict[str, Any]:
        return {"enum": list(self.words)}

    @property
    def bounds(self) -> str:
        return ", ".join(self.words)


@dataclass(frozen=True, slots=True)
class Text:
    """Words for people, or a name: one line."""

    longest: int
    shape: str = "scalar"

    def parse(self, given: str) -> str:
        if not given.strip() or not given.isprintable() or len(given) > self.longest:
            raise Wrong("type", "not one line of printable text", f"write 1 to {self.longest} characters")
        return given

    def written(self, value: str) -> str:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": self.longest}

    @property
    def bounds(self) -> str:
        return f"up to {self.longest} characters"


@dataclass(frozen=True, slots=True)
class Names:
    """A list of some of these names, or a word for all of them."""

    names: tuple[str, ...]
    all: str = "all"
    shape: str = "list"

    def parse(self, given: str | Sequence[str]) -> tuple[str, ...]:
        if given == self.all:
            return self.names
        asked = given.strip("[]").split(",") if isinstance(given, str) else list(given)
        asked = [name.strip() for name in asked if name.strip()]
        for name in asked:
            if name not in self.names:
                raise Wrong("choice", f"{name!r} is not one of {', '.join(self.names)}", closest(name, self.names))
            if asked.count(name) > 1:
                raise Wrong("range", f"{name!r} stands there twice", "name it once")
        return tuple(name for name in self.names if name in asked)

    def written(self, value: Sequence[str]) -> str:
        return self.all if tuple(value) == self.names else f"[{', '.join(value)}]"

    def schema(self) -> dict[str, Any]:
        items = {"type": "array", "items": {"enum": list(self.names)}, "uniqueItems": True}
        return {"anyOf": [{"const": self.all}, items]}

    @property
    def bounds(self) -> str:
        return f"`{self.all}`, or a list of stages"


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of hosts and the values they must have."""

    shape: str = "mapping"

    def parse(self, given: Mapping[str, str]) -> dict[str, str]:
        if not isinstance(given, Mapping):
            raise Wrong("type", "labels are written as {label: value}", "write for example {disk: ssd}")
        if len(given) > LABELS_MAX:
            raise Wrong("range", f"{len(given)} labels", f"write at most {LABELS_MAX}")
        for word in (*given, *given.values()):
            if not re.fullmatch(_LABEL, word):
                raise Wrong("type", f"{word!r} is not a label", "write letters, digits, - _ . and at most 64 of them")
        return dict(given)

    def written(self, value: Mapping[str, str]) -> str:
        return "{" + ", ".join(f"{label}: {word}" for label, word in value.items()) + "}"

    def schema(self) -> dict[str, Any]:
        word = {"type": "string", "pattern": f"^{_LABEL}$"}
        return {
            "type": "object",
            "maxProperties": LABELS_MAX,
            "propertyNames": word,
            "additionalProperties": word,
        }

    @property
    def bounds(self) -> str:
        return "{label: value}"


def closest(given: str, words: Sequence[str]) -> str:
    """A hint with the word that was probably meant, or all there are."""
    from difflib import get_close_matches

    found = get_close_matches(given, words, 1, 0.6)
    return f"did you mean {found[0]!r}?" if found else f"write one of {', '.join(words)}"
