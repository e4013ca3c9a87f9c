"""The repository as tables, against what was put in."""

from __future__ import annotations

import os
import random
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest

from model.errors import Damaged, NotFound
from repository.annotations import Changes, annotate
from repository.claims import ClaimTable
from repository.index import ChunkIndex, save_index
from repository.repository import Repository
from repository.snapshot import Snapshot
from repository.tables.of_chunks import chunks_reader, packs_table
from repository.tables.of_entries import entries_reader, entry_chunks_reader
from repository.tables.of_snapshots import snapshots_table
from repository.tables.parts import Parts
from repository.tables.schemas import CHUNKS, ENTRIES, ENTRY_CHUNKS, PACKS, SNAPSHOTS
from repository.tables.view import View
from repository.trash import forget
from tests.repository.samples import CHUNK, Tree, back_up, new_repository, plain_rows, store_content

TREE: Tree = {
    b"": None,
    b"etc": None,
    b"etc/.bashrc": b"x",
    b"etc/Photo.JPEG": b"j" * 250,
    b"etc/a\nb\xff.tar.gz": b"k" * 100,
    b"var": None,
    b"var/empty": b"",
}


def view_of(repository: Repository) -> View:
    return View(repository, None)


def rows(view: View, snapshot: Snapshot) -> list[dict[str, Any]]:
    return plain_rows(entries_reader(view.manifest(snapshot)).read_all())


def test_entries_have_exact_bytes_and_text_for_the_eye() -> None:
    repository = new_repository()
    snapshot = back_up(repository, TREE)
    view = view_of(repository)
    assert entries_reader(view.manifest(snapshot)).schema.equals(ENTRIES)
    by_path = {row["path"]: row for row in rows(view, snapshot)}
    assert by_path.keys() == TREE.keys()
    assert [row["entry"] for row in by_path.values()] == list(range(7))
    odd = by_path[b"etc/a\nb\xff.tar.gz"]
    assert (odd["text"], odd["extension"], odd["kind"]) == ("etc/a\\nb\\xff.tar.gz", "gz", "file")
    assert (odd["size"], odd["content"], odd["chunks"]) == (100, 100, 1)
    assert by_path[b"etc/Photo.JPEG"]["extension"] == "jpeg" and by_path[b"etc/Photo.JPEG"]["chunks"] == 3
    assert [by_path[path]["extension"] for path in (b"etc/.bashrc", b"etc", b"var/empty")] == ["", "", ""]
    assert (by_path[b"etc"]["kind"], by_path[b"etc"]["content"]) == ("directory", 0)


def test_chunks_of_entries_lead_to_their_content() -> None:
    repository = new_repository()
    long = random.Random(1).randbytes(5000 * CHUNK)  # more than a row lists itself
    tree = {**TREE, b"var/long": long, b"var/more": b"m" * 250}
    snapshot = back_up(repository, tree)
    view = view_of(repository)
    found = entry_chunks_reader(view.manifest(snapshot))
    assert found.schema.equals(ENTRY_CHUNKS)
    pairs = found.read_all().to_pylist()
    for entry in rows(view, snapshot):
        mine = [row for row in pairs if row["entry"] == entry["entry"]]
        assert [row["seq"] for row in mine] == list(range(entry["chunks"]))
        assert b"".join(view.fetcher.fetch([row["chunk"] for row in mine])) == (tree[entry["path"]] or b"")
        assert sum(row["size"] for row in mine) == entry["content"]


def test_only_the_parts_that_are_read_are_held() -> None:
    repository = new_repository()
    tree: dict[bytes, bytes | None] = {b"d": None} | {b"d/%06d" % number: b"" for number in range(40_000)}
    snapshot = back_up(repository, tree)
    reader = view_of(repository).manifest(snapshot)
    asked: list[int] = []
    fetch = reader._fetch

    def counting(ids: Any) -> list[bytes]:
        asked.append(len(ids))
        return fetch(ids)

    reader._fetch = counting
    batches = entries_reader(reader)
    assert batches.read_next_batch().num_rows <= 16_384
    assert len(asked) <= 3 < len(reader.parts) + 1 and len(reader.parts) >= 3
    assert sum(batch.num_rows for batch in batches) + 16_384 == 40_001


def test_stored_bytes_of_chunks_add_up_to_those_of_segments() -> None:
    repository = new_repository()
    back_up(repository, {b"a": os.urandom(2000), b"b": b"same" * 300})
    view = view_of(repository)
    chunks = chunks_reader(view).read_all()
    assert chunks.schema.equals(CHUNKS)
    found = chunks.to_pylist()
    segments = {(row["pack"], row["segment"]): row for row in found}
    assert sum(row["stored"] for row in found) == pytest.approx(sum(row["segment_stored"] for row in segments.values()))
    for (pack, number), one in segments.items():
        mine = [row for row in found if (row["pack"], row["segment"]) == (pack, number)]
        assert sum(row["size"] for row in mine) == one["segment_size"]
    packs = packs_table(view).to_pylist()
    sizes = {row["pack"]: row["size"] for row in packs}
    assert sum(sizes.values()) == sum(size for name, size in repository.store.list("packs/"))
    assert {row["kind"] for row in packs} == {"data", "meta"}
    assert sum(row["segment_stored"] for row in packs) == sum(row["segment_stored"] for row in segments.values())
    assert sum(row["chunks"] for row in packs) == len(found)


