"""What a snapshot says of files with several names, of files that change while they are read, and of odd chunks."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from model.batches import BODY_MAX
from model.chunking import MIB, ChunkerParams
from stages.chunk import Chunker
from tests.pipelines.helpers import Place, differences


def below(target: Path, path: Path) -> Path:
    return target / os.fspath(path)[1:]


def test_every_name_of_a_sparse_file_is_whole(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name, size in (("small", 3 * MIB), ("large", 3 * BODY_MAX)):
        with open(tree / name, "wb") as file:
            file.write(b"begin" * 2000)
            file.seek(size // 2)
            file.write(random.Random(name).randbytes(size // 3))
            file.truncate(size)
        os.link(tree / name, tree / f"{name} too")
        os.setxattr(tree / name, "user.note", b"kept")
    place = Place(tmp_path / "repository")
    report = place.backup(tree)
    assert report.problems == [] and report.snapshot is not None
    place.restore(report.snapshot, tmp_path / "all")
    assert differences(tree, below(tmp_path / "all", tree)) == ""
    for name in ("small too", "large too"):
        target = tmp_path / name
        wanted = (os.fsencode(tree / name)[1:],)
        assert place.restore(report.snapshot, target, paths=wanted).problems == []
        restored = below(target, tree / name)
        assert restored.read_bytes() == (tree / name).read_bytes()
        assert os.getxattr(restored, "user.note") == b"kept"


@pytest.mark.parametrize(
    "params", [ChunkerParams(maximum=8 * MIB), ChunkerParams("fixed", 8 * MIB, 8 * MIB, 8 * MIB)], ids=["gear", "fixed"]
)
def test_chunks_longer_than_a_segment(params: ChunkerParams, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"before")
    (tree / "zeros").write_bytes(bytes(20 * MIB))
    (tree / "z").write_bytes(b"after")
    place = Place(tmp_path / "repository", chunker=params)
    report = place.backup(tree)
    assert report.problems == [] and report.snapshot is not None
    place.restore(report.snapshot, tmp_path / "out")
    assert differences(tree, below(tmp_path / "out", tree)) == ""


def test_a_long_file_with_a_gap_is_never_taken_for_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two lanes that saw different content of a mapped file (no time stamp tells) may disagree where a chunk ends."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "disk").write_bytes(random.Random(5).randbytes(3 * BODY_MAX))
    params = ChunkerParams(minimum=1024, average=4096, maximum=65536)  # so many chunks that lists name them
    place = Place(tmp_path / "repository", chunker=params, lanes=1)
    begin = Chunker._begin
    monkeypatch.setattr(
        Chunker, "_begin", lambda self, listing, piece: begin(self, listing, piece) + (5 if piece.index == 1 else 0)
    )
    report = place.backup(tree)
    assert [text for _, text in report.problems] == ["content is incomplete"]
    monkeypatch.undo()
    assert place.backup(tree).problems == []
    rows = place.rows(place.backup(tree).snapshot, tree)  # type: ignore[arg-type]
    assert np.count_nonzero(rows["depth"].to_numpy()) == 1
