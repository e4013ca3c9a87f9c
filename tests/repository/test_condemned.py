"""Condemned packs: the marks, and that a backup relies on none of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from model.errors import Damaged, NewerFormat
from repository.condemned import CONDEMNED_PREFIX, Condemned, Reason, condemn, condemned_packs, load_condemned
from repository.documents import encode_document
from repository.index import ChunkIndex
from repository.pack import PackKind, PackReader
from repository.seal import ObjectKind
from tests.pipelines.helpers import Place, differences

PACKS = [bytes([number]) * 16 for number in range(5)]


def test_marks_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = Place(tmp_path / "repository").repository
    assert condemned_packs(repository) == frozenset()
    first = condemn(repository, PACKS[:2], Reason.UNUSED, 7)
    monkeypatch.setattr("repository.condemned.MARK_PACKS", 2)
    more = condemn(repository, [*PACKS[1:], PACKS[4]], Reason.DAMAGED, 5)
    assert len(first) == 1 and len(more) == 2
    assert condemned_packs(repository) == frozenset(PACKS)
    assert load_condemned(repository) == sorted([*more, *first], key=lambda mark: (mark.time, mark.name))
    repository.store.delete(first[0].name)
    assert condemned_packs(repository) == frozenset(PACKS[1:])


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"version": 2}, NewerFormat),
        ({"reason": "boredom"}, Damaged),
        ({"packs": ["00"]}, Damaged),
        ({"packs": [5]}, Damaged),
        ({"packs": "00" * 16}, Damaged),
        ({"time": "now"}, Damaged),
    ],
)
def test_a_mark_that_makes_no_sense_is_not_skipped(
    tmp_path: Path, change: dict[str, object], error: type[Exception]
) -> None:
    repository = Place(tmp_path / "repository").repository
    good = {"version": 1, "time": 1, "reason": "unused", "packs": [PACKS[0].hex()]}
    name = CONDEMNED_PREFIX + "0" * 32
    assert Condemned.decode(name, encode_document(good)).packs == (PACKS[0],)
    repository.put_object(ObjectKind.MARK, name, encode_document(good | change))
    with pytest.raises(error):
        load_condemned(repository)


def test_a_backup_stores_anew_what_lies_in_condemned_packs(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(os.urandom(300_000))
    place = Place(tmp_path / "repository")
    first = place.backup(tree)
    packs = [bytes.fromhex(name.rpartition("/")[2]) for name, _ in place.repository.store.list("packs/")]
    condemn(place.repository, packs, Reason.DAMAGED, 1)
    assert first.snapshot is not None
    assert place.restore(first.snapshot, tmp_path / "before").problems == [], "who reads may still use them"
    second = place.backup(tree)
    assert second.bytes_new >= 300_000
    for pack in packs:
        place.repository.store.delete(f"packs/{pack.hex()[:2]}/{pack.hex()}")
    assert second.snapshot is not None
    assert place.restore(second.snapshot, tmp_path / "out").problems == []
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""


def test_the_parent_may_be_read_from_condemned_packs(tmp_path: Path) -> None:
    """Or all of a source would be read again whenever its last manifest is moved."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        (tree / f"file{number}").write_bytes(os.urandom(30_000))
    place = Place(tmp_path / "repository")
    time.sleep(0.1)  # or they are too young to be trusted unread
    place.backup(tree)
    index = ChunkIndex.load(place.repository, None)
    reader = PackReader(place.repository.keys)
    meta = []
    for name, size in place.repository.store.list("packs/"):
        pack = bytes.fromhex(name.rpartition("/")[2])
        if reader.read_footer(place.repository.store, pack, size).pack_kind == PackKind.META:
            meta.append(pack)
    assert len(index.packs) == 2 and len(meta) == 1
    condemn(place.repository, meta, Reason.REWRITTEN, 1)
    report = place.backup(tree)
    assert report.files_unchanged == 20 and report.bytes_read == 0
    place.repository.store.delete(f"packs/{meta[0].hex()[:2]}/{meta[0].hex()}")
    assert report.snapshot is not None
    assert place.restore(report.snapshot, tmp_path / "out").problems == []
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
