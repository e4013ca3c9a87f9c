"""What a write-only machine remembers of its own backups, because it cannot read them back: a folder of its cache.

    <chunk id>.chunk          a chunk of a manifest, proved by its id
    <snapshot id>.snapshot    BLAKE3 (keyed), then JSON: the document of a snapshot and the chunks its manifest needs

Losing it costs a full reading and storing again, never data. It says what the latest backups say: names and times of
files that lie on this very machine, nothing of before.
"""

from __future__ import annotations

import hmac
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from model.errors import Damaged, LoxError
from repository.cache import WRITTEN_FOLDER
from repository.documents import decode_document, encode_document, take
from repository.snapshot import SNAPSHOT_MAX, Snapshot

if TYPE_CHECKING:
    from repository.repository import Repository

RECORD_MAX = 64 << 20  # bytes
CHUNK_MAX = 256 << 20  # bytes

_CHUNK, _SNAPSHOT = ".chunk", ".snapshot"
_DIGEST = 32


class OwnHistory:
    """The folder of one write-only machine. Trouble with it costs the memory, not the backup."""

    def __init__(self, repository: Repository, cache_dir: Path) -> None:
        self._keys = repository.keys
        self._key = repository.keys.local_key("own history")
        self._folder = cache_dir / repository.id.hex() / WRITTEN_FOLDER
        self._used: set[bytes] = set()

    def snapshots(self) -> list[Snapshot]:
        """The snapshots made here whose manifests are remembered."""
        found = (self._read_record(path) for path in self._paths(_SNAPSHOT))
        return [record[0] for record in found if record is not None]

    def keep(self, chunk_id: bytes, plain: bytes) -> None:
        """Remember a chunk of the manifest under way."""
        self._used.add(chunk_id)
        path = self._path(chunk_id.hex() + _CHUNK)
        try:
            same = _read(path, len(plain)) == plain
        except OSError:
            same = False
        if not same:
            self._write(path, plain)

    def use(self, chunk_ids: Iterable[bytes]) -> None:
        """These chunks, remembered before, belong to the manifest under way too."""
        self._used.update(chunk_ids)

    def fetch(self, ids: Sequence[bytes]) -> list[bytes]:
        """The chunks, in the order of their ids. Raises Damaged for one that is missing or not what it should be."""
        return [self._read_chunk(chunk_id) for chunk_id in ids]

    def commit(self, snapshot: Snapshot) -> None:
        """The manifest under way is that of `snapshot`. Of each source only the latest snapshot, and the latest full
        one, are remembered from now on."""
        document = {"document": snapshot.encode().decode(), "chunks": sorted(one.hex() for one in self._used)}
        plain = encode_document(dict(document))
        self._write(self._path(snapshot.id + _SNAPSHOT), self._digest(plain) + plain)
        self._used = set()
        self._forget()

    def _forget(self) -> None:
        records = [record for path in self._paths(_SNAPSHOT) if (record := self._read_record(path)) is not None]
        keep: dict[tuple[object, ...], tuple[Snapshot, frozenset[str]]] = {}
        for record in sorted(records, key=lambda record: (record[0].time, record[0].id)):
            source = record[0].host, record[0].paths
            keep[(*source, "latest")] = record
            if record[0].mode == "full":
                keep[(*source, "full")] = record
        snapshots = {record[0].id for record in keep.values()}
        chunks = frozenset[str]().union(*(record[1] for record in keep.values()))
        for suffix, names in ((_SNAPSHOT, snapshots), (_CHUNK, chunks)):
            for path in self._paths(suffix):
                if path.name.removesuffix(suffix) not in names:
                    self._drop(path)

    def _read_record(self, path: Path) -> tuple[Snapshot, frozenset[str]] | None:
        """None for one that is not ours, damaged or gone."""
        try:
            data = _read(path, RECORD_MAX)
            if not hmac.compare_digest(self._digest(data[_DIGEST:]), data[:_DIGEST]):
                return None
            record = decode_document(data[_DIGEST:], path.name, RECORD_MAX)
            snapshot_id = path.name.removesuffix(_SNAPSHOT)
            snapshot = Snapshot.decode(snapshot_id, take(record, "document", str, path.name)[:SNAPSHOT_MAX].encode())
            chunks = frozenset(str(one) for one in take(record, "chunks", list, path.name))
        except (OSError, LoxError):
            return None
        assert self._keys.writer is not None
        return snapshot._replace(writer=self._keys.writer.id.hex()), chunks

    def _read_chunk(self, chunk_id: bytes) -> bytes:
        name = chunk_id.hex()
        try:
            plain = _read(self._path(name + _CHUNK), CHUNK_MAX)
        except OSError as error:
            raise Damaged("a part of a manifest is not remembered here any more", subject=name) from error
        if self._keys.chunk_id(plain) != chunk_id:
            raise Damaged("a part of a manifest is remembered wrongly", subject=name)
        return plain

    @staticmethod
    def _drop(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError:  # then it stays
            pass

    def _digest(self, plain: bytes) -> bytes:
        return blake3(plain, key=self._key).digest()

    def _path(self, name: str) -> Path:
        return self._folder / name

    def _paths(self, suffix: str) -> list[Path]:
        return sorted(self._folder.glob("*" + suffix))

    def _write(self, path: Path, data: bytes) -> None:
        """All of it or nothing, mode 0600; should that not work, the next backup reads more."""
        temporary = ""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd, temporary = tempfile.mkstemp(prefix=".new-", dir=self._folder)
            with os.fdopen(fd, "wb") as file:
                file.write(data)
            os.rename(temporary, path)
        except OSError:
            if temporary:
                Path(temporary).unlink(missing_ok=True)


def own_history(repository: Repository, cache_dir: Path) -> OwnHistory | None:
    """The memory of a write-only machine; None for a repository that can be read."""
    return OwnHistory(repository, cache_dir) if repository.write_only else None


def _read(path: Path, limit: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError("too large")
    return data
