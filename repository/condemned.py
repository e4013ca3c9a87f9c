"""Packs on their way out, named in marks: what is in them counts as not stored for whoever writes, and is still there
for whoever reads.

    gc/condemned/<32 hex digits> = sealed JSON: when, why, which packs

A pack is condemned because nothing needs it, because its live content was copied elsewhere, or because it is damaged.
Backups never refer to a condemned pack again, they store its chunks anew; that is how a damaged pack heals. Marks are
never changed: one that no longer holds is replaced, the new one written before the old one goes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from model.errors import Damaged, Missing, NewerFormat
from repository.documents import Document, decode_document, encode_document, take
from repository.seal import ObjectKind

if TYPE_CHECKING:
    from repository.repository import Repository

CONDEMNED_PREFIX = "gc/condemned/"
MARK_PACKS = 100_000  # packs one mark names
MARK_MAX = 8 << 20  # bytes of an opened mark
PACK_ID = 16  # bytes
REPAIR_HINT = "lox repair moves it aside"

_VERSION = 1


class Reason(StrEnum):
    """Why a pack is condemned. The words are part of the repository format."""

    UNUSED = "unused"  # no snapshot needs anything in it
    REWRITTEN = "rewritten"  # what snapshots need of it lies in other packs as well
    DAMAGED = "damaged"  # it is not what was stored


@dataclass(frozen=True, slots=True)
class Condemned:
    """One mark. `time` is ns since the epoch by the clock of the host that wrote it."""

    time: int
    reason: Reason
    packs: tuple[bytes, ...]
    name: str = ""

    def encode(self) -> bytes:
        """Canonical JSON."""
        packs = [pack.hex() for pack in self.packs]
        document: Document = {"version": _VERSION, "time": self.time, "reason": str(self.reason), "packs": packs}
        return encode_document(document)

    @classmethod
    def decode(cls, name: str, data: bytes) -> Condemned:
        """Raises Damaged, NewerFormat."""
        document = decode_document(data, name, MARK_MAX)
        if (version := take(document, "version", int, name)) > _VERSION:
            raise NewerFormat("the mark was written by a newer version", subject=name, why=f"version {version}")
        packs = take(document, "packs", list, name)
        try:
            reason = Reason(take(document, "reason", str, name))
            ids = tuple(bytes.fromhex(pack) for pack in packs)
        except (ValueError, TypeError) as error:
            raise Damaged("object lacks a valid field", subject=name, why=str(error)) from error
        if len(ids) > MARK_PACKS or any(len(pack) != PACK_ID for pack in ids):
            raise Damaged("object lacks a valid field", subject=name, why="packs should be ids of packs")
        return cls(take(document, "time", int, name), reason, ids, name)


def condemn(repository: Repository, packs: Iterable[bytes], reason: Reason, now: int) -> list[Condemned]:
    """Condemn `packs` as of `now`, ns since the epoch; the marks written. Raises StoreError."""
    marks = []
    ordered = sorted(set(packs))
    for at in range(0, len(ordered), MARK_PACKS):
        some = tuple(ordered[at : at + MARK_PACKS])
        mark = Condemned(now, reason, some, CONDEMNED_PREFIX + os.urandom(16).hex())
        repository.put_object(ObjectKind.MARK, mark.name, mark.encode())
        marks.append(mark)
    return marks


def load_condemned(repository: Repository, on_damage: Callable[[Damaged], None] | None = None) -> list[Condemned]:
    """All marks, oldest first. Raises StoreError, Damaged, NewerFormat: with a mark that cannot be read nobody knows
    which packs may be relied on. Who only reads relies on nothing: with `on_damage` such marks are told to it. A
    write-only machine cannot read marks: none, and its session says so, so that nothing is deleted while it lasts."""
    if repository.write_only:
        return []
    marks = []
    for name, _ in repository.store.list(CONDEMNED_PREFIX):
        try:
            marks.append(Condemned.decode(name, repository.get_object(ObjectKind.MARK, name)))
        except Missing:  # replaced since it was listed
            continue
        except Damaged as error:
            if on_damage is None:
                raise Damaged(error.what, subject=name, why=error.why, hint=REPAIR_HINT) from error
            on_damage(error)
    return sorted(marks, key=lambda mark: (mark.time, mark.name))


def condemned_packs(repository: Repository) -> frozenset[bytes]:
    """The packs that no new snapshot may rely on. Raises as `load_condemned`."""
    return frozenset(pack for mark in load_condemned(repository) for pack in mark.packs)


def condemned_for(marks: Iterable[Condemned], reason: Reason) -> frozenset[bytes]:
    """The packs that these marks name for this reason."""
    return frozenset(pack for mark in marks if mark.reason is reason for pack in mark.packs)
