"""The text of a profile, or of another file of settings, as a tree that remembers where everything stands: YAML without
what makes YAML dangerous.

Aliases, tags and several documents are refused; so are plain words that mean a truth value, a number in base 60, a date
or nothing at all to some readers of YAML and text to others. Every scalar stays text: what it means is the business of
the key it stands at. All faults are found, not just the first, unless the text is no YAML.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipelines.profile_faults import SIZE_MAX, Fault, Items, Pairs, Place, Scalar, Tree

DEPTH_MAX = 8  # of mappings and lists in each other
FAULTS_MAX = 50  # a text with more is not read on

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)\Z", re.ASCII)
_SECRET = re.compile(r"passw|passphrase|secret|token|credential|api_?key|access_?key|private_?key|recovery", re.I)
_LOGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s@]*:[^/\s@]+@", re.I)
_TAGS = {
    "bool": ("is a truth value to some readers of YAML and text to others", "quote it if text is meant"),
    "null": ("is nothing", "leave the key out, or write auto"),
    "timestamp": ("is a date to some readers of YAML", "quote it"),
    "merge": ("merging keys is not supported", "use extends"),
    "value": ("is no plain word in YAML", "quote it"),
    "float": ("is not a whole number", "sizes have units, 1.5GiB for example"),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differs between kinds of files: what one is called, a line to begin with, and what it may hold."""

    noun: str = "profile"
    begin: str = "version: 1"
    secrets: bool = False  # keys that sound like secrets
    words: frozenset[str] = frozenset()  # plain words that are no text: true, false, null


PROFILE = Dialect()


@dataclass(slots=True)
class _Reading:
    """One text while it is read."""

    file: str
    loader: Any  # yaml.SafeLoader, whose methods have no types
    dialect: Dialect = PROFILE
    faults: list[Fault] = field(default_factory=list)

    def place(self, mark: Any) -> Place:
        return Place(self.file, mark.line + 1, mark.column + 1)

    def fault(self, mark: Any, code: str, reason: str, hint: str = "") -> None:
        self.faults.append(Fault(self.place(mark), code, reason, hint))
        if len(self.faults) >= FAULTS_MAX:
            raise _Hopeless


class _Hopeless(Exception):
    """There is no point in reading on; what is wrong is among the faults."""


def read_tree(data: bytes, file: str, dialect: Dialect = PROFILE) -> tuple[Pairs | None, list[Fault]]:
    """The tree of a file's text, None if there is none, and what is wrong with it. `file` is what places call it."""
    if len(data) > SIZE_MAX:
        hint = f"a {dialect.noun} is a page or two"
        return None, [Fault(Place(file), "too-large", f"more than {SIZE_MAX >> 10} KiB", hint)]
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start)
        column = error.start - data.rfind(b"\n", 0, error.start)
        return None, [Fault(Place(file, line + 1, column), "syntax", "not UTF-8", "save it as UTF-8")]
    try:
        reading = _Reading(file, yaml.SafeLoader(text), dialect=dialect)
    except yaml.reader.ReaderError as error:
        line, column = text.count("\n", 0, error.position), error.position - text.rfind("\n", 0, error.position)
        return None, [Fault(Place(file, line + 1, column), "syntax", "a control character", "delete it")]
    return _document(reading)


def _document(reading: _Reading) -> tuple[Pairs | None, list[Fault]]:
    root, noun, hint = None, reading.dialect.noun, f"begin with {reading.dialect.begin}"
    try:
        _take(reading, yaml.StreamStartEvent)
        if reading.loader.check_event(yaml.StreamEndEvent):
            reading.fault(reading.loader.peek_event().start_mark, "empty", f"the {noun} is empty", hint)
            return None, reading.faults
        _take(reading, yaml.DocumentStartEvent)
        mark = reading.loader.peek_event().start_mark
        tree = _node(reading, 1)
        if isinstance(tree, Pairs):
            root = tree
        else:
            reading.fault(mark, "type", f"a {noun} is made of keys and values", hint)
        _take(reading, yaml.DocumentEndEvent)
        if not reading.loader.check_event(yaml.StreamEndEvent):
            reading.fault(
                reading.loader.peek_event().start_mark, "syntax", "a second document", "write one file for each"
            )
    except _Hopeless:
        root = None
    except yaml.MarkedYAMLError as error:
        root, mark = None, error.problem_mark or error.context_mark
        place = reading.place(mark) if mark is not None else Place(reading.file)
        problem = error.problem or error.context or "not YAML"
        hint = "indent with spaces" if "'\\t'" in problem else ""
        reading.faults.append(Fault(place, "syntax", problem, hint))
    return root, reading.faults


