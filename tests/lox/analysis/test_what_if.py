"""What-if against the truth: repositories with these parameters, and really backed up."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lox.analysis.contents import draw_files, draw_versions, read_files, versions_reader
from lox.analysis.copies import Copies
from lox.analysis.estimates import RUNS_BYTES, compression_of
from lox.analysis.lots import Lot
from lox.analysis.unseen import unseen_total
from lox.analysis.what_if import what_if
from model.chunking import KIB, MIB, ChunkerParams
from model.exits import ExitCode
from repository.pack_keys import PackKind
from repository.query import stats
from repository.tables.view import View
from sources.files.scan import ScanOptions
from tests.lox.running import Shell
from tests.pipelines.helpers import Place

TRIED = (
    ChunkerParams("gear", 4 * KIB, 16 * KIB, 256 * KIB),
    ChunkerParams("gear", 4 * KIB, 64 * KIB, 4 * MIB),
    ChunkerParams("fixed", 4 * KIB, 32 * KIB, 32 * KIB),
)


def folder(place: Path) -> Path:
    (place / "tree").mkdir()
    return place / "tree"


def make_tree(folder: Path, size: int, seed: int = 5) -> None:
    """Files of many lengths, some whole copies of others, some copies with a few bytes put in or replaced."""
    rng = random.Random(seed)
    made: list[bytes] = []
    total = number = 0
    while total < size:
        fate = rng.random()
        content = rng.randbytes(int(2000 * 400 ** rng.random()))
        if made and fate < 0.25:
            content = rng.choice(made)
        elif made and fate < 0.45:
            old = rng.choice(made)
            at = rng.randrange(len(old))
            content = old[:at] + rng.randbytes(100) + old[at:]
        elif fate < 0.6:
            content = b"".join(b"line %d of a log\n" % rng.randrange(1000) for _ in range(len(content) // 18))
        made.append(content)
        place = folder / f"{number % 40:02d}"
        place.mkdir(exist_ok=True)
        (place / f"{number}.bin").write_bytes(content)
        total, number = total + len(content), number + 1
    (folder / "empty").write_bytes(b"")


def truth(place: Path, tree: Path, params: ChunkerParams) -> dict[str, float]:
    """What a repository with these parameters really holds of the tree."""
    where = Place(place, chunker=params)
    report = where.backup(tree)
    view = View(where.repository, None)
    assert report.snapshot is not None
    held = stats(where.repository, view.index, [view.manifest(report.snapshot)])
    data = view.index.pack_table["kind"][view.index.segments.pack] == PackKind.DATA
    bases = np.cumsum([0, *(len(table.segments) for table in view.index.tables)]).tolist()
    chunks = sum(
        int(data[table.segment.astype(np.int64) + base].sum())
        for table, base in zip(view.index.tables, bases, strict=False)
    )
    return {"unique": held.unique, "chunks": chunks, "stored": int(view.index.segments.stored[data].sum())}


def check(rows: list[dict[str, Any]], tmp_path: Path, tree: Path, names: tuple[str, ...]) -> list[str]:
    """The table of predictions and truths; which of them are outside their interval is in its last column."""
    lines = [f"{'chunks':>14} {'':>7} {'predicted':>12} {'low':>12} {'high':>12} {'truth':>12} {'error':>7}"]
    for number, (params, row) in enumerate(zip(TRIED, rows, strict=True)):
        real = truth(tmp_path / f"real {number}", tree, params)
        for name in names:
            error = row[name] / real[name] - 1
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            inside = low <= real[name] <= high
            lines.append(
                f"{params.kind:>5} {params.average >> 10:>4} KiB {name:>7} {row[name]:>12,.0f} {low:>12,.0f} "
                f"{high:>12,.0f} {real[name]:>12,.0f} {error:>+7.1%}{'' if inside else '  OUTSIDE'}"
            )
    print("\n".join(lines))
    return lines


def test_what_is_all_read_is_foretold_but_for_the_key(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_tree(tree, 12 * MIB)
    lot: Lot[Any] = Lot(1 << 30)
    files = draw_files(lot, [os.fsencode(tree)], ScanOptions())
    found = what_if(lot, files, read_files, TRIED, seed=1)
    assert found.fraction == 1.0 and found.sampled == found.logical
    lines = check(found.table.to_pylist(), tmp_path, tree, ("unique", "chunks"))
    assert [line for line in lines if "OUTSIDE" in line] == []


@pytest.mark.slow
def test_a_sample_foretells_what_the_whole_will_take(tmp_path: Path) -> None:
    """Of 9 predictions with intervals of two standard deviations one may miss; none by far."""
    tree = tmp_path / "tree"
    tree.mkdir()
    make_tree(tree, 150 * MIB)
    lot: Lot[Any] = Lot(50 * MIB, seed=2)
    runs: Lot[Any] = Lot(RUNS_BYTES)
    files = draw_files(lot, [os.fsencode(tree)], ScanOptions(), runs=runs, copies=Copies())
    found = what_if(lot, files, read_files, TRIED, compression=compression_of(runs, read_files), seed=2)
    assert 0.2 < found.fraction < 0.45
    lines = check(found.table.to_pylist(), tmp_path, tree, ("unique", "chunks", "stored"))
    assert sum("OUTSIDE" in line for line in lines) <= 1
    rows = found.table.to_pylist()
    for row in rows:
        assert row["unique_high"] - row["unique_low"] < row["unique"], "an interval that says something"


def test_versions_in_a_repository_are_cut_anew(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_tree(tree, 4 * MIB)
    where = Place(tmp_path / "repository", chunker=TRIED[1])
    where.backup(tree)
    (tree / "00" / "0.bin").write_bytes((tree / "00" / "0.bin").read_bytes() + b"more")
    where.backup(tree)
    view = View(where.repository, None)
    lot: Lot[Any] = Lot(1 << 30)
    files, logical = draw_versions(lot, view)
    found = what_if(lot, files, versions_reader(view), TRIED[1:2], logical=logical, seed=3)
    (row,) = found.table.to_pylist()
    held = stats(where.repository, view.index, [view.manifest(one) for one in view.snapshots])
    assert found.logical == held.logical
    assert row["unique_low"] <= held.unique <= row["unique_high"]
    assert row["logical_per_unique"] == pytest.approx(held.logical / row["unique"])


@pytest.mark.parametrize("fraction", [0.15, 0.4, 1.0])
def test_copies_that_were_not_drawn_are_allowed_for(fraction: float) -> None:
    """Chunks held by 1, 2 and 6 clusters each, drawn by lot: the estimate is near the truth, the naive one is not."""
    rng = np.random.default_rng(4)
    holders = np.repeat([1, 2, 6], [4000, 2500, 700])
    size = rng.integers(1000, 100_000, len(holders))
    drawn = rng.binomial(holders, fraction)
    seen = drawn > 0
    found = unseen_total(size[seen], drawn[seen], fraction, float((size * holders).sum()))
    assert found == pytest.approx(size.sum(), rel=0.05)
    naive = float(size[seen].sum()) / float((size * drawn).sum()) * float((size * holders).sum())
    assert fraction == 1.0 or naive > 1.15 * size.sum()


def test_a_lot_keeps_within_its_limit_and_clusters_whole() -> None:
    lot: Lot[int] = Lot(50_000, seed=9)
    for number in range(20_000):
        lot.offer(b"%d" % (number % 4000), number, 100)
    kept = [one for _, some in lot.rounds() for one in some]
    assert 20_000 <= sum(one.size for one in kept) <= 50_000
    assert lot.fraction == pytest.approx(len(kept) / 20_000, rel=0.25)
    clusters: dict[int, int] = {}
    for one in kept:
        clusters[one.thing % 4000] = clusters.get(one.thing % 4000, 0) + 1
    assert set(clusters.values()) == {5}
    again: Lot[int] = Lot(50_000, seed=9)
    for number in reversed(range(20_000)):
        again.offer(b"%d" % (number % 4000), number, 100)
    assert {one.thing for _, some in again.rounds() for one in some} == {one.thing for one in kept}


def test_a_long_file_is_cut_as_a_short_one_would_be(tmp_path: Path) -> None:
    """Bodies of 8 MiB are an affair of reading: a file of 20 MiB has the chunks that it has in a repository."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "long").write_bytes(random.Random(1).randbytes(20 * MIB) + bytes(3 * MIB))
    lot: Lot[Any] = Lot(1 << 30)
    files = draw_files(lot, [os.fsencode(tree)], ScanOptions())
    rows = what_if(lot, files, read_files, TRIED, seed=1).table.to_pylist()
    assert rows[2]["chunks"] == 20 * 32 + 1 and rows[2]["unique"] == 20 * MIB + 32 * KIB
    assert rows[0]["unique"] == pytest.approx(20 * MIB, rel=0.03)  # and the first of all zeros, 256 KiB long


