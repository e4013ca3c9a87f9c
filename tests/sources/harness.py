"""Scanning real trees in tests: as anybody, under observation, and again with a parent."""

from __future__ import annotations

import ctypes
import hashlib
import os
import pickle
import shutil
import struct
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from model.batches import BODY_MAX, OVERREAD, Blocks, Listing
from model.chunking import WINDOW
from model.entries import Bool, order_key
from repository.entry_rows import fresh_table
from repository.entry_table import ChunkLists
from sources.files.read import read_listing
from sources.files.scan import Parent, Scanner, ScanOptions

NOBODY = 65534
CLONE_NEWNS, MS_REC, MS_PRIVATE, MS_BIND = 0x20000, 0x4000, 0x40000, 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


def scan(
    root: bytes | str | os.PathLike[str], *roots: bytes, parent: Parent | None = None, **options: Any
) -> tuple[list[Listing], Scanner]:
    """All listings of a scan that takes the directory `root` for ``/``."""
    options.setdefault("threads", 2)
    scanner = Scanner(roots or [b"/"], ScanOptions(**options), parent, root=os.fsencode(root))
    return list(scanner), scanner


def paths_of(listings: list[Listing]) -> list[bytes]:
    """The path of every manifest row, in order; asserts that listings are numbered and their rows complete."""
    assert [listing.seq for listing in listings] == list(range(len(listings)))
    found = []
    for listing in listings:
        if not listing.rows:
            continue
        rows: list[bytes | None] = [None] * listing.rows
        for at, path in zip(listing.fresh_at.tolist(), listing.fresh.paths, strict=True):
            assert rows[at] is None
            rows[at] = path
        carried = [] if listing.carried is None else listing.carried["path"].to_pylist()
        for at, path in zip(listing.carried_at.tolist(), carried, strict=True):
            assert rows[at] is None
            rows[at] = path
        assert None not in rows
        found += [row for row in rows if row is not None]
    return found


def fresh_paths(listings: list[Listing]) -> list[bytes]:
    return [path for listing in listings if listing.rows for path in listing.fresh.paths]


def on_disk(root: bytes | str | os.PathLike[str]) -> list[bytes]:
    """Every path below `root`, in manifest order, found without our code."""
    found = []
    top = os.fsencode(root)
    for directory, directories, files in os.walk(top):
        found += [os.path.relpath(os.path.join(directory, name), top) for name in directories + files]
    return sorted(found, key=order_key)


def read(root: bytes | str | os.PathLike[str], listings: list[Listing]) -> list[Blocks]:
    """Every listing read, with a body of its own."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return [read_listing(fd, listing, bytearray(BODY_MAX + OVERREAD + WINDOW)) for listing in listings]
    finally:
        os.close(fd)


def contents(blocks: list[Blocks]) -> dict[bytes, bytes]:
    """What was read of each fresh row; pieces of a file joined."""
    found: dict[bytes, bytes] = {}
    for block in blocks:
        for row, path in enumerate(block.listing.fresh.paths):
            start, length = int(block.start[row]), int(block.length[row])
            found[path] = found.get(path, b"") + bytes(block.body[start : start + length])
    return found


def problems(blocks: list[Blocks]) -> dict[bytes, str]:
    return {
        block.listing.fresh.paths[row]: text for block in blocks for row, text in block.listing.fresh.problems.items()
    }


def tables(blocks: list[Blocks], rows_per_table: int = 1000) -> list[pa.Table]:
    """The manifest of a first backup: each file is one chunk."""
    parts = []
    for block in blocks:
        fresh = block.listing.fresh
        row = np.flatnonzero(block.length > 0).astype(np.int32)
        digests = [
            hashlib.sha256(block.body[start : start + length]).digest()
            for start, length in zip(block.start[row].tolist(), block.length[row].tolist(), strict=True)
        ]
        ids = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, 32)
        lists = ChunkLists.of_rows(len(fresh), row, ids, block.length[row].astype(np.uint32))
        parts.append(fresh_table(fresh, lists))
    whole = pa.concat_tables(parts).combine_chunks()
    return [whole.slice(at, rows_per_table) for at in range(0, len(whole), rows_per_table)]


def all_stored(table: pa.Table) -> Bool:
    return np.ones(len(table), dtype=np.bool_)


def parent_of(
    root: bytes | str | os.PathLike[str],
    *roots: bytes,
    carry_ok: Callable[[pa.Table], Bool] = all_stored,
    started: int | None = None,
    rows_per_table: int = 1000,
    **options: Any,
) -> Parent:
    """A backup of the tree as it is, as parent of the next; by default it began long after the last change."""
    manifest = tables(read(root, scan(root, *roots, **options)[0]), rows_per_table)
    later = time.time_ns() + 10**9 if started is None else started
    return Parent(iter(manifest), later, carry_ok)


@contextmanager
def public_directory() -> Iterator[str]:
    """A directory that other users can enter (those of pytest are private)."""
    path = tempfile.mkdtemp(prefix="lox-test-")
    os.chmod(path, 0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def as_nobody(work: Callable[[], Any]) -> Any:
    """Run `work` in a child without any privileges; its answer."""

    def run() -> Any:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        return work()

    return in_child(run)


def in_own_mounts(work: Callable[[], Any]) -> Any:
    """Run `work` as root in a child whose mounts are its own; its answer."""

    def run() -> Any:
        _checked(_libc.unshare(CLONE_NEWNS))
        _checked(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
        return work()

    return in_child(run)


def mount(source: bytes, target: bytes, kind: bytes | None = None, bind: bool = False) -> None:
    _checked(_libc.mount(source, target, kind, MS_BIND if bind else 0, None))


def in_child(work: Callable[[], Any]) -> Any:
    """Run `work` in a forked process and hand back what it returns."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            try:
                answer: tuple[bool, Any] = (True, work())
            except BaseException:
                answer = (False, traceback.format_exc())
            with os.fdopen(writing, "wb") as file:
                pickle.dump(answer, file)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        good, value = pickle.load(file)
    os.waitpid(child, 0)
    assert good, value
    return value


class Opens:
    """Counts opens of regular files in some directories, whoever does them."""

    IN_OPEN, IN_ISDIR = 0x20, 0x40000000

    def __init__(self, *directories: str | bytes) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        for directory in directories:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), self.IN_OPEN))

    def names(self) -> list[bytes]:
        """Names of the files opened since the last call."""
        found: list[bytes] = []
        while True:
            try:
                data = os.read(self._fd, 1 << 20)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                _, mask, _, length = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + length].rstrip(b"\0")
                if not mask & self.IN_ISDIR:
                    found.append(name)
                at += 16 + length

    def close(self) -> None:
        os.close(self._fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
