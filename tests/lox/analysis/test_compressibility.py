"""Compressibility by kind of file and codec."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lox.analysis.compressibility import KindLots, _in_turns, compressibility, kind_of, stored_by_codec
from lox.analysis.contents import draw_files, read_files
from repository.pack_keys import PackKind
from repository.tables.view import View
from sources.files.scan import ScanOptions
from tests.lox.running import Shell
from tests.pipelines.helpers import Place


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A million random bytes as jpg, three million of text as log."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "photo.JPG").write_bytes(os.urandom(1_000_000))
    for number in range(30):
        words = np.random.default_rng(number).integers(0, 500, 20_000)
        (folder / f"{number}.log").write_bytes(b"".join(b"w%03d " % word for word in words))
    return folder


def sampled(tree: Path, limit: int, **more: Any) -> list[dict[str, Any]]:
    lots: KindLots[Any] = KindLots(limit, lambda thing: thing.path)
    draw_files(lots, [os.fsencode(tree)], ScanOptions())
    rows: list[dict[str, Any]] = compressibility(lots, read_files, **more).to_pylist()
    return rows


def test_kinds_are_told_apart_and_weighted_by_their_bytes(tree: Path) -> None:
    rows = sampled(tree, 1 << 20, codecs=[("zstd", 1), ("lz4", 0)])
    found = {(row["group"], row["codec"]): row for row in rows}
    assert set(found) == {(group, codec) for group in (".jpg", ".log", "(all)") for codec in ("zstd", "lz4")}
    jpg, log, both = (found[group, "zstd"] for group in (".jpg", ".log", "(all)"))
    assert jpg["compressed_per_logical"] == 1.0 and 0.1 < log["compressed_per_logical"] < 0.5
    assert (jpg["logical"], log["logical"], both["logical"]) == (1_000_000, 3_000_000, 4_000_000)
    assert log["sampled"] <= 1 << 20 and jpg["sampled"] == 1_000_000  # a file is drawn whole
    assert both["compressed_per_logical"] == pytest.approx(
        (jpg["compressed_per_logical"] + 3 * log["compressed_per_logical"]) / 4
    )
    assert found[".log", "lz4"]["compressed_per_logical"] > log["compressed_per_logical"]
    assert all(row["cpu_seconds_per_gb"] > 0 for row in rows)


def test_no_time_is_enough_for_one_kind(tree: Path) -> None:
    rows = sampled(tree, 1 << 20, codecs=[("zstd", 1)], seconds=1e-9)
    assert [row["group"] for row in rows] == [".log", "(all)"]


def test_time_that_is_short_goes_round_all_kinds(shell: Shell, tmp_path: Path) -> None:
    """And what was not read is told, not counted as if it were like the rest."""
    (tmp_path / "kinds").mkdir()
    for number in range(8):
        (tmp_path / "kinds" / f"file.{number}").write_bytes(random.Random(number).randbytes(300_000))
    rows = shell.json("analyze", "compressibility", tmp_path / "kinds", "--compression", "gzip:9", "--time", "60s")
    assert {row["group"] for row in rows[:-1]} == {"(all)", *(f".{number}" for number in range(8))}
    assert rows[-1]["logical_left_out"] == 0
    drawn: KindLots[Any] = KindLots(1 << 20, lambda thing: thing.path)
    draw_files(drawn, [os.fsencode(tmp_path / "kinds")], ScanOptions(), region=4 << 20)
    order = [kind for kind, _ in _in_turns({kind: iter([b"1", b"2"]) for kind in drawn.kinds})]
    assert order[:8] == order[8:] and len(set(order)) == 8


def test_what_is_stored_by_codec_adds_up(tree: Path, tmp_path: Path) -> None:
    place = Place(tmp_path / "repository")
    place.backup(tree)
    view = View(place.repository, None)
    rows = {row["codec"]: row for row in stored_by_codec(view).to_pylist()}
    content = view.index.pack_table["kind"][view.index.segments.pack] == PackKind.DATA
    assert sum(row["stored"] for row in rows.values()) == int(view.index.segments.stored[content].sum())
    assert sum(row["unique"] for row in rows.values()) == 4_000_000, "manifests are no content"
    assert rows["zstd"]["stored"] < rows["zstd"]["unique"]


def test_extensions() -> None:
    names = {b"a/b.TXT": ".txt", b"a.b/c": "(none)", b".bashrc": "(none)", b"x.": "(none)", b"e.\xff": ".\\xff"}
    assert {path: kind_of(path) for path in names} == names


def test_the_command_with_and_without_a_repository(shell: Shell, tree: Path) -> None:
    rows = shell.json("analyze", "compressibility", tree, "--compression", "zstd:3")
    assert {row["type"] for row in rows} == {"sample", "summary"} and rows[-1]["groups"] == 2
    shell("backup", tree).ok()
    rows = shell.json("analyze", "compressibility", "--compression", "zstd:3")
    assert {row["type"] for row in rows} == {"stored", "sample", "summary"}
    text = shell("analyze", "compressibility", "--compression", "zstd:3").ok().out
    assert "SEGMENTS" in text and "zstd:3" in text and "CPU s/GB" in text
