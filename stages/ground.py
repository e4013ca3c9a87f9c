"""Do lanes on other hosts stand on common ground: the same source and the same store as the process that scans?

A host on which a file system is not mounted would find no files, and one with a folder of its own where the repository
ought to be would store into that. So each lane compares before it works, with what only the right file system and the
right store can show: inode number and time of change of the paths of the run, and the object of its session.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from model.errors import RunFailed
from repository.sessions import Session
from repository.store import Store

GROUND = "ground"  # the service's name
ATTEMPTS = 10
PAUSE = 0.1  # seconds; a source that is written to changes between two looks


class Sight(NamedTuple):
    """What is seen of one path. `error` is an errno or 0."""

    path: bytes
    kind: int
    inode: int
    changed: int  # ns
    error: int


class Ground:
    """What lanes compare with, as a service. `session` None: nothing is stored."""

    def __init__(self, paths: Sequence[bytes], session: Session | None) -> None:
        self._paths = paths
        self._session = session

    def sources(self) -> list[Sight]:
        """The paths of the run as they look here and now."""
        return [look(path) for path in self._paths]

    def witness(self) -> str:
        """An object that the store holds at this moment; "" if nothing is stored."""
        return self._session.name if self._session is not None else ""


def common_ground(cpus: Sequence[int], paths: Sequence[bytes], session: Session | None) -> dict[str, Ground]:
    """The service if there is more than one host (`Executor.cpus`), by its name."""
    return {GROUND: Ground(paths, session)} if cpus else {}


def look(path: bytes) -> Sight:
    """A path as it looks here and now. A directory is opened: a network file system asks its server then."""
    try:
        status = os.lstat(path)
        if stat.S_ISDIR(status.st_mode):
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
            finally:
                os.close(fd)
    except OSError as error:
        return Sight(path, 0, 0, 0, error.errno or -1)
    return Sight(path, stat.S_IFMT(status.st_mode), status.st_ino, status.st_ctime_ns, 0)


def check_sources(services: Mapping[str, Any]) -> None:
    """Raises RunFailed if this host sees other things at the paths of the run; without the service, never."""
    ground: Ground | None = services.get(GROUND)
    for attempt in range(ATTEMPTS):
        if ground is None:
            return
        theirs = ground.sources()
        mine = [look(sight.path) for sight in theirs]
        if mine == theirs:
            return
        time.sleep(PAUSE * attempt)
    ours, other = next((one, two) for one, two in zip(mine, theirs, strict=True) if one != two)
    raise RunFailed(
        "a host does not see what is backed up",
        subject=f"{socket.gethostname()}: {os.fsdecode(ours.path)}",
        why=f"{_text(ours)} there, {_text(other)} on the host that scans",
        hint="mount the same file system at the same path on all hosts, or choose hosts with placement in the profile",
    )


def check_store(services: Mapping[str, Any], store: Store) -> None:
    """Raises RunFailed if this host reaches another store than the one the session is in, or StoreError if none."""
    ground: Ground | None = services.get(GROUND)
    for _ in range(ATTEMPTS):
        if ground is None or not (name := ground.witness()) or store.exists(name):
            return
        time.sleep(PAUSE)
    raise RunFailed(
        "a host does not see the repository",
        subject=f"{socket.gethostname()}: {store.url}",
        why="what this run has just written into it is not there",
        hint="put it where all hosts reach it: s3://, sftp://, or a file system mounted at the same path everywhere",
    )


def _text(sight: Sight) -> str:
    if sight.error:
        return os.strerror(sight.error).lower()
    return f"inode {sight.inode} changed {sight.changed / 1e9:.3f}"
