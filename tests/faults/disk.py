"""A disk that a power cut may take away whatever was not synced, fed with the steps the local store really takes.

`Recorder` stands between `repository.store.local` and the operating system: every call is made for real and written
down. `Disk` then says what may be left after a power cut at any step. It is as strict as POSIX allows: what was written
to a file is safe once the file was synced, what happened in a folder once the folder was synced. Of all the rest any
part may be lost, in any combination.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from repository.store import Bytes, LocalStore, local
from repository.store.base import is_part

Objects = dict[str, bytes]


class Killed(BaseException):
    """The process ends here; nothing of it runs on, no clean-up either."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call that changed or synced something. `what` is its name, `inode` the file it is about."""

    what: str
    path: str = ""
    inode: int = 0
    data: bytes = b""


@dataclass(slots=True)
class Operation:
    """A put or delete of the store, and its steps: begun at `begin`, answered before step `end` (None: never)."""

    name: str
    data: bytes | None  # None: a delete
    begin: int
    end: int | None = None


class Recorder:
    """Takes the place of the module `os` inside `repository.store.local`: does as told, and writes it down."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[Step] = []
        self.operations: list[Operation] = []
        self.kill_at: int | None = None  # the step that is not made any more
        self.links = True  # False: as a file system without hard links
        self._files: dict[int, int] = {}  # open descriptor → inode
        self._folders: dict[int, str] = {}
        self._inodes: dict[str, int] = {}  # path → inode
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        monkeypatch.setattr(local, "os", self)
        monkeypatch.setattr(local, "_rename_to_free_name", self._wrapped_rename(local._rename_to_free_name))

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _step(self, step: Step, act: Callable[[], Any]) -> Any:
        with self._lock:
            if self.kill_at is not None and len(self.steps) >= self.kill_at:
                raise Killed
            result = act()
            self.steps.append(step)
            return result

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        with self._lock:
            if flags & os.O_CREAT:
                inode = next(self._numbers)
                fd: int = self._step(Step("create", path, inode), lambda: os.open(path, flags, mode))
                self._files[fd], self._inodes[path] = inode, inode
                return fd
            fd = os.open(path, flags)
            if flags & os.O_DIRECTORY:
                self._folders[fd] = path
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            self._files.pop(fd, None)
            self._folders.pop(fd, None)
            os.close(fd)

    def writev(self, fd: int, views: Sequence[memoryview]) -> int:
        data = b"".join(views)
        return int(self._step(Step("write", "", self._files[fd], data), lambda: os.writev(fd, views)))

    def write(self, fd: int, data: memoryview) -> int:
        return int(self._step(Step("write", "", self._files[fd], bytes(data)), lambda: os.write(fd, data)))

    def fsync(self, fd: int) -> None:
        step = Step("sync folder", self._folders[fd]) if fd in self._folders else Step("sync", "", self._files[fd])
        self._step(step, lambda: os.fsync(fd))

    def mkdir(self, path: str, mode: int) -> None:
        self._step(Step("mkdir", path), lambda: os.mkdir(path, mode))

    def link(self, source: str, target: str, follow_symlinks: bool) -> None:
        if not self.links:
            raise PermissionError(1, "no hard links here")
        step = Step("link", target, self._inodes[source])
        self._step(step, lambda: os.link(source, target, follow_symlinks=follow_symlinks))
        self._inodes[target] = self._inodes[source]

    def unlink(self, path: str) -> None:
        self._step(Step("unlink", path), lambda: os.unlink(path))

    def _wrapped_rename(self, rename: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def recorded(source: str, target: str) -> None:
            with self._lock:
                rename(source, target)
                self.steps.append(Step("link", target, self._inodes[source]))
                self.steps.append(Step("unlink", source))

        return recorded


class RecordedStore(LocalStore):
    """A local store whose puts and deletes are noted among the steps."""

    def __init__(self, path: str, recorder: Recorder) -> None:
        super().__init__(path)
        self._recorder = recorder

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        operation = self._begin(name, b"".join(parts))
        super().put(name, parts)
        operation.end = len(self._recorder.steps)

    def delete(self, name: str) -> None:
        operation = self._begin(name, None)
        super().delete(name)
        operation.end = len(self._recorder.steps)

    def _begin(self, name: str, data: bytes | None) -> Operation:
        operation = Operation(name, data, len(self._recorder.steps))
        self._recorder.operations.append(operation)
        return operation


@dataclass(slots=True)
class Disk:
    """What is on the disk for sure, and what may be."""

    entries: dict[str, int] = field(default_factory=dict)  # durable: path → inode; 0 is a folder
    pending: list[tuple[str, int | None]] = field(default_factory=list)  # not synced: path → inode, None if removed
    synced: dict[int, bytes] = field(default_factory=dict)  # durable content
    written: dict[int, bytes] = field(default_factory=dict)

    def apply(self, step: Step) -> None:
        """What the step changes."""
        if step.what == "write":
            self.written[step.inode] = self.written.get(step.inode, b"") + step.data
        elif step.what == "sync":
            self.synced[step.inode] = self.written.get(step.inode, b"")
        elif step.what == "sync folder":
            mine = [change for change in self.pending if os.path.dirname(change[0]) == step.path]
            self.pending = [change for change in self.pending if os.path.dirname(change[0]) != step.path]
            _change(self.entries, mine)
        else:
            self.pending.append((step.path, {"mkdir": 0, "unlink": None}.get(step.what, step.inode)))

    def after_power_cut(self, root: str) -> Iterator[Objects]:
        """Every set of objects that a store at `root` may have afterwards; the torn contents of each among them."""
        for count in range(len(self.pending) + 1):
            for kept in itertools.combinations(self.pending, count):
                entries = dict(self.entries)
                _change(entries, kept)
                yield from self._contents(_visible(entries, root))

    def _contents(self, inodes: Mapping[str, int]) -> Iterator[Objects]:
        choices = [[(name, content) for content in self._left_of(inode)] for name, inode in inodes.items()]
        yield from (dict(chosen) for chosen in itertools.product(*choices))

    def _left_of(self, inode: int) -> list[bytes]:
        written, synced = self.written.get(inode, b""), self.synced.get(inode)
        if synced == written:
            return [written]
        half = len(written) // 2
        return [synced or b"", written[:half], written[:half] + bytes(len(written) - half), written]


def _change(entries: dict[str, int], changes: Sequence[tuple[str, int | None]]) -> None:
    for path, inode in changes:
        if inode is None:
            entries.pop(path, None)
        else:
            entries[path] = inode


def _visible(entries: Mapping[str, int], root: str) -> dict[str, int]:
    """Names of objects and their inodes: all folders above are there, and no part of the name begins with a dot."""
    found = {}
    for path, inode in entries.items():
        name = path.removeprefix(root + "/")
        if inode == 0 or name == path or not all(map(is_part, name.split("/"))):
            continue
        above = [root, *(root + "/" + "/".join(name.split("/")[:depth]) for depth in range(1, name.count("/") + 1))]
        if all(entries.get(folder) == 0 for folder in above):
            found[name] = inode
    return found
