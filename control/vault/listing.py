"""Pages of names: each costs what it shows, however many names lie before and behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from operator import itemgetter

from control.vault.names import is_allowed


@dataclass(frozen=True, slots=True)
class Stored:
    """An object: its size in bytes, and when it was stored, in ns since the epoch."""

    name: str
    size: int
    written: int


def page(root: str, prefix: str, after: str, limit: int) -> tuple[list[Stored], bool]:
    """At most `limit` objects whose names begin with `prefix` and come after `after`, sorted by name; whether there
    are more. Raises OSError."""
    found = list(islice(_walk(root, "", prefix, after), limit + 1))
    return found[:limit], len(found) > limit


def everything(root: str) -> Iterator[Stored]:
    """All objects. Raises OSError."""
    return _walk(root, "", "", "")


def _walk(root: str, folder: str, prefix: str, after: str) -> Iterator[Stored]:
    try:
        with os.scandir(os.path.join(root, folder)) as entries:
            # A folder sorts as its children do.
            found = sorted(_named(entries), key=itemgetter(0))
    except (FileNotFoundError, NotADirectoryError):
        return
    for part, entry in found:
        name = f"{folder}{part}"
        if part.endswith("/"):
            begun = after.startswith(name) or name > after
            if begun and (name.startswith(prefix) or prefix.startswith(name)):
                yield from _walk(root, name, prefix, after)
        elif name > after and name.startswith(prefix) and is_allowed(name):
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # somebody deleted it just now
                continue
            yield Stored(name, status.st_size, status.st_mtime_ns)


def _named(entries: Iterator[os.DirEntry[str]]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield f"{entry.name}/", entry
        elif entry.is_file(follow_symlinks=False):
            yield entry.name, entry