def test_what_lies_in_several_places_is_used_in_one() -> None:
    repository = new_repository()
    back_up(repository, {b"a": b"1" * 50})
    # Two hosts that did not know of each other: the same chunk in two packs; and one pack in two index objects.
    twice = store_content(repository, ClaimTable(ChunkIndex([])), {b"a": b"1" * 50})
    save_index(repository, twice)
    save_index(repository, twice)
    view = view_of(repository)
    found = chunks_reader(view).read_all().to_pylist()
    wanted = repository.keys.chunk_id(b"1" * 50)
    assert sorted(row["used"] for row in found if row["chunk"] == wanted) == [False, True]
    used = Counter(row["chunk"] for row in found if row["used"])
    assert set(used.values()) == {1} and used.keys() == {row["chunk"] for row in found}
    packs = {row["pack"]: row for row in packs_table(view).to_pylist()}
    assert len(packs) == len(list(repository.store.list("packs/")))
    assert sorted(row["live_chunks"] for row in packs.values() if row["kind"] == "data") == [0, 1]


def test_packs_tell_what_is_live() -> None:
    repository = new_repository()
    first = back_up(repository, {b"a": os.urandom(1000)})
    back_up(repository, {b"a": os.urandom(2000)})
    before = packs_table(view_of(repository))
    assert before.schema.equals(PACKS)
    assert sum(before["live_size"].to_pylist()) == sum(before["segment_size"].to_pylist())
    assert sum(before["dead_stored"].to_pylist()) == pytest.approx(0, abs=1e-6)
    forget(repository, first.id, "test", 5)
    in_trash = packs_table(view_of(repository))
    assert in_trash["live_size"].to_pylist() == before["live_size"].to_pylist(), "it can still be brought back"
    for name, _ in list(repository.store.list("trash/")):
        repository.store.delete(name)
    after = packs_table(view_of(repository)).to_pylist()
    data = [row for row in after if row["kind"] == "data"]
    assert sorted((row["live_size"], row["segment_size"]) for row in data) == [(0, 1000), (2000, 2000)]
    dead = next(row for row in data if not row["live_size"])
    assert dead["dead_stored"] == dead["segment_stored"]
    assert packs_table(view_of(repository), live=False)["live_size"].null_count == len(after)


def test_packs_that_are_missing_or_unknown() -> None:
    repository = new_repository()
    back_up(repository, {b"a": os.urandom(1000)})
    back_up(repository, {b"a": os.urandom(1000)})
    known = dict(repository.store.list("packs/"))
    for name, _ in list(repository.store.list("index/"))[:1]:
        repository.store.delete(name)
    view = view_of(repository)
    leftovers = [row for row in packs_table(view, live=False).to_pylist() if not row["indexed"]]
    assert len(leftovers) == 2 and all(row["size"] in known.values() and row["chunks"] == 0 for row in leftovers)


def test_chunks_of_a_missing_pack_do_not_count() -> None:
    repository = new_repository()
    snapshot = back_up(repository, {b"a": os.urandom(1000)})
    data = next(row for row in packs_table(view_of(repository)).to_pylist() if row["kind"] == "data")
    repository.store.delete(f"packs/{data['pack'].hex()[:2]}/{data['pack'].hex()}")
    view = view_of(repository)
    (missing,) = [row for row in packs_table(view).to_pylist() if row["size"] is None]
    assert missing["pack"] == data["pack"] and missing["live_chunks"] == 0
    assert "data" not in chunks_reader(view).read_all()["kind"].to_pylist()
    assert len(rows(view, snapshot)) == 1


def test_snapshots_with_what_was_said_later() -> None:
    repository = new_repository()
    stats = {"files": 1, "bytes_total": 50, "bytes_new": 40, "bytes_stored": 30}
    snapshot = back_up(repository, {b"a": b"1" * 50}, tags=("daily",), stats=stats)
    annotate(repository, snapshot.id, Changes(add=("kept",), remove=("daily",), comment="first", hold=("law",)), 9)
    table = snapshots_table(view_of(repository))
    assert table.schema.equals(SNAPSHOTS)
    (row,) = plain_rows(table)
    assert (row["snapshot"], row["tags"], row["comment"], row["pinned"]) == (snapshot.id, ["kept"], "first", True)
    assert (row["host"], row["paths"], row["entries"]) == ("box", [b"/data"], 1)
    assert [row[key] for key in ("files", "length_bytes", "new_bytes", "stored_bytes")] == [1, 50, 40, 30]
    assert table["time"].cast(pa.int64()).to_pylist() == [snapshot.time]


def test_parts_are_read_once_and_tell_who_holds_them() -> None:
    repository = new_repository()
    one, two = (back_up(repository, {b"a": b"1" * 250}) for _ in range(2))
    three = back_up(repository, {b"a": b"2" * 250})
    view = view_of(repository)
    parts = Parts(view, [one, two, three])
    assert [part.snapshots.tolist() for part in parts] == [[0, 1], [2]]
    for part, content in zip(parts, (b"1" * 250, b"2" * 250), strict=True):
        entry, place = part.places(view)
        assert entry.tolist() == [0, 0, 0] and (place >= 0).all()
        assert b"".join(view.fetcher.fetch([row.tobytes() for row in part.lists.ids])) == content
    assert parts.needed.sum() == 4, "two parts and two tables of parts"


def test_damage_is_told_where_it_is_met() -> None:
    repository = new_repository()
    snapshot = back_up(repository, {b"a": b"1" * 50})
    view = view_of(repository)
    reader = entries_reader(view.manifest(snapshot))
    for name, _ in list(repository.store.list("packs/")):
        repository.store.delete(name)
    with pytest.raises(Damaged):
        Parts(view_of(repository), [snapshot])
    told: list[Damaged] = []
    assert list(Parts(view_of(repository), [snapshot], told.append)) == [] and len(told) == 1
    view.fetcher._opened.clear()
    with pytest.raises(Damaged):
        reader.read_all()
    with pytest.raises(NotFound):
        view.snapshot("0000")
