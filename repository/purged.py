"""Which snapshots were purged on purpose: what is gone without being among them was lost.

    gc/purged/<32 hex digits> = sealed JSON: when, and the ids of the snapshots

Whoever removes in one place what is gone in another asks here first. Bounded: of very many only the latest are known.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import Damaged, Missing, NewerFormat
from repository.documents import Document, decode_document, encode_document, take
from repository.seal import ObjectKind

if TYPE_CHECKING:
    from repository.repository import Repository

PURGED_PREFIX = "gc/purged/"
PURGED_MAX = 8 << 20  # bytes of an opened object
IDS_MAX = 20_000  # snapshots of which it is known; more than two years of hourly ones
OBJECTS_MAX = 32  # objects that are left apart

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Purged:
    """One record. `time` is ns since the epoch by the clock of the host that wrote it."""

    name: str
    time: int
    ids: tuple[str, ...]


def record_purged(repository: Repository, ids: Iterable[str]) -> None:
    """Note that these snapshots are about to be purged. Raises StoreError."""
    new = tuple(ids)
    if not new:
        return
    before = sorted(_load(repository), key=lambda record: (record.time, record.name))
    if len(before) < OBJECTS_MAX and len(new) <= IDS_MAX:
        _write(repository, new)
        return
    everything = dict.fromkeys(each for ids in (*(record.ids for record in before), new) for each in ids)
    _write(repository, tuple(everything)[-IDS_MAX:])
    for record in before:
        try:
            repository.store.delete(record.name)
        except Missing:
            continue


def load_purged(repository: Repository) -> frozenset[str]:
    """Ids of snapshots that were purged. What cannot be read says nothing. Raises StoreError."""
    return frozenset(each for record in _load(repository) for each in record.ids)


def check_purged(repository: Repository, on_damage: Callable[[Damaged], None]) -> None:
    """Tell of records that do not open. Raises StoreError, NewerFormat."""
    for name, _ in list(repository.store.list(PURGED_PREFIX)):
        try:
            decode_purged(name, repository.get_object(ObjectKind.MARK, name))
        except Missing:
            continue
        except Damaged as error:
            on_damage(Damaged(error.what, subject=name, why=error.why))


def _write(repository: Repository, ids: tuple[str, ...]) -> None:
    document: Document = {"version": _VERSION, "time": time.time_ns(), "snapshots": list(ids)}
    repository.put_object(ObjectKind.MARK, PURGED_PREFIX + os.urandom(16).hex(), encode_document(document))


def _load(repository: Repository) -> list[Purged]:
    records = []
    for name, _ in list(repository.store.list(PURGED_PREFIX)):
        try:
            records.append(decode_purged(name, repository.get_object(ObjectKind.MARK, name)))
        except (Missing, Damaged, NewerFormat):  # then more is held back than need be
            continue
    return records


def decode_purged(name: str, data: bytes) -> Purged:
    """The record in an opened object. Raises Damaged, NewerFormat."""
    document = decode_document(data, name, PURGED_MAX)
    if (version := take(document, "version", int, name)) > _VERSION:
        raise NewerFormat("the record was written by a newer version", subject=name, why=f"version {version}")
    ids = take(document, "snapshots", list, name)
    if len(ids) > IDS_MAX or not all(isinstance(each, str) for each in ids):
        raise Damaged("object lacks a valid field", subject=name, why="snapshots should be ids")
    return Purged(name, take(document, "time", int, name), tuple(str(each) for each in ids))
