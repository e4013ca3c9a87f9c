"""Keeping the index in step with the packs: objects that name deleted packs, and many small ones, are written anew.

New objects are written before old ones go, so the index never says less than it did. Readers that find an object gone
list again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from model.batches import Receipt
from model.errors import Missing, Revoked
from repository.cache import read_index_object
from repository.index import OBJECT_CHUNKS, ChunkIndex, save_index
from repository.index_table import INDEX_PREFIX, IndexTable
from repository.receipts import Receipts
from repository.repository import Repository

SMALL_BYTES = 8 << 20  # an object of fewer is small: it lists about 200,000 chunks
CLASS_BITS = 4  # objects of one class differ by less than a factor of 16 in size
SMALL_MIN = 16  # small objects of one class that are worth joining


def rewrite_index(
    repository: Repository,
    drop: Collection[bytes],
    may_go_on: Callable[[], None] = lambda: None,
) -> tuple[int, int]:
    """Objects of the index (written, deleted) so that none names the packs `drop`, and few are small.

    What names none of them stays as it is, unless there are many of about its size: clients read anew what changes.
    Of those that are read none names a pack that another does: that is left of interrupted runs. At most one object
    and what it becomes are in memory at a time, and small ones up to the size of one. `may_go_on` raises to end it
    before anything is deleted. Raises StoreError, Damaged, NewerFormat.
    """
    objects = list(repository.store.list(INDEX_PREFIX))
    join = _to_join(objects)
    names = [name for name, _ in objects if drop or name in join]
    written = deleted = 0
    for group in _groups(repository, names, drop, join):
        receipts = [receipt for _, kept in group for receipt in kept]
        written += len(save_index(repository, receipts))
        may_go_on()
        for name, _ in group:
            try:
                repository.store.delete(name)
                deleted += 1
            except Missing:  # somebody else did
                continue
    return written, deleted


def _to_join(objects: Iterable[tuple[str, int]]) -> set[str]:
    """Small objects worth joining: those of which there are many of about one size. What comes of them is larger by a
    class or more, so an object is written anew a few times in its life, however many come after it."""
    classes: dict[int, set[str]] = {}
    for name, size in objects:
        if size < SMALL_BYTES:
            classes.setdefault(size.bit_length() // CLASS_BITS, set()).add(name)
    return {name for names in classes.values() if len(names) >= SMALL_MIN for name in names}


def _groups(
    repository: Repository, names: list[str], drop: Collection[bytes], join: Collection[str]
) -> Iterator[list[tuple[str, list[Receipt]]]]:
    """Objects to be replaced together, with the receipts that are to stay."""
    held: list[tuple[str, list[Receipt]]] = []
    seen: set[bytes] = set()
    chunks = 0
    for name in names:
        table = _load(repository, name)
        if table is None:
            continue
        packs = [row.tobytes() for row in table.packs["id"]]
        stay = {pack: row for row, pack in enumerate(packs) if pack not in drop and pack not in seen}
        seen.update(stay)
        if len(stay) == len(packs) and name not in join:
            continue
        receipts = Receipts(ChunkIndex([table]))
        kept = [receipts.of(row) for row in stay.values()]
        del table, receipts  # as large as what becomes of them
        if name not in join:
            yield [(name, kept)]
            continue
        size = sum(len(receipt.ids) for receipt in kept)
        if held and chunks + size > OBJECT_CHUNKS:
            yield held
            held, chunks = [], 0
        held.append((name, kept))
        chunks += size
    if held:
        yield held


def _load(repository: Repository, name: str) -> IndexTable | None:
    try:
        return read_index_object(repository, name)
    except (Missing, Revoked):  # replaced by somebody else; or it does not count, and is left as it is
        return None
