"""Damage in what earlier backups stored: it costs the files it hits, never the next backup, never other files."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest

from model.chunking import MIB, ChunkerParams
from model.entries import U8
from model.errors import Damaged
from repository import chunk_writer, manifest
from repository.entry_table import chunks_of
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex
from repository.manifest_reader import ManifestReader
from repository.pack import pack_name
from tests.pipelines.helpers import Place, differences

MANY_CHUNKS = ChunkerParams(minimum=1024, average=4096, maximum=65536)


def flip(place: Place, chunk_id: U8) -> None:
    """Change a byte in the segment that holds a chunk."""
    index = ChunkIndex.load(place.repository, None)
    where = index.lookup(chunk_id.reshape(1, 32))
    segment = int(where.segment[0])
    path = place.path / pack_name(index.packs[int(index.segments.pack[segment])])
    data = bytearray(path.read_bytes())
    data[int(index.segments.offset[segment]) + 20] ^= 1
    path.chmod(0o600)
    path.write_bytes(data)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "disk").write_bytes(random.Random(5).randbytes(30 * MIB))
    (tree / "small").write_bytes(b"as it was")
    time.sleep(0.1)  # or both are too young to be trusted unread
    return tree


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(chunk_writer, "SEGMENT_BYTES", 1)  # every list and part in a segment of its own
    return Place(tmp_path / "repository", chunker=MANY_CHUNKS)


def test_a_damaged_chunk_list_concerns_one_file(tree: Path, place: Place, tmp_path: Path) -> None:
    snapshot = place.backup(tree).snapshot
    assert snapshot is not None
    rows = place.rows(snapshot, tree)
    (long,) = np.flatnonzero(rows["depth"].to_numpy()).tolist()
    flip(place, chunks_of(rows).row(long)[0][0])
    report = place.restore(snapshot, tmp_path / "out", verify=True)
    assert report.damaged and [path for path, _ in report.problems] == [os.fsencode(tree / "disk")[1:]]
    out = tmp_path / "out" / os.fspath(tree)[1:]
    assert (out / "small").read_bytes() == b"as it was" and not (out / "disk").exists()
    again = place.backup(tree)
    assert again.snapshot is not None and again.files_unchanged == 1  # the other one is read


@pytest.mark.parametrize("harm", ["flipped", "deleted"])
def test_a_lost_index_object_costs_no_file(harm: str, tree: Path, place: Place, tmp_path: Path) -> None:
    snapshot = place.backup(tree).snapshot
    assert snapshot is not None
    for path in (place.path / "index").iterdir():
        path.chmod(0o600)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data) if harm == "flipped" else path.unlink()
    report = place.restore(snapshot, tmp_path / "out", verify=True)
    assert report.damaged and report.problems == [] and any("index" in note for note in report.notes)
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


def test_a_damaged_table_of_parts_costs_the_comparison(tree: Path, place: Place) -> None:
    snapshot = place.backup(tree).snapshot
    assert snapshot is not None
    flip(place, snapshot.root.ids[0])
    again = place.backup(tree)
    assert again.snapshot is not None and again.problems == [] and again.files_unchanged == 0


def test_a_damaged_part_costs_its_own_entries(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "PART_ROWS_MAX", 16)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(100):
        (tree / f"file{number:03}").write_bytes(b"%d" % number)
    snapshot = place.backup(tree).snapshot
    assert snapshot is not None
    reader = ManifestReader(
        snapshot.root, ChunkFetcher(place.repository, ChunkIndex.load(place.repository, None)).fetch
    )
    assert len(reader.parts) > 4
    lost = reader.parts[3]
    flip(place, np.frombuffer(lost.id, np.uint8))
    report = place.restore(snapshot, tmp_path / "out", verify=True)
    assert report.damaged and [path for path, _ in report.problems] == [lost.first]
    restored = {path.name for path in (tmp_path / "out" / os.fspath(tree)[1:]).iterdir()}
    assert len(restored) == 100 - lost.rows and os.fsdecode(lost.last.rpartition(b"/")[2]) not in restored
    extra = tmp_path / "out" / os.fspath(tree)[1:] / os.fsdecode(lost.last.rpartition(b"/")[2])
    extra.write_bytes(b"of an earlier restore")
    with pytest.raises(Damaged):
        place.restore(snapshot, tmp_path / "out", delete=True)
    assert extra.exists()  # nobody knows whether it is in the snapshot
    assert place.backup(tree).problems == []


def test_what_was_in_a_lost_pack_is_stored_again(tmp_path: Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(3):
        (root / f"file{number}").write_bytes(random.Random(number).randbytes(300_000))
    time.sleep(0.1)
    place = Place(tmp_path / "repository")
    first = place.backup(root)
    data = [path for path in (tmp_path / "repository" / "packs").glob("*/*") if path.stat().st_size > 800_000]
    assert len(data) == 1
    data[0].unlink()
    healed = place.backup(root)
    assert healed.bytes_new == 900_000 and healed.snapshot is not None and first.snapshot is not None
    for snapshot in (first.snapshot, healed.snapshot):
        report = place.restore(snapshot, tmp_path / snapshot.id)
        assert report.problems == []
        assert differences(root, tmp_path / snapshot.id / os.fspath(root)[1:]) == ""
    assert place.backup(root).bytes_new == 0
