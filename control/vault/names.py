"""Which names objects in the vault may have: those of the repository format, and those of a probe."""

from __future__ import annotations

import re

from repository.store.base import is_part

FOLDERS = frozenset({"keys", "packs", "index", "snapshots", "notes", "sessions", "trash", "gc"})
PARTS_MAX = 8
_PROBE = re.compile(r"probe-[0-9a-f]{16}")


def is_allowed(name: str) -> bool:
    """Whether an object may have this name. No such name leaves the folder it is looked for in."""
    first, *rest = name.split("/")
    if len(rest) >= PARTS_MAX or not all(map(is_part, (first, *rest))):
        return False
    if not rest:
        return name == "config"
    return first in FOLDERS or _PROBE.fullmatch(first) is not None
