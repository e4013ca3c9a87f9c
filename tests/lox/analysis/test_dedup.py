"""Where deduplication comes from, on trees for which it can be counted by hand."""

from __future__ import annotations

import os
import random

from lox.analysis.dedup import MEASURES, REASONS, dedup
from repository.repository import Repository
from repository.tables.view import View
from tests.lox.running import Shell
from tests.repository.samples import CHUNK, Tree, back_up, chunks_of_content, new_repository

DAY = 86_400 * 10**9


def add(repository: Repository, day: int, tree: Tree, host: str = "box") -> None:
    back_up(repository, {b"data": None, **tree}, host=host, time=day * DAY, started=day * DAY, finished=day * DAY)


def reasons(repository: Repository) -> dict[str, int]:
    found = dedup(View(repository, None)).reasons.to_pylist()
    return {row["reason"]: row["logical"] // CHUNK for row in found}


def test_each_reason_is_told_from_the_others() -> None:
    repository = new_repository()
    one, two, three = (os.urandom(CHUNK) for _ in range(3))
    add(repository, 1, {b"data/a": one + one + two, b"data/b": two})  # within, between files
    add(repository, 2, {b"data/a": one + one + two, b"data/b": three})
    add(repository, 3, {b"data/z": three + one}, host="other")
    assert reasons(repository) == {
        "between snapshots": 3,  # a, unchanged
        "between hosts": 2,
        "hard links": 0,
        "within a file": 1,
        "between files": 1,
        "stored: first of its kind": 3,
    }


def test_all_tables_add_up_to_all_logical_bytes_whatever_the_trees() -> None:
    rng = random.Random(7)
    repository = new_repository()
    pool = [rng.randbytes(CHUNK) for _ in range(30)]
    needed: dict[str, set[bytes]] = {name: set() for name in ("h0", "h1", "h2")}
    logical, unique = 0, set[bytes]()
    trees: dict[str, dict[bytes, bytes | None]] = {name: {} for name in needed}
    for day in range(1, 13):
        host = f"h{rng.randrange(3)}"
        tree = trees[host]
        for _ in range(rng.randrange(4)):
            name = b"data/%d.%s" % (rng.randrange(12), rng.choice([b"txt", b"log"]))
            tree[name] = b"".join(rng.choices(pool, k=rng.randrange(6)))
        add(repository, day, tree, host)
        for content in tree.values():
            logical += len(content or b"")
            unique.update(chunks_of_content(content or b""))
            needed[host].update(chunks_of_content(content or b""))
    found = dedup(View(repository, None))
    rows = found.reasons.to_pylist()
    assert sum(row["logical"] for row in rows) == logical
    assert rows[-1]["logical"] == CHUNK * len(unique)
    for groups in (found.extensions.to_pylist(), found.sizes.to_pylist()):
        assert sum(row["logical"] for row in groups) == logical
        assert all(sum(row[one] for one in MEASURES) == row["logical"] for row in groups)
        for measure, reason in zip(MEASURES, REASONS, strict=True):
            assert sum(row[measure] for row in groups) == {row["reason"]: row["logical"] for row in rows}[reason]
    assert {row["group"] for row in found.extensions.to_pylist()} == {".txt", ".log"}
    for row in found.hosts.to_pylist():
        both = needed[row["host"]] & needed[row["other"]]
        assert row["unique"] == CHUNK * len(both), row


def test_names_of_one_file_are_hard_links_not_copies(shell: Shell, tmp_path: os.PathLike[str]) -> None:
    tree = os.path.join(tmp_path, "tree")
    os.mkdir(tree)
    with open(os.path.join(tree, "file.bin"), "wb") as file:
        file.write(os.urandom(100_000))
    os.link(os.path.join(tree, "file.bin"), os.path.join(tree, "name.bin"))
    shell("backup", tree).ok()
    rows = shell.json("analyze", "dedup")
    found = {row["reason"]: row["logical"] for row in rows if row["type"] == "reason"}
    assert found["hard links"] == found["stored: first of its kind"] == 100_000
    assert rows[-1]["logical_per_unique"] == 2.0
    text = shell("analyze", "dedup").ok().out
    assert "hard links" in text and ".bin" in text and "all snapshots together" in text
