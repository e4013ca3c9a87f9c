"""Which entries a backup takes: patterns like those of gitignore, on names that are bytes.

``docs/patterns.md`` is the user's page. A pattern is

- a *name* pattern if it has no slash (a trailing one aside): it is compared with the last component at any depth,
- an *absolute* pattern if it begins with a slash: compared with the whole path from ``/``,
- a *rooted* pattern otherwise: compared with the path relative to each of the paths to back up.

Rules are tried from the last to the first and the first that matches decides. Matching runs on combined regular
expressions; the commonest patterns (plain names, ``*.suffix``) need none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from model.entries import Bool, Paths
from model.errors import UsageError

_SPECIAL = re.compile(rb"[*?\[\\]")
_POSIX = {
    b"alnum": rb"A-Za-z0-9",
    b"alpha": rb"A-Za-z",
    b"blank": rb" \t",
    b"cntrl": rb"\x00-\x1f\x7f",
    b"digit": rb"0-9",
    b"graph": rb"\x21-\x7e",
    b"lower": rb"a-z",
    b"print": rb"\x20-\x7e",
    b"punct": rb"!-/:-@\[-`{-~",
    b"space": rb" \t\n\r\f\v",
    b"upper": rb"A-Z",
    b"xdigit": rb"0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True)
class Rule:
    """One pattern, understood. `regex` is compared with the whole name or path, as `scope` says."""

    negated: bool
    directories_only: bool
    scope: str  # "name", "rooted" or "absolute"
    regex: bytes
    name: bytes | None = None  # the name itself if the pattern is one
    suffix: bytes | None = None  # what follows the star of ``*suffix``

    @classmethod
    def parse(cls, pattern: bytes) -> Rule:
        """Understand `pattern`; `UsageError` if it cannot mean anything."""
        body = pattern
        negated = body.startswith(b"!")
        if negated:
            body = body[1:]
        if b"\0" in body:
            raise _bad(pattern, "it holds a NUL byte, which no name does")
        directories_only = body.endswith(b"/")
        absolute = body.startswith(b"/")
        parts = [part for part in body.split(b"/") if part]
        if not parts:
            raise _bad(pattern, "it names nothing")
        if b"." in parts or b".." in parts:
            raise _bad(pattern, "a path has no . or .. component")
        if not absolute and len(parts) == 2 and parts[0] == b"**" and parts[1] != b"**":
            parts = parts[1:]  # at any depth: what a name pattern means
        if absolute or len(parts) > 1:
            return cls(negated, directories_only, "absolute" if absolute else "rooted", _path_regex(parts, pattern))
        part = parts[0]
        plain = not _SPECIAL.search(part)
        suffixed = part.startswith(b"*") and not _SPECIAL.search(part[1:])
        return cls(
            negated,
            directories_only,
            "name",
            _component_regex(part, pattern),
            name=part if plain else None,
            suffix=part[1:] if suffixed else None,
        )


class Patterns:
    """The decision about each entry. Paths are relative to ``/`` without a leading slash, as everywhere."""

    def __init__(self, excludes: _Decision, includes: _Decision | None) -> None:
        self._excludes = excludes
        self._includes = includes

    @classmethod
    def compile(
        cls, excludes: Iterable[bytes], includes: Iterable[bytes] = (), roots: Sequence[bytes] = (b"",)
    ) -> Patterns:
        """Patterns for a backup of `roots` (relative to ``/``). `UsageError` names a pattern that is wrong.

        Blank lines and lines that begin with ``#`` say nothing, so that lines of a file can be given as they are.
        """
        include_rules, exclude_rules = _rules(includes), _rules(excludes)
        below = _roots_regex(roots)
        return cls(
            _Decision.of(exclude_rules, below),
            _Decision.of([_with_content(rule) for rule in include_rules], below) if include_rules else None,
        )

    @property
    def keep_everything(self) -> bool:
        """There are no patterns: no need to ask."""
        return self._includes is None and not self._excludes

    def excludes(self, path: bytes, is_dir: bool) -> bool:
        """Whether the entry is left out (and, if it is a directory, all below it)."""
        name = path.rpartition(b"/")[2]
        if self._excludes.holds(name, path, is_dir):
            return True
        return self._includes is not None and not is_dir and not self._includes.holds(name, path, False)

    def kept(self, directory: bytes, names: Paths, is_dir: Bool) -> Bool:
        """Which of the `names` of one directory stay, at once."""
        prefix = directory + b"/" if directory else b""
        return np.fromiter(
            (
                not self.excludes(prefix + name, directory_flag)
                for name, directory_flag in zip(names, is_dir.tolist(), strict=True)
            ),
            dtype=np.bool_,
            count=len(names),
        )


def _stripped(line: bytes) -> bytes:
    """A line of an exclude file as a pattern: empty if it is blank or a comment.

    Blanks at the end are dropped unless escaped with a backslash.
    """
    if line.startswith(b"#"):
        return b""
    kept = line.rstrip(b" \t\r\n")
    escapes = len(kept) - len(kept.rstrip(b"\\"))
    return line[: len(kept) + 1] if escapes % 2 and len(kept) < len(line) else kept


def _rules(lines: Iterable[bytes]) -> list[Rule]:
    return [Rule.parse(pattern) for pattern in map(_stripped, lines) if pattern]


class _Group:
    """Neighbouring rules of one sign: whether any of them matches."""

    def __init__(self, rules: list[Rule], below: bytes) -> None:
        self.negated = rules[0].negated
        names = [rule for rule in rules if rule.scope == "name"]
        self._names = frozenset(rule.name for rule in names if rule.name is not None)
        self._suffixes = tuple(rule.suffix for rule in names if rule.suffix is not None)
        self._name = _any_of(rule.regex for rule in names if rule.name is None and rule.suffix is None)
        rooted = [rule.regex for rule in rules if rule.scope == "rooted"]
        absolute = [rule.regex for rule in rules if rule.scope == "absolute"]
        if rooted:
            absolute.append(below + b"(?:" + b"|".join(rooted) + b")")
        self._path = _any_of(absolute)

    def matches(self, name: bytes, path: bytes) -> bool:
        return (
            name in self._names
            or name.endswith(self._suffixes)
            or (self._name is not None and self._name.fullmatch(name) is not None)
            or (self._path is not None and self._path.fullmatch(path) is not None)
        )


class _Decision:
    """An ordered list of rules: does the last one that matches hold, or is it a negation?"""

    def __init__(self, for_directories: list[_Group], for_others: list[_Group]) -> None:
        self._for_directories = for_directories  # the last rule first
        self._for_others = for_others

    @classmethod
    def of(cls, rules: list[Rule], below: bytes) -> _Decision:
        others = [rule for rule in rules if not rule.directories_only]
        return cls(_grouped(rules, below), _grouped(others, below))

    def __bool__(self) -> bool:
        return bool(self._for_directories)

    def holds(self, name: bytes, path: bytes, is_dir: bool) -> bool:
        for group in self._for_directories if is_dir else self._for_others:
            if group.matches(name, path):
                return not group.negated
        return False


def _grouped(rules: list[Rule], below: bytes) -> list[_Group]:
    return [_Group(list(some), below) for _, some in groupby(reversed(rules), key=lambda rule: rule.negated)]


def _with_content(rule: Rule) -> Rule:
    """An include rule: it also takes what lies below a directory it matches."""
    depth = b"(?:[^/]+/)*" if rule.scope == "name" else b""
    below = b"/.+" if rule.directories_only else b"(?:/.+)?"
    scope = "rooted" if rule.scope == "name" else rule.scope
    return Rule(rule.negated, False, scope, depth + b"(?:" + rule.regex + b")" + below)


def _any_of(alternatives: Iterable[bytes]) -> re.Pattern[bytes] | None:
    some = list(alternatives)
    return re.compile(b"|".join(b"(?:" + one + b")" for one in some), re.DOTALL) if some else None


def _roots_regex(roots: Sequence[bytes]) -> bytes:
    return b"(?:" + b"|".join(re.escape(root) + b"/" if root else b"" for root in roots) + b")"


def _path_regex(parts: list[bytes], pattern: bytes) -> bytes:
    """Components joined: ``**`` stands for any number of them, at the end for at least one."""
    pieces = []
    last = len(parts) - 1
    for at, part in enumerate(parts):
        if part == b"**":
            pieces.append(b".+" if at == last else b"(?:[^/]+/)*")
        else:
            pieces.append(_component_regex(part, pattern) + (b"" if at == last else b"/"))
    return b"".join(pieces)


def _component_regex(part: bytes, pattern: bytes) -> bytes:
    """One component. Between two stars the first match is as good as any, so it is never tried again: no pattern
    takes exponential time."""
    runs = [b""]
    at = 0
    while at < len(part):
        char = part[at : at + 1]
        at += 1
        if char == b"*":
            if len(runs) == 1 or runs[-1]:  # several stars in a row are one
                runs.append(b"")
        elif char == b"?":
            runs[-1] += b"[^/]"
        elif char == b"[":
            text, at = _class_regex(part, at, pattern)
            runs[-1] += text
        elif char == b"\\":
            if at == len(part):
                raise _bad(pattern, "nothing follows its last backslash")
            runs[-1] += re.escape(part[at : at + 1])
            at += 1
        else:
            runs[-1] += re.escape(char)
    if len(runs) == 1:
        return runs[0]
    middle = b"".join(b"(?>[^/]*?" + run + b")" for run in runs[1:-1])
    return runs[0] + middle + b"[^/]*" + runs[-1]


def _class_regex(part: bytes, at: int, pattern: bytes) -> tuple[bytes, int]:
    """The set after ``[`` at `at`, and where what follows it begins."""
    negated = part[at : at + 1] in (b"!", b"^")
    at += negated
    members = []
    first = True
    while True:
        if at >= len(part):
            raise _bad(pattern, "its [ is never closed", hint="write \\[ for a bracket in a name")
        char = part[at : at + 1]
        if char == b"]" and not first:
            break
        first = False
        named = re.match(rb"\[:(\w+):\]", part[at:])
        if named:
            if named[1] not in _POSIX:
                raise _bad(pattern, f"there is no set [:{named[1].decode('ascii', 'replace')}:]")
            members.append(_POSIX[named[1]])
            at += named.end()
            continue
        low, at = _member(part, at, pattern)
        if part[at : at + 1] == b"-" and part[at + 1 : at + 2] not in (b"]", b""):
            high, at = _member(part, at + 1, pattern)
            if high < low:
                raise _bad(pattern, "a range in it runs backwards")
            members.append(b"\\x%02x-\\x%02x" % (low, high))
        else:
            members.append(b"\\x%02x" % low)
    return (b"[^/" if negated else b"(?!/)[") + b"".join(members) + b"]", at + 1


def _member(part: bytes, at: int, pattern: bytes) -> tuple[int, int]:
    if part[at : at + 1] == b"\\":
        at += 1
        if at >= len(part):
            raise _bad(pattern, "its [ is never closed", hint="write \\[ for a bracket in a name")
    return part[at], at + 1


def _bad(pattern: bytes, why: str, hint: str = "see docs/patterns.md") -> UsageError:
    shown = pattern.decode("utf-8", "backslashreplace")
    return UsageError("this pattern makes no sense", subject=shown, why=why, hint=hint)
