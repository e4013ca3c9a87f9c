"""Comparing two file trees with nothing but the standard library, for machines without rsync."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

BUFFER = 1 << 20


@dataclass(frozen=True, slots=True)
class TreeSize:
    files: int
    size: int  # bytes of regular files, hard links counted once


def measure(root: bytes) -> TreeSize:
    """Regular files below `root` on the same file system, and their bytes."""
    files = size = 0
    seen: set[tuple[int, int]] = set()
    for _, entry in walk(root):
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            continue
        files += 1
        if status.st_nlink > 1:
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        size += status.st_size
    return TreeSize(files, size)


def walk(root: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    """Every entry below `root` with its path relative to it; directories first, symbolic links never followed."""
    pending = [b""]
    while pending:
        directory = pending.pop()
        with os.scandir(os.path.join(root, directory)) as entries:
            for entry in sorted(entries, key=lambda found: found.name):
                path = os.path.join(directory, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                yield path, entry


def compare(left: bytes, right: bytes, *, owner: bool) -> list[str]:
    """What differs between two trees, one line each: names, kinds, modes, times, targets, content, owners if asked."""
    lefts = dict(walk(left))
    rights = dict(walk(right))
    lines = [f"missing: {os.fsdecode(path)}" for path in sorted(lefts.keys() - rights.keys())]
    lines += [f"extra: {os.fsdecode(path)}" for path in sorted(rights.keys() - lefts.keys())]
    for path in sorted(lefts.keys() & rights.keys()):
        differing = _differences(lefts[path], rights[path], owner)
        if differing:
            lines.append(f"{', '.join(differing)}: {os.fsdecode(path)}")
    return lines


def _differences(a: os.DirEntry[bytes], b: os.DirEntry[bytes], owner: bool) -> list[str]:
    one, two = a.stat(follow_symlinks=False), b.stat(follow_symlinks=False)
    if stat.S_IFMT(one.st_mode) != stat.S_IFMT(two.st_mode):
        return ["kind"]
    found = []
    if one.st_mode != two.st_mode and not stat.S_ISLNK(one.st_mode):
        found.append("mode")
    if one.st_mtime_ns != two.st_mtime_ns:
        found.append("mtime")
    if owner and (one.st_uid, one.st_gid) != (two.st_uid, two.st_gid):
        found.append("owner")
    if stat.S_ISLNK(one.st_mode):
        if os.readlink(a.path) != os.readlink(b.path):
            found.append("target")
    elif stat.S_ISREG(one.st_mode):
        if one.st_size != two.st_size or not _same_content(a.path, b.path):
            found.append("content")
        if one.st_nlink != two.st_nlink:
            found.append("links")
    return found


def _same_content(a: bytes, b: bytes) -> bool:
    with open(a, "rb", buffering=0) as one, open(b, "rb", buffering=0) as two:
        while True:
            block = one.read(BUFFER)
            if block != two.read(BUFFER):
                return False
            if not block:
                return True
