"""Snapshots: one sealed object each, written last. It is the only thing that makes a backup exist."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from model.errors import Damaged, LoxError, NewerFormat, NotFound
from repository.document_cache import Family, Listed, load_family
from repository.documents import Document, decode_document, encode_document, take, take_hex
from repository.manifest_root import ManifestRoot
from repository.seal import ObjectKind

if TYPE_CHECKING:
    from pathlib import Path

    from repository.repository import Repository

SNAPSHOT_PREFIX = "snapshots/"
SNAPSHOT_MAX = 4 << 20  # bytes of an opened snapshot object
ROOT_CHUNKS_MAX = 4096
FUTURE = 300 * 10**9  # ns a snapshot may lie ahead of our clock and still be believed

WRITTEN_BY = "written_by"  # the field of a copy that says which write-only machine made the original

_VERSION = 1


class Snapshot(NamedTuple):
    """One finished backup. A tuple, because a listing of thousands makes them ten times as fast as frozen dataclasses.

    Times are ns since the epoch by the clock of the host; `started` is before the first stat.

    If there are `hosts`, each backed up its own file system: `paths` are theirs, and in the manifest all of a host lies
    below a folder of its name. `stats` are numbers for display only. `extra` holds fields of later versions, kept as
    they are. `writer` is the id of the write-only machine that made it, as 32 hex digits. `original` says of a copy
    what it is a copy of: the id of the repository where it was made, and its id there.
    """

    time: int
    started: int
    finished: int
    host: str
    user: str
    paths: tuple[bytes, ...]
    mode: str
    root: ManifestRoot
    parent: str | None = None
    tags: tuple[str, ...] = ()
    excludes: tuple[bytes, ...] = ()
    problems: int = 0
    stats: Mapping[str, int] = {}
    program: str = ""
    id: str = ""  # 32 hex digits, given by `save`
    writer: str = ""  # told by the seal, not by the document
    original: tuple[bytes, str] | None = None
    hosts: tuple[str, ...] = ()
    extra: Mapping[str, object] = {}

    @property
    def name(self) -> str:
        return SNAPSHOT_PREFIX + self.id

    @property
    def short_id(self) -> str:
        return self.id[:8]

    @property
    def roots(self) -> tuple[bytes, ...]:
        """The paths that were backed up as the manifest has them: relative to ``/``."""
        paths = [path.strip(b"/") for path in self.paths]
        if not self.hosts:
            return tuple(paths)
        return tuple(b"/".join(filter(None, (os.fsencode(host), path))) for host in self.hosts for path in paths)

    def save(self, repository: Repository) -> Snapshot:
        """Commit: store this under a new id, durably; the snapshot with its id. Raises StoreError."""
        named = self.under_new_id()._replace(writer=repository.writer)
        named.put(repository)
        return named

    def under_new_id(self) -> Snapshot:
        """The same with an id that no other has, as made by somebody who has full keys."""
        return self._replace(id=os.urandom(16).hex(), writer="")

    def put(self, repository: Repository) -> None:
        """Commit under the id it has, which must be new. Raises StoreError."""
        repository.put_object(ObjectKind.SNAPSHOT, self.name, self.encode())

    def made_as(self, repository_id: bytes) -> tuple[bytes, str]:
        """Where it was made and under which id, whether this, found in the repository of that id, is a copy or not."""
        return self.original or (repository_id, self.id)

    def encode(self) -> bytes:
        """Canonical JSON; the id is the name of the object and not in it."""
        document: Document = {
            **self.extra,
            "version": _VERSION,
            "time": self.time,
            "started": self.started,
            "finished": self.finished,
            "host": self.host,
            "user": self.user,
            "paths": [path.hex() for path in self.paths],
            "mode": self.mode,
            "parent": self.parent,
            "tags": list(self.tags),
            "excludes": [line.hex() for line in self.excludes],
            "problems": self.problems,
            "stats": dict(self.stats),
            "program": self.program,
            "manifest": {
                "chunks": [
                    {"id": chunk.hex(), "length": length}
                    for chunk, length in zip(self.root.chunks, self.root.lengths, strict=True)
                ],
                "parts": self.root.parts,
                "rows": self.root.rows,
                "bytes": self.root.bytes,
            },
        }
        if self.hosts:
            document["hosts"] = list(self.hosts)
        if self.original is not None:
            document["original"] = {"repository": self.original[0].hex(), "snapshot": self.original[1]}
        return encode_document(document)

    @classmethod
    def decode(cls, snapshot_id: str, data: bytes) -> Snapshot:
        """Raises Damaged, NewerFormat."""
        subject = SNAPSHOT_PREFIX + snapshot_id
        document = decode_document(data, subject, SNAPSHOT_MAX)
        if (version := take(document, "version", int, subject)) > _VERSION:
            raise NewerFormat(
                "the snapshot was written by a newer version",
                subject=subject,
                why=f"version {version}",
                hint="update lox",
            )
        stats = take(document, "stats", dict, subject)
        parent = document.get("parent")
        if parent is not None and not isinstance(parent, str):
            raise _invalid(subject, "parent")
        return cls(
            time=take(document, "time", int, subject),
            started=take(document, "started", int, subject),
            finished=take(document, "finished", int, subject),
            host=take(document, "host", str, subject),
            user=take(document, "user", str, subject),
            paths=_bytes_list(document, "paths", subject),
            mode=take(document, "mode", str, subject),
            root=_decode_root(take(document, "manifest", dict, subject), subject),
            parent=parent,
            tags=tuple(_strings(document, "tags", subject)),
            excludes=_bytes_list(document, "excludes", subject),
            problems=take(document, "problems", int, subject),
            stats={str(key): value for key, value in stats.items() if type(value) is int},
            program=take(document, "program", str, subject),
            id=snapshot_id,
            original=_decode_original(document, subject),
            hosts=_decode_hosts(document, subject),
            extra={key: value for key, value in document.items() if key not in _FIELDS},
        )


_NAMES = (
    "version time started finished host user paths mode parent tags excludes problems stats program manifest original "
    "hosts"
)
_FIELDS = frozenset(_NAMES.split())


class Snapshots(list[Snapshot]):
    """The snapshots of a repository, oldest first, and why others could not be read: damaged, or newer than we are."""

    def __init__(self, readable: Iterable[Snapshot] = (), unreadable: Iterable[tuple[str, LoxError]] = ()) -> None:
        by_id = sorted(readable, key=attrgetter("id"))  # mostly it is the order in which they come
        super().__init__(sorted(by_id, key=attrgetter("time")))
        self.unreadable = list(unreadable)


def load_all(repository: Repository, cache_dir: Path | None = None, listed: Listed | None = None) -> Snapshots:
    """All snapshots that count, through the cache in `cache_dir` (None: all are read).

    One that cannot be read hides no other. `listed` is what the store lists of them, if that was asked for already.
    Raises StoreError.
    """
    from repository.snapshot_columns import pack_snapshots, packs, unpack_snapshots  # they need to know what we are

    def load_named(repository: Repository, name: str) -> Snapshot:
        return load(repository, name.removeprefix(SNAPSHOT_PREFIX))

    # What a write-only machine wrote may cease to count: that is asked each time.
    def lasting(snapshot: Snapshot) -> bool:
        return not snapshot.writer and packs(snapshot)

    family = Family(SNAPSHOT_PREFIX, load_named, pack_snapshots, unpack_snapshots, lasting)
    loaded = load_family(repository, family, cache_dir, listed)
    return Snapshots(loaded.found.values(), loaded.unreadable)


def load(repository: Repository, snapshot_id: str) -> Snapshot:
    """The snapshot of this full id. Raises Missing, Damaged, NewerFormat."""
    name = SNAPSHOT_PREFIX + snapshot_id
    data, writer = repository.get_written(ObjectKind.SNAPSHOT, name)
    return Snapshot.decode(snapshot_id, data)._replace(writer=writer.hex() if writer else "")


def resolve(repository: Repository, wanted: str, cache_dir: Path | None = None) -> Snapshot:
    """The snapshot the user means: ``latest``, an id, or the unique beginning of one; `cache_dir` as in `load_all`.

    Raises NotFound; Damaged or NewerFormat if it is one that cannot be read.
    """
    return choose(load_all(repository, cache_dir), wanted, repository.store.url)


def choose(snapshots: Snapshots, wanted: str, place: str) -> Snapshot:
    """As `resolve`, among `snapshots`; `place` is where they lie, for messages."""
    if wanted == "latest":
        parents = {f"{SNAPSHOT_PREFIX}{snapshot.parent}" for snapshot in snapshots}
        for name, error in snapshots.unreadable:
            if name in parents:
                continue  # older than its child; of others nobody knows, and an old state must not pass for the latest
            hint = "name one by its id; lox snapshots lists them"
            raise type(error)("which snapshot is the latest cannot be told", subject=name, why=error.what, hint=hint)
        if snapshots:
            return snapshots[-1]
        raise NotFound("there is no snapshot yet", subject=place, hint="lox backup makes one")
    found = [snapshot for snapshot in snapshots if wanted and snapshot.id.startswith(wanted.lower())]
    broken = [
        error for name, error in snapshots.unreadable if wanted and name.startswith(SNAPSHOT_PREFIX + wanted.lower())
    ]
    if len(found) + len(broken) > 1:
        names = ", ".join(snapshot.id[: len(wanted) + 4] for snapshot in found)
        raise NotFound("several snapshots begin so", subject=wanted, why=names, hint="give more of the id")
    if broken:
        raise broken[0]
    if not found:
        raise NotFound("no such snapshot", subject=wanted, hint="lox snapshots lists them")
    return found[0]


def find_parent(
    snapshots: Iterable[Snapshot],
    host: str,
    paths: Iterable[bytes],
    mode: str,
    now: int,
    writer: str = "",
    many: bool = False,
) -> Snapshot | None:
    """The snapshot whose unchanged entries a backup of `paths` on `host` may take over; `now` in ns since the epoch.

    Only what the same `writer` made counts: a write-only machine may say that it is any host, and nobody takes over
    what it says.

    Incremental: the last one of the same host and paths; differential: the last full one of these; full: none. One
    that is dated in the future (a clock was wrong) says nothing about what has changed since. `many`: a backup of hosts
    that have file systems of their own; such a snapshot is no parent of any other.
    """
    if mode == "full":
        return None
    same = [
        snapshot
        for snapshot in snapshots
        if (snapshot.host, snapshot.writer or snapshot.extra.get(WRITTEN_BY, "")) == (host, writer)
        and sorted(snapshot.paths) == sorted(paths)
        and bool(snapshot.hosts) == many
        and max(snapshot.time, snapshot.started) <= now + FUTURE
        and (mode != "differential" or snapshot.mode == "full")
    ]
    return max(same, key=attrgetter("time", "id"), default=None)


def _decode_root(fields: Document, subject: str) -> ManifestRoot:
    chunks = take(fields, "chunks", list, subject)
    if not 0 < len(chunks) <= ROOT_CHUNKS_MAX or not all(isinstance(chunk, dict) for chunk in chunks):
        raise _invalid(subject, "manifest")
    numbers = [take(fields, key, int, subject) for key in ("parts", "rows", "bytes")]
    lengths = [take(chunk, "length", int, subject) for chunk in chunks]
    if min(*numbers, *lengths) < 0:
        raise _invalid(subject, "manifest")
    return ManifestRoot(tuple(take_hex(chunk, "id", 32, subject) for chunk in chunks), tuple(lengths), *numbers)


def _decode_original(document: Document, subject: str) -> tuple[bytes, str] | None:
    if document.get("original") is None:
        return None
    fields = take(document, "original", dict, subject)
    return take_hex(fields, "repository", 16, subject), take_hex(fields, "snapshot", 16, subject).hex()


def _decode_hosts(document: Document, subject: str) -> tuple[str, ...]:
    """Their names are names of folders in the manifest: nothing else may pass for one."""
    hosts = _strings(document, "hosts", subject) if "hosts" in document else []
    if any(host_name_fault(host) for host in hosts) or len(set(hosts)) < len(hosts):
        raise _invalid(subject, "hosts")
    return tuple(hosts)


def host_name_fault(name: str) -> str:
    """Why a host of this name cannot have a folder in a manifest; empty if it can."""
    if not name or name in (".", ".."):
        return "it is no name"
    if "/" in name or not name.isprintable() or "," in name:
        return "it has a character that names of hosts do not have"
    return "it is longer than 200 characters" if len(name) > 200 else ""


def _bytes_list(document: Document, key: str, subject: str) -> tuple[bytes, ...]:
    try:
        return tuple(bytes.fromhex(text) for text in _strings(document, key, subject))
    except ValueError as error:
        raise _invalid(subject, key) from error


def _strings(document: Document, key: str, subject: str) -> list[str]:
    values = take(document, key, list, subject)
    if not all(isinstance(value, str) for value in values):
        raise _invalid(subject, key)
    return values


def _invalid(subject: str, key: str) -> Damaged:
    return Damaged("object lacks a valid field", subject=subject, why=key)