def test_the_command_before_the_first_backup(empty: Shell, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    make_tree(tree, 2 * MIB)
    rows = empty.json("analyze", "what-if", tree, "--chunks", "4KiB/16KiB/1MiB", "--fixed", "16KiB")
    assert [(row["kind"], row["average"]) for row in rows[:-1]] == [("gear", 16 * KIB), ("fixed", 16 * KIB)]
    assert rows[0]["unique_low"] <= rows[0]["unique"] <= rows[0]["unique_high"] <= rows[0]["logical"]
    assert rows[-1]["sampled"] + rows[-1]["copies"] == rows[-1]["logical"] == rows[0]["logical"]
    assert rows[-1]["fraction"] == 1.0
    text = empty("analyze", "what-if", tree, "--fixed", "16KiB").ok().out
    assert "16.0 KiB fixed" in text and "JUMPS/GiB" in text
    assert "not chunk sizes" in empty("analyze", "what-if", tree, "--chunks", "1/2").ok(2).err


def test_time_that_is_over_leaves_a_whole_sample(tmp_path: Path) -> None:
    """Also in the midst of a round: what was read of that is not counted, so the estimate is that of whole rounds."""
    make_tree(folder(tmp_path), 12 * MIB)
    roots = [os.fsencode(tmp_path / "tree")]

    def estimate(seconds: float | None, bodies: int) -> Any:
        lot: Lot[Any] = Lot(1 << 40, seed=2)
        files = draw_files(lot, roots, ScanOptions())
        left = [bodies]

        def read(drawn: Any) -> Any:
            for body in read_files(drawn):
                left[0] -= 1
                if left[0] < 0:
                    time.sleep(max(seconds or 0, 0))
                yield body

        return what_if(lot, files, read, TRIED, seconds=seconds, seed=2)

    whole = estimate(None, 0)
    cut = estimate(2.0, 4)
    assert 0 < cut.fraction < 1 == whole.fraction and cut.sampled < whole.sampled
    lot: Lot[Any] = Lot(1 << 40, seed=2)
    draw_files(lot, roots, ScanOptions())
    assert cut.sampled == sum(one.size for high, some in lot.rounds() if high <= cut.fraction for one in some)
    for row, truth in zip(cut.table.to_pylist(), whole.table.to_pylist(), strict=True):
        assert row["unique_low"] * 0.9 <= truth["unique"] <= row["unique_high"] * 1.1


def test_chunks_of_one_length_are_known_exactly_when_all_was_read(tmp_path: Path) -> None:
    make_tree(folder(tmp_path), 4 * MIB)
    lot: Lot[Any] = Lot(1 << 40)
    files = draw_files(lot, [os.fsencode(tmp_path / "tree")], ScanOptions())
    (row,) = what_if(lot, files, read_files, TRIED[2:]).table.to_pylist()
    assert row["unique_low"] == row["unique"] == row["unique_high"] and row["chunks_low"] == row["chunks_high"]


def test_holes_of_sparse_files_are_no_content_that_was_saved(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "sparse").mkdir()
    with (tmp_path / "sparse" / "file").open("wb") as file:
        file.write(os.urandom(200_000))
        file.truncate(1 << 30)
    shell("backup", tmp_path / "sparse").ok()
    *_, row, summary = shell.json("analyze", "what-if", "--fixed", "64KiB")
    assert row["logical"] == summary["logical"] < 1 << 20 and row["logical_per_unique"] < 1.1
    (found,) = (one for one in shell.json("analyze", "space") if one.get("what") == "files")
    assert found["logical"] == found["unique"] < 1 << 20
    (dedup,) = (one for one in shell.json("analyze", "dedup") if one["type"] == "summary")
    assert shell.json("stats")[0]["logical"] == dedup["logical"] == found["logical"]


@pytest.mark.parametrize("options", [["--seed", "-1"], ["--seed", "9" * 40], ["--time", "-1"], ["--time", "nan"]])
def test_nonsense_is_refused(empty: Shell, tmp_path: Path, options: list[str]) -> None:
    for name in ("what-if", "compressibility"):
        assert "invalid value" in empty("analyze", name, tmp_path, *options).ok(ExitCode.USAGE).err


def with_large_copies(tree: Path) -> int:
    """Adds nine copies of a file of 1 MiB; the bytes of all files that differ."""
    large = random.Random(1).randbytes(MIB)
    for number in range(9):
        (tree / f"large{number}").write_bytes(large)
    files = [path.read_bytes() for path in tree.rglob("*") if path.is_file()]
    return sum(map(len, set(files)))


@pytest.mark.parametrize("seed", range(4))
def test_a_few_large_copies_are_known_whatever_is_drawn(tmp_path: Path, seed: int) -> None:
    """Seen to be copies without being drawn, they make no sample useless."""
    tree, rng = folder(tmp_path), random.Random(4)
    for number in range(250):
        (tree / f"{number}").write_bytes(rng.randbytes(int(1000 * 300 ** rng.random())))
    truth = with_large_copies(tree)
    lot: Lot[Any] = Lot(4 * MIB, seed)
    count = draw_files(lot, [os.fsencode(tree)], ScanOptions(), copies=Copies())
    found = what_if(lot, count, read_files, TRIED[:1], seed=seed + 1)
    (row,) = found.table.to_pylist()
    assert found.copies == 8 * MIB and found.fraction < 0.6
    assert row["logical"] == truth + 8 * MIB
    assert row["unique_low"] <= truth <= row["unique_high"]
    assert row["unique"] == pytest.approx(truth, rel=0.05)


def test_copies_are_told_by_what_stands_at_some_places(tmp_path: Path) -> None:
    content = bytearray(random.Random(1).randbytes(MIB))
    places = {
        "first": content,
        "same": content,
        "shorter": content[:-1],
        "small": content[:1000],
        "alike": content[:1000],
    }
    places["end"] = bytearray(content)
    places["end"][-1] ^= 1
    places["half"] = bytearray(content)
    places["half"][: MIB // 2] = bytes(MIB // 2)
    places["again"] = places["half"]
    for name, data in places.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "link").symlink_to("first")
    copies, asked = Copies(), [*places, "link", "gone", "first"]
    paths = {name: os.fsencode(tmp_path / name)[1:] for name in asked}
    known = {name for name in asked if copies.has(paths[name], len(places.get(name, content)))}
    assert known == {"same", "again", "first"}, "the first was asked about twice"


@pytest.mark.parametrize("seed", range(4))
def test_a_few_large_copies_that_are_not_drawn_lie_in_the_interval(tmp_path: Path, seed: int) -> None:
    """Nine copies of one file are a third of everything: a sample has all of them or none."""
    tree = folder(tmp_path)
    make_tree(tree, 18 * MIB, seed=3)
    truth = with_large_copies(tree)
    lot: Lot[Any] = Lot(3 * MIB, seed)
    count = draw_files(lot, [os.fsencode(tree)], ScanOptions())
    (row,) = what_if(lot, count, read_files, TRIED[:1], seed=seed + 1).table.to_pylist()
    assert row["unique_low"] <= truth, (row["unique_low"], row["unique"], truth)
