"""Churn of trees whose every change is known."""

from __future__ import annotations

import os

from lox.analysis.churn import COLUMNS, churn, hot_spots
from repository.repository import Repository
from repository.tables.view import View
from tests.lox.running import Shell
from tests.repository.samples import CHUNK, Tree, back_up, new_repository

DAY = 86_400 * 10**9


def backed_up(repository: Repository, *trees: Tree, host: str = "box") -> None:
    for day, tree in enumerate(trees, 1):
        back_up(repository, tree, host=host, time=day * DAY, started=day * DAY, finished=day * DAY)


def folder(files: dict[bytes, bytes]) -> dict[bytes, bytes | None]:
    """A tree of these files and the folders above them."""
    folders = {path.rsplit(b"/", depth)[0] for path in files for depth in range(1, path.count(b"/") + 1)}
    return {**dict.fromkeys(folders), **files}


def counts(view: View, path: bytes) -> dict[str, int]:
    row: dict[str, int]
    (row,) = [row for row in churn(view).folders.to_pylist() if row["folder"] == path]
    return row


def test_what_came_and_went_is_counted_where_it_did() -> None:
    repository = new_repository()
    old, new, grown = os.urandom(5 * CHUNK), os.urandom(3 * CHUNK), os.urandom(2 * CHUNK)
    backed_up(
        repository,
        folder({b"data/a/log": old, b"data/b/gone": new, b"data/c/still": old}),
        folder({b"data/a/log": old + grown, b"data/b/come": grown, b"data/c/still": old}),
    )
    view = View(repository, None)
    log = counts(view, b"data/a")
    assert (log["files_changed"], log["logical_added"], log["logical_removed"]) == (1, 2 * CHUNK, 0)
    assert log["unique_added"] == 2 * CHUNK and 0 < log["stored_added"] <= 4 * CHUNK
    other = counts(view, b"data/b")
    assert (other["files_added"], other["files_removed"]) == (1, 1)
    assert (other["logical_added"], other["logical_removed"]) == (2 * CHUNK, 3 * CHUNK)
    assert other["unique_added"] == 0  # the same chunks came with the log
    assert [row["folder"] for row in churn(view).folders.to_pylist()] == [b"data/a", b"data/b"]


def test_a_move_costs_nothing_and_a_return_is_not_new() -> None:
    repository = new_repository()
    content = os.urandom(4 * CHUNK)
    here, there = folder({b"data/x/f": content}), folder({b"data/y/f": content})
    backed_up(repository, here, there, here)
    rows = churn(View(repository, None)).folders.to_pylist()
    assert [(row["logical_added"], row["logical_removed"], row["unique_added"]) for row in rows] == [(400, 400, 0)] * 2
    assert [row["comparisons"] for row in rows] == [2, 2]


def test_sources_are_not_compared_with_each_other() -> None:
    repository = new_repository()
    backed_up(repository, folder({b"data/f": b"a" * 300}), host="one")
    backed_up(repository, folder({b"data/f": os.urandom(300)}), host="two")
    found = churn(View(repository, None))
    assert found.comparisons == 0 and found.folders.num_rows == 0 and hot_spots(found) == []


def test_hot_spots_add_up_and_short_lived_folders_are_suggested() -> None:
    repository = new_repository()
    steady = {b"data/docs/%d/f" % number: os.urandom(CHUNK) for number in range(20)}
    days = []
    for day in range(6):
        files = dict(steady)
        files[b"data/docs/%d/f" % day] = os.urandom(CHUNK)  # a little everywhere
        files[b"data/run/spill/%d" % day] = os.urandom(30 * CHUNK)  # gone the next day
        files[b"data/home/.cache/web/%d" % (day // 3)] = os.urandom(10 * CHUNK) if day % 3 == 0 else b"c" * CHUNK
        days.append(folder(files))
    backed_up(repository, *days)
    found = churn(View(repository, None))
    spots = {spot.folder: spot for spot in hot_spots(found, 0.08)}
    assert set(spots) == {b"data/run/spill", b"data/home/.cache/web", b""}
    assert spots[b"data/run/spill"].exclude == b"/data/run/spill/" and "soon gone" in spots[b"data/run/spill"].reason
    assert "cache" in spots[b"data/home/.cache/web"].reason
    assert spots[b""].exclude is None
    for name in COLUMNS[1:]:
        assert sum(spot.counts[name] for spot in spots.values()) == sum(found.folders[name].to_pylist()), name


def test_the_command(shell: Shell, tmp_path: os.PathLike[str]) -> None:
    tree = os.path.join(tmp_path, "tree")
    os.makedirs(os.path.join(tree, "tmp"))
    for day in range(3):
        with open(os.path.join(tree, "tmp", f"odd\n{day}"), "wb") as file:
            file.write(os.urandom(20_000))
        shell("backup", tree).ok()
    *spots, summary = shell.json("analyze", "churn")
    assert summary["comparisons"] == 2 and summary["suggested_excludes"] == 1
    assert spots[0]["folder"] == f"{tree}/tmp" and spots[0]["logical_added"] == 40_000
    assert spots[0]["suggested_exclude"] == f"{tree}/tmp/"
    text = shell("analyze", "churn").ok().out
    assert f"--exclude '{tree}/tmp/'" in text and "2/2" in text
