"""A repository in a folder, with a key derivation that costs nothing, and the runs of a test against it."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from model.chunking import MIB, ChunkerParams
from pipelines.backup import BackupReport, BackupRequest, backup
from pipelines.options import EngineOptions, Watch
from pipelines.restore import RestoreReport, RestoreRequest, restore
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex
from repository.keys import KdfParams
from repository.manifest_reader import ManifestReader
from repository.repository import Repository
from repository.snapshot import Snapshot
from repository.store import LocalStore, Store

CHEAP = KdfParams(memory_kib=64, iterations=1, lanes=1)


@dataclass
class Place:
    """A repository and an engine to run on it."""

    path: Path
    executor: str = "threads"
    lanes: int = 2
    encryption: str = "aes-256-gcm"
    chunker: ChunkerParams = field(default_factory=ChunkerParams)
    store: Store | None = None

    def __post_init__(self) -> None:
        password = None if self.encryption == "none" else "correct horse"
        store = self.store or LocalStore(os.fspath(self.path))
        self.repository, _ = Repository.init(store, password, self.chunker, encryption=self.encryption, kdf=CHEAP)

    @property
    def engine(self) -> EngineOptions:
        return EngineOptions(executor=self.executor, lanes=self.lanes)

    def backup(self, *paths: Path | bytes, watch: Watch | None = None, **request: Any) -> BackupReport:
        names = tuple(os.fsencode(path) for path in paths)
        return backup(self.repository, BackupRequest(names, **request), self.engine, watch or Watch())

    def rows(self, snapshot: Snapshot, root: Path) -> pa.Table:
        """The manifest's rows below `root`."""
        fetcher = ChunkFetcher(self.repository, ChunkIndex.load(self.repository, None))
        reader = ManifestReader(snapshot.root, fetcher.fetch)
        return pa.concat_tables(list(reader.subtree(os.fsencode(root)[1:]))).combine_chunks()

    def restore(self, snapshot: Snapshot, target: Path, watch: Watch | None = None, **request: Any) -> RestoreReport:
        wanted = RestoreRequest(snapshot, os.fsencode(target), **request)
        return restore(self.repository, wanted, self.engine, watch or Watch())


def differences(left: Path, right: Path) -> str:
    """What rsync would have to do to make `right` equal `left`, in every respect it knows."""
    command = ["rsync", "-aHAXn", "--delete", "--checksum", "--itemize-changes", f"{left}/", f"{right}/"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@contextmanager
def as_nobody() -> Iterator[None]:
    """This process, while in here, may read only what anyone may (the repository is opened before)."""
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def noise(root: Path, files: int, size: int = 2 * MIB) -> Path:
    """A folder with so many files of random bytes."""
    root.mkdir()
    rng = random.Random(11)
    for number in range(files):
        (root / f"file{number}").write_bytes(rng.randbytes(size))
    return root
