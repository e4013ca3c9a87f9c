"""The index as tables: of all index objects in the store, through the local cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model.batches import Receipt
from model.errors import Damaged, Missing, Revoked
from repository.cache_files import CacheFiles, Group
from repository.document_cache import each
from repository.index_merge import merge_tables
from repository.index_table import INDEX_PREFIX, IndexTable, decode_index, gather_receipts, marked_written
from repository.pack_keys import pack_name
from repository.seal import ObjectKind

if TYPE_CHECKING:
    from repository.repository import Repository

Report = Callable[[Damaged], None]

WRITTEN_FOLDER = "written"  # of what a write-only machine remembers of what it stored
LISTINGS = 10  # of index objects that are replaced whenever they are looked at
GROUP_ROWS = 1 << 18  # rows of index objects held in memory before they go into a file, unless one object has more
READ_BYTES = 16 << 20  # bytes of sealed index objects that are read at once

REPAIR_HINT = "lox repair moves it aside and writes a new one"


def load_tables(repository: Repository, cache_dir: Path | None, on_damage: Report | None = None) -> list[IndexTable]:
    """Tables of all index objects in the store; see `ChunkIndex.load`. A write-only machine knows only its own."""
    if repository.write_only:
        own = None if cache_dir is None else _written(repository, cache_dir)
        return [] if own is None else [file.table for file in own.read(None)]
    for _ in range(LISTINGS - 1):
        try:
            return _load_listed(repository, cache_dir, on_damage)
        except Missing:  # replaced by others that say the same, which the listing did not have yet
            continue
    return _load_listed(repository, cache_dir, on_damage)


def _load_listed(repository: Repository, cache_dir: Path | None, on_damage: Report | None) -> list[IndexTable]:
    """Raises Missing for an object that is gone since it was listed."""
    listed = list(repository.store.list(INDEX_PREFIX))
    cache = None if cache_dir is None else CacheFiles.open(cache_dir / repository.id.hex(), repository)
    known = [] if cache is None else cache.read({name for name, _ in listed})
    seen = {source for file in known for source in file.sources}
    fresh = [(name, size) for name, size in listed if name not in seen]
    damaged: list[str] = []
    groups = _grouped(_read_objects(repository, fresh, on_damage, damaged))
    if cache is not None:
        tables = [file.table for file in cache.add(known, groups)]
    else:
        tables = [table for group, _ in groups for table in group]
        tables = [merge_tables(tables)] if len(tables) > 1 else tables
    if damaged:
        tables = [*tables, *unlisted_packs(repository, tables, on_damage)]
    return tables


def _read_objects(
    repository: Repository, listed: Sequence[tuple[str, int]], on_damage: Report | None, damaged: list[str]
) -> Iterator[tuple[str, IndexTable]]:
    """Names and tables of the objects that open; the names of others go to `damaged`."""

    def read(name: str) -> tuple[str, IndexTable | Damaged]:
        try:
            return name, read_index_object(repository, name)
        except Damaged as error:
            return name, error

    for some in _bounded(listed):
        for name, table in each(repository, read, some):
            if isinstance(table, IndexTable):
                yield name, table
                continue
            if isinstance(table, Revoked):  # it does not count
                continue
            if on_damage is None:
                raise Damaged(table.what, subject=name, why=table.why, hint=REPAIR_HINT) from table
            on_damage(table)
            damaged.append(name)


def read_index_object(repository: Repository, name: str) -> IndexTable:
    """One index object. Raises StoreError, Damaged, NewerFormat; Revoked for one that does not count."""
    data, writer = repository.get_written(ObjectKind.INDEX, name)
    table = decode_index(data, name)
    return table if writer is None else marked_written(table)


def remember_written(repository: Repository, cache_dir: Path, table: IndexTable, name: str) -> None:
    """On a write-only machine: keep the table of an index object it just stored, because it cannot read it back."""
    own = _written(repository, cache_dir)
    if own is not None:
        own.add(own.read(None), [([table], [name])])


def _written(repository: Repository, cache_dir: Path) -> CacheFiles | None:
    return CacheFiles.open(cache_dir / repository.id.hex() / WRITTEN_FOLDER, repository)


def _bounded(listed: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """The names in runs of at most `READ_BYTES`, unless one object is larger."""
    some: list[str] = []
    held = 0
    for name, size in listed:
        if some and held + size > READ_BYTES:
            yield some
            some, held = [], 0
        some.append(name)
        held += size
    if some:
        yield some


def _grouped(objects: Iterable[tuple[str, IndexTable]]) -> Iterator[Group]:
    tables: list[IndexTable] = []
    names: list[str] = []
    rows = 0
    for name, table in objects:
        if tables and rows + len(table) > GROUP_ROWS:
            yield tables, names
            tables, names, rows = [], [], 0
        tables.append(table)
        names.append(name)
        rows += len(table)
    if tables:
        yield tables, names


def unlisted_packs(repository: Repository, tables: Sequence[IndexTable], on_damage: Report | None) -> list[IndexTable]:
    """What the packs that no table names say of themselves: stands in for index objects that are damaged."""
    listed = {row.tobytes() for table in tables for row in table.packs["id"]}
    receipts = []
    for pack_id, size in list_packs(repository):
        if pack_id in listed:
            continue
        try:
            receipts.append(_read_footer(repository, pack_id, size))
        except (Damaged, Missing) as error:
            if on_damage is not None and isinstance(error, Damaged):
                on_damage(error)
    return [gather_receipts(receipts)] if receipts else []


def _read_footer(repository: Repository, pack_id: bytes, size: int) -> Receipt:
    return repository.rereads.read(
        pack_name(pack_id), lambda: repository.packs.read_footer(repository.store, pack_id, size)
    )


def list_packs(repository: Repository) -> Iterable[tuple[bytes, int]]:
    """(id, size) of every pack in the store; names that are no pack's are skipped."""
    for name, size in repository.store.list("packs/"):
        folder, _, text = name.removeprefix("packs/").partition("/")
        if len(text) == 32 and text[:2] == folder and not set(text) - set("0123456789abcdef"):
            yield bytes.fromhex(text), size
