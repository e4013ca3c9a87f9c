"""What a run relies on: the packs whose chunks it did not store because they were there, and those it stored itself.

Nobody deletes them while the session of the run is known. Should it have been presumed dead by mistake, the run proves
before and after its commit that they are all still there, and that none of them is on its way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from model.batches import Receipt
from model.entries import U8, Bool
from model.errors import LoxError, Missing, Refused, RunFailed
from repository.cache import list_packs
from repository.index import ChunkIndex

if TYPE_CHECKING:
    from repository.repository import Repository
    from repository.sessions import Session

R = TypeVar("R")


class Reliance:
    """`contains` of an index, remembering the packs of what it finds; and the packs that were added since.

    Thread-safe: all that is ever done is to set flags.
    """

    def __init__(self, index: ChunkIndex) -> None:
        self._index = index
        self._relied: list[Bool] = [np.zeros(len(table.packs), bool) for table in index.tables]
        self._own: dict[bytes, int] = {}

    def contains(self, ids: U8) -> Bool:
        """Which of ``ids[m, 32]`` are stored; from now on, this run relies on them."""
        number, row = self._index.find(ids)
        for at, (table, relied) in enumerate(zip(self._index.tables, self._relied, strict=True)):
            segment = table.segment[row[number == at]]
            relied[table.segments["pack"][segment]] = True
        found: Bool = number >= 0
        return found

    def add(self, receipts: Iterable[Receipt]) -> None:
        """Packs this run has stored."""
        self._own |= {receipt.pack_id: receipt.pack_size for receipt in receipts}

    def packs(self) -> dict[bytes, int]:
        """All packs relied on, by id, and their sizes in bytes."""
        relied = dict(self._own)
        for table, flags in zip(self._index.tables, self._relied, strict=True):
            some = table.packs[flags]
            relied |= {row["id"].tobytes(): int(row["size"]) for row in some}
        return relied

    def lost(self, repository: Repository, condemned: frozenset[bytes]) -> int:
        """How many of the packs are gone or `condemned` by now. Raises StoreError."""
        present = dict(list_packs(repository))
        return sum(pack in condemned or present.get(pack) != size for pack, size in self.packs().items())


def commit(session: Session, reliance: Reliance, repository: Repository, save: Callable[[], tuple[R, str]]) -> R:
    """Do `save`, which writes the object that makes a run count and gives a result and the object's name.

    Raises RunFailed if what the run relies on was deleted because its session was presumed dead; then the object is
    not there, or it is taken back. And what `save` raises.
    """
    if not session.held():
        _prove(session, reliance, repository)
    result, name = save()
    # Held now, the object was there before anybody could presume us dead and look for what is needed.
    if not session.held():
        try:
            _prove(session, reliance, repository)
        except LoxError as error:
            _take_back(repository, name, error)
            raise
    return result


def _take_back(repository: Repository, name: str, why: LoxError) -> None:
    """Delete what was committed too late. Raises StoreError; RunFailed if that is refused."""
    try:
        repository.store.delete(name)
    except Missing:
        pass
    except Refused as refusal:
        raise RunFailed(
            "what this run made is not whole, and these credentials cannot delete it",
            subject=name,
            why=str(why),
            hint="run it again; then let somebody who may delete forget this one: lox forget, lox prune --trash 0d",
        ) from refusal


def _prove(session: Session, reliance: Reliance, repository: Repository) -> None:
    session.begin_again()
    if lost := reliance.lost(repository, session.condemned):
        raise RunFailed(
            "this run was presumed dead, and some of what it relied on was deleted",
            subject=f"{lost} packs",
            why="it was not heard of for an hour or more: did this host sleep, or its clock jump?",
            hint="run it again; what is stored will be used",
        )
