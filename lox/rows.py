"""Entries of a snapshot as text and as JSON."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from typing import TYPE_CHECKING

from lox.escape import path_fields, shown, shown_path
from lox.units import format_size, format_time, rfc3339
from model.entries import Kind

if TYPE_CHECKING:
    from repository.query import Entry

_DEVICES = (Kind.CHAR_DEVICE, Kind.BLOCK_DEVICE)


def entry_path(entry: Entry) -> str:
    """The absolute path, escaped; folders end in a slash."""
    slash = "/" if entry.kind == Kind.DIRECTORY and entry.path else ""
    return shown_path(entry.path) + slash


def long_line(entry: Entry) -> str:
    """As ``ls -l``: mode, owner, group, size or device numbers, time, path, target of links, trouble when read."""
    owner = shown(entry.user) if entry.user else str(entry.uid)
    group = shown(entry.group) if entry.group else str(entry.gid)
    path = shown_path(entry.path)
    if entry.target is not None:
        path += f" -> {shown(entry.target)}"
    if entry.problem is not None:
        path += f"  ({shown(entry.problem)})"
    return f"{_mode(entry.mode)}  {owner:<8} {group:<8} {_size(entry):>8}  {format_time(entry.mtime)}  {path}"


def _size(entry: Entry) -> str:
    if entry.kind == Kind.DIRECTORY:
        return "-"
    return _device(entry.rdev) if entry.kind in _DEVICES else format_size(entry.size)


def _device(number: int) -> str:
    return f"{os.major(number)}, {os.minor(number)}"


@lru_cache(maxsize=4096)
def _mode(mode: int) -> str:
    return stat.filemode(mode)


def entry_fields(entry: Entry) -> dict[str, object]:
    """An entry for JSON; its time is in RFC 3339, or in nanoseconds under ``mtime_ns`` where no calendar holds it."""
    mtime = rfc3339(entry.mtime)
    fields: dict[str, object] = {
        **path_fields(b"/" + entry.path),
        "kind": entry.kind.name.lower().replace("_", "-"),
        "mode": f"{stat.S_IMODE(entry.mode):04o}",
        "uid": entry.uid,
        "gid": entry.gid,
        "user": entry.user.decode("utf-8", "replace"),
        "group": entry.group.decode("utf-8", "replace"),
        "size": entry.size,
        "links": entry.nlink,
        **({"mtime": mtime} if mtime is not None else {"mtime_ns": entry.mtime}),
    }
    if entry.kind in _DEVICES:
        fields["device"] = [os.major(entry.rdev), os.minor(entry.rdev)]
    if entry.target is not None:
        fields |= path_fields(entry.target, "target")
    if entry.problem is not None:
        fields["problem"] = entry.problem.decode("utf-8", "replace")
    return fields
