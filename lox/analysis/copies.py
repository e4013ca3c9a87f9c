"""Large files that are copies of others, told without reading them: by their length, and what stands at some places."""

from __future__ import annotations

import hashlib
import os
import random

from sources.files.opening import open_regular

LARGE = 256 << 10  # bytes of a file from which on it is worth to look
PLACES = 16  # that are looked at beside beginning and end; of files that differ in a tenth 5 in 6 are told apart
BLOCK = 4096
LENGTHS_MAX = 1 << 17
ALIKE_MAX = 1 << 12  # different files of one length that are remembered

_Marks = list[bytes]


class Copies:
    """Finds files that are copies of one it was asked about before. A file is not opened before there is another one
    of its length. Those it takes for copies may differ in few places: then they share nearly all of their chunks."""

    def __init__(self) -> None:
        self._first: dict[int, bytes] = {}  # by length: the first of this length, relative to /
        self._marks: dict[int, _Marks] = {}  # by length, if there were several: of each that differs

    def has(self, path: bytes, size: int) -> bool:
        """Whether an earlier file is the same; this one is known from now on. What cannot be read is none."""
        if size < LARGE:
            return False
        if size not in self._first:
            if len(self._first) < LENGTHS_MAX:
                self._first[size] = path
            return False
        if size not in self._marks:
            first = _mark(self._first[size], size)
            self._marks[size] = [] if first is None else [first]
        mark, marks = _mark(path, size), self._marks[size]
        if mark is None or mark in marks:
            return mark is not None
        if len(marks) < ALIKE_MAX:
            marks.append(mark)
        return False


def _mark(path: bytes, size: int) -> bytes | None:
    """What stands at places that are the same for all files of this length."""
    places = [0, size - BLOCK, *random.Random(size).choices(range(size - BLOCK), k=PLACES)]
    digest = hashlib.blake2b(digest_size=16)
    root = os.open(b"/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fd = open_regular(root, path)
        try:
            for place in places:
                digest.update(os.pread(fd, BLOCK, place))
        finally:
            os.close(fd)
    except OSError:
        return None
    finally:
        os.close(root)
    return digest.digest()