def _take(reading: _Reading, kind: type) -> Any:
    event = reading.loader.get_event()
    assert isinstance(event, kind), "the parser keeps to its grammar"
    return event


def _node(reading: _Reading, depth: int) -> Tree:
    event = reading.loader.get_event()
    if isinstance(event, yaml.AliasEvent):
        reading.fault(event.start_mark, "alias", f"*{event.anchor}: aliases are not supported", "write it out")
        return Scalar("", reading.place(event.start_mark))
    if event.anchor:
        reading.fault(event.start_mark, "alias", f"&{event.anchor}: anchors are not supported", "use extends")
    if event.tag and event.tag != "!":
        reading.fault(event.start_mark, "tag", f"tags are not supported: {event.tag[:60]}", "delete it")
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(reading, event)
    if depth > DEPTH_MAX:
        reading.fault(event.start_mark, "too-deep", f"more than {DEPTH_MAX} levels", "no key is that deep")
        raise _Hopeless
    place = reading.place(event.start_mark)
    if isinstance(event, yaml.SequenceStartEvent):
        nodes = []
        while not reading.loader.check_event(yaml.SequenceEndEvent):
            nodes.append(_node(reading, depth + 1))
        reading.loader.get_event()
        return Items(tuple(nodes), place)
    return Pairs(_pairs(reading, depth), place)


def _pairs(reading: _Reading, depth: int) -> tuple[tuple[Scalar, Tree], ...]:
    seen: dict[str, Scalar] = {}
    pairs = []
    while not reading.loader.check_event(yaml.MappingEndEvent):
        mark = reading.loader.peek_event().start_mark
        key, value = _node(reading, depth + 1), _node(reading, depth + 1)
        if not isinstance(key, Scalar):
            reading.fault(mark, "type", "a key is a word", "write key: value")
            continue
        if key.text in seen:
            line = seen[key.text].place.line
            reading.fault(mark, "duplicate-key", f"{key.text!r} stands in line {line} already", "keep one of the two")
            continue
        seen[key.text] = key
        if not reading.dialect.secrets and (why := secret_in(key.text)):
            reading.fault(mark, "secret", *why)
            continue
        pairs.append((key, value))
    reading.loader.get_event()
    return tuple(pairs)


def secret_in(key: str, value: str = "") -> tuple[str, str] | None:
    """Why a key that sounds like a secret, or a URL with a password, stands in no profile, and where secrets belong."""
    hint = "see lox help environment for where passwords and credentials come from"
    if _LOGIN.search(value):
        return f"{key!r}: a URL with a password in it: no secrets in a profile", hint
    return (f"{key!r}: no secrets in a profile, it is made to be shared", hint) if _SECRET.search(key) else None


def _scalar(reading: _Reading, event: yaml.ScalarEvent) -> Scalar:
    if _LOGIN.search(event.value):
        what = f"a URL with a password in it: no secrets in a {reading.dialect.noun}"
        reading.fault(event.start_mark, "secret", what,
                      "see lox help environment for where credentials come from")  # fmt: skip
    elif event.style is None and event.value not in reading.dialect.words:
        trouble = _ambiguous(event.value, reading.loader)
        if trouble is not None:
            reading.fault(event.start_mark, "ambiguous", *trouble)
    return Scalar(event.value, reading.place(event.start_mark))


def _ambiguous(text: str, loader: Any) -> tuple[str, str] | None:
    """Why a plain scalar does not mean the same to all readers of YAML, and what to do; None if it does."""
    tag = loader.resolve(yaml.ScalarNode, text, (True, False)).rpartition(":")[2]
    if text.lower() in ("y", "n"):
        tag = "bool"
    if tag in ("int", "float") and ":" in text:
        return f"{text} is a number in base 60 to some readers of YAML", "quote it"
    if tag == "int" and not _NUMBER.match(text):
        return f"{text} is not a plain decimal number", "write digits only, without leading zeros"
    if tag in _TAGS:
        reason, hint = _TAGS[tag]
        return f"{text or 'an empty value'} {reason}", hint
    return None
