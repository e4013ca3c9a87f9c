"""Rows wait for those before them: how many may, whatever the tree looks like."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from model.batches import Content, Stored
from pipelines.backup import BackupRequest, backup
from pipelines.fitting import Fitting
from pipelines.options import BACKUP, MIB, EngineOptions, Watch
from stages.commit import Commit
from tests.pipelines.helpers import Place, differences

ROWS = 16


def test_one_new_file_before_many_unchanged_ones_holds_up_a_bounded_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(100 * ROWS):
        os.mknod(tree / f"file{number:05}")
    time.sleep(0.1)  # or they are too young to be trusted unread
    place, engine = Place(tmp_path / "repository"), EngineOptions("threads", 2, 256 * MIB, batch_rows=ROWS)
    request = BackupRequest((os.fsencode(tree),))
    backup(place.repository, request, engine, Watch())
    (tree / "a").write_bytes(b"its pack is never full")
    held = []
    push = Commit.push

    def watched(self: Commit[Any], output: Stored[Content]) -> Iterable[int]:
        tickets = push(self, output)
        held.append(sum(content.listing.rows for content in self._waiting.values()))
        return tickets

    monkeypatch.setattr(Commit, "push", watched)
    report = backup(place.repository, request, engine, Watch())
    assert report.files_unchanged == 100 * ROWS and report.snapshot is not None
    assert ROWS < max(held) <= Fitting(engine, BACKUP).batches_open * ROWS < 100 * ROWS
    place.restore(report.snapshot, tmp_path / "out")
    assert differences(tree, tmp_path / "out" / os.fspath(tree)[1:]) == ""
