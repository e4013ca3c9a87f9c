"""``lox analyze`` and `lox.open`, against the files on the disk."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

import lox
from lox.analysis.export import export
from lox.analyzing import Damage
from lox.output import Output
from lox.settings import Settings
from lox.tables import Tables
from model.exits import ExitCode
from repository.repository import Repository
from repository.store import LocalStore
from repository.tables.view import View
from tests.lox.running import PASSWORD, Shell
from tests.repository.samples import back_up, plain_rows

WAYS = ("path", "owner", "ext", "age", "host", "tag")


def random_bytes(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def size_on_disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def repository(shell: Shell) -> Repository:
    return Repository.open(LocalStore(str(shell.repository)), PASSWORD)


def tree_of(**files: bytes) -> dict[bytes, bytes | None]:
    """`name_ext` and `folder__name_ext` are paths."""
    tree: dict[bytes, bytes | None] = {b"srv": None, b"srv/a": None, b"srv/b": None}
    return tree | {b"srv/" + name.replace("__", "/").replace("_", ".").encode(): data for name, data in files.items()}


def space(shell: Shell, *arguments: str) -> dict[str, dict[str, Any]]:
    """Rows by name, and the summary under ``""``."""
    *rows, summary = shell.json("analyze", "space", *arguments)
    return {row["name"]: row for row in rows} | {"": summary}


@pytest.mark.parametrize("by", WAYS)
def test_rows_of_space_add_up_to_the_objects_on_the_disk(by: str, shell: Shell, repository: Repository) -> None:
    both = random_bytes(1, 3000)
    made = [
        back_up(repository, tree_of(a__x_log=both, a__y_txt=random_bytes(2, 500)), host="one", tags=("daily", "keep")),
        back_up(repository, tree_of(b__x_log=both, b__z=random_bytes(3, 900)), host="two", tags=("daily",)),
        back_up(repository, tree_of(a__gone=random_bytes(4, 700)), host="three"),
        back_up(repository, tree_of(b__dead=random_bytes(5, 800)), host="three"),
    ]
    shell("tag", made[0].id, "--add", "later").ok()
    shell("forget", made[2].id, made[3].id, "--allow-last").ok()
    for path in (shell.repository / "trash").rglob(made[3].id + "/*"):
        path.unlink()
    rows = space(shell, "--by", by)
    summary = rows.pop("")
    assert sum(row["stored"] for row in rows.values()) == size_on_disk(shell.repository) == summary["stored"]
    files = [row for row in rows.values() if row["what"] == "files"]
    for row in files:
        assert (
            row["stored"] == row["stored_exclusive"] + row["stored_shared"]
            and row["stored_freed"] <= row["stored"] + 1 + row["stored_shared"] * 9
        )
    names = {name for name, row in rows.items() if row["what"] == "overhead"}
    assert {"(manifests)", "(index)", "(snapshots)", "(only in the trash)", "(dead: no snapshot needs it)"} <= names
    assert rows["(dead: no snapshot needs it)"]["stored"] >= 800 and rows["(only in the trash)"]["stored"] >= 700
    if by != "tag":  # there a snapshot may be in several rows
        assert sum(row["logical"] for row in files) == 2 * 3000 + 500 + 900
    assert summary["rows"] == len(files)
    assert "all objects in the store" in shell("analyze", "space", "--by", by).ok().out


def test_space_by_path_tells_exclusive_from_shared(shell: Shell, repository: Repository) -> None:
    both = random_bytes(1, 3000)
    back_up(repository, tree_of(a__x=both, a__own=random_bytes(2, 1000), b__x=both, b__zeros=bytes(2000)))
    back_up(repository, tree_of(a__x=both, a__own=random_bytes(2, 1000), b__x=both, b__zeros=bytes(2000)))
    rows = space(shell, "--by", "path", "--depth", "2")
    a, b = rows["/srv/a"], rows["/srv/b"]
    assert (a["files"], a["logical"], a["unique"]) == (4, 8000, 4000)
    assert (b["logical"], b["unique"]) == (10_000, 3100), "zeros are one chunk of 100 bytes"
    assert 1000 <= a["stored_exclusive"] <= 1100 and a["stored_freed"] == a["stored_exclusive"]
    assert 1500 <= a["stored_shared"] <= 1650 and abs(a["stored_shared"] - b["stored_shared"]) <= 1
    assert b["stored_exclusive"] < 200
    everything = space(shell, "--by", "path", "--depth", "1")["/srv"]
    assert everything["stored_shared"] == 0 and everything["stored_freed"] == everything["stored_exclusive"] >= 4000


def test_a_tag_frees_what_snapshots_without_it_do_not_need(shell: Shell, repository: Repository) -> None:
    both, own = random_bytes(1, 3000), random_bytes(2, 1000)
    back_up(repository, tree_of(a__x=both, a__own=own), tags=("t", "u"))
    back_up(repository, tree_of(a__x=both), tags=("u",))
    rows = space(shell, "--by", "tag")
    assert rows["t"]["stored_exclusive"] == 0 and 1000 <= rows["t"]["stored_freed"] <= 1100, (
        "its own file has another tag as well"
    )
    assert rows["u"]["stored_exclusive"] == 0 and rows["u"]["stored_freed"] >= 4000, (
        "all it needs has the other tag as well"
    )
    assert rows["u"]["unique"] == 4000 and rows["t"]["unique"] == 4000


def test_what_space_says_would_be_freed_is_freed(shell: Shell, tmp_path: Path) -> None:
    shared = random_bytes(1, 2_000_000)
    for host, seed, size in (("one", 2, 1_000_000), ("two", 3, 3_000_000)):
        (tmp_path / host).mkdir()
        (tmp_path / host / "shared").write_bytes(shared)
        (tmp_path / host / "own").write_bytes(random_bytes(seed, size))
        shell("backup", tmp_path / host, "--host", host).ok()
    gone = shell.json("snapshots")[-1]["id"]
    promised = space(shell, "--by", "host")["two"]["stored_freed"]
    assert promised == pytest.approx(3_000_000, rel=0.01)
    packs = shell.repository / "packs"
    before = size_on_disk(packs)
    shell("forget", gone, "--allow-last").ok()
    for _ in range(2):  # what somebody may rely on goes with the next one
        shell("prune", "--trash", "0", "--max-unused", "0%").ok()
    assert before - size_on_disk(packs) == pytest.approx(promised, rel=0.03)


def test_the_largest_rows_and_all_others(shell: Shell, repository: Repository) -> None:
    files = {f"f_{name}": random_bytes(number, 100 * (number + 1)) for number, name in enumerate("abcdefgh")}
    back_up(repository, tree_of(**files))
    rows = space(shell, "--by", "ext", "--top", "3")
    assert list(rows)[:4] == [".h", ".g", ".f", "(5 others)"]
    assert rows["(5 others)"]["stored_freed"] is None
    assert rows["(5 others)"]["logical"] == 100 + 200 + 300 + 400 + 500
    stored = sum(row["stored"] for name, row in rows.items() if name)
    assert stored == size_on_disk(shell.repository) == rows[""]["stored"]


def test_a_damaged_manifest_is_told_and_the_rest_counted(shell: Shell, repository: Repository) -> None:
    back_up(repository, tree_of(a__x=b"1" * 500))
    known = set((shell.repository / "packs").rglob("*"))
    back_up(repository, tree_of(b__y=b"2" * 500))
    new = [path for path in (shell.repository / "packs").rglob("*") if path not in known and path.is_file()]
    assert len(new) == 2
    for path in new:
        path.unlink()
    outcome = shell("--json", "analyze", "space").ok(ExitCode.DAMAGE_FOUND)
    rows = {row["name"]: row for row in outcome.lines if row["type"] == "space"}
    assert "/srv/a" in rows and "/srv/b" not in rows and outcome.err.count('"problem"') == 1
    assert sum(row["stored"] for row in rows.values()) == size_on_disk(shell.repository)


def test_open_gives_tables(shell: Shell, repository: Repository) -> None:
    back_up(repository, tree_of(a__x_log=b"1" * 500), time=1)
    latest = back_up(repository, tree_of(a__x_log=b"2" * 500, b__y=b"3"), time=2)
    tables = lox.open(str(shell.repository), PASSWORD)
    assert tables.snapshots()["snapshot"].to_pylist()[-1] == latest.id
    entries = tables.entries().read_all()
    assert entries["text"].to_pylist() == ["srv", "srv/a", "srv/b", "srv/a/x.log", "srv/b/y"]
    assert tables.entries(latest.id[:10]).read_all().equals(entries)
    joined = tables.entry_chunks("latest").read_all().join(tables.chunks().read_all(), "chunk", join_type="left outer")
    assert None not in joined["pack"].to_pylist()
    assert set(joined["pack"].to_pylist()) <= set(tables.packs()["pack"].to_pylist())


def read(folder: Path, table: str) -> list[dict[str, Any]]:
    return plain_rows(ds.dataset(folder / table, partitioning="hive").to_table())


def about(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "export.json").read_text())
    return found


def test_an_export_is_the_tables(shell: Shell, repository: Repository, tmp_path: Path) -> None:
    made = [back_up(repository, tree_of(a__x_log=bytes([number]) * 500), time=number) for number in range(3)]
    folder = tmp_path / "export"
    summary = shell.json("analyze", "export", folder)[-1]
    tables = lox.open(str(shell.repository), PASSWORD)
    assert about(folder)["complete"] is True and summary["written"] == 3 + 2 * 3
    assert summary["rows"]["entries"] == 3 * 4
    assert pq.read_table(folder / "snapshots").equals(tables.snapshots())
    assert sorted(map(str, read(folder, "chunks"))) == sorted(map(str, tables.chunks().read_all().to_pylist()))
    for snapshot in made:
        mine = [row for row in read(folder, "entries") if row.pop("snapshot") == snapshot.id]
        assert mine == plain_rows(tables.entries(snapshot).read_all())
    assert sum(1 for row in read(folder, "entry_chunks") if row["snapshot"] == made[0].id) == 5
    assert {oct(path.stat().st_mode & 0o777) for path in folder.rglob("*") if path.is_file()} == {"0o600"}


def test_a_folder_that_cannot_be_written_is_named(shell: Shell, repository: Repository, tmp_path: Path) -> None:
    back_up(repository, tree_of(a__one_txt=b"one"))
    (tmp_path / "file").write_bytes(b"")
    outcome = shell("analyze", "export", tmp_path / "file" / "export").ok(ExitCode.FAILURE)
    assert f"the export cannot be written: {tmp_path}/file/export: not a directory" in outcome.err


@pytest.mark.parametrize(("pruned", "code"), [(True, ExitCode.PARTIAL), (False, ExitCode.DAMAGE_FOUND)])
def test_what_a_prune_takes_away_meanwhile_is_no_damage(
    shell: Shell, repository: Repository, tmp_path: Path, pruned: bool, code: ExitCode
) -> None:
    """A view was made, then the repository was pruned under it; a pack that was lost before is damage."""
    for number in range(2):
        back_up(repository, tree_of(**{f"a__{number}_bin": random_bytes(number, 100_000)}))
    if not pruned:
        for path in [path for path in (shell.repository / "packs").rglob("*") if path.is_file()]:
            path.unlink()
    damage = Damage(Output(Settings()))
    damage.view = view = View(repository, None, damage.note)
    assert len(view.index.tables) and len(view.snapshots) == 2
    if pruned:
        shell("forget", "latest").ok()
        shell("prune", "--trash", "0d", "--max-unused", "0").ok()
    for error in export(Tables(view), tmp_path / "export", ["entries"]).damaged:
        damage.note(error)
    assert damage.count and damage.code is code
    assert json.loads((tmp_path / "export" / "export.json").read_text())["complete"] is False
    if pruned:
        shell("analyze", "export", tmp_path / "export").ok()


def test_an_export_goes_on_where_it_was_killed(
    shell: Shell, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        back_up(repository, tree_of(a__x=bytes([number]) * 500), time=number)
    folder, before = tmp_path / "export", os.fsync
    synced: list[int] = []

    def killed(number: int) -> None:
        synced.append(number)
        if len(synced) == 4:  # the description, snapshots, entries of the first; in the middle of those of the second
            raise KeyboardInterrupt
        before(number)

    with monkeypatch.context() as patch:
        patch.setattr("lox.analysis.export.os.fsync", killed)
        shell("analyze", "export", folder).ok(ExitCode.INTERRUPTED)
    assert about(folder)["complete"] is False
    whole = sorted(folder.glob("entries/*/*"))
    assert len(whole) == 1 and pq.read_table(whole[0]).num_rows == 4
    left = whole[0].stat().st_mtime_ns
    (folder / "entries" / whole[0].parent.name / ".entries.parquet.part").write_bytes(b"what a SIGKILL leaves")
    assert shell.json("analyze", "export", folder)[-1]["kept"] == 1
    assert whole[0].stat().st_mtime_ns == left and about(folder)["complete"] is True
    assert len(read(folder, "entries")) == 12
    back_up(repository, tree_of(a__x=b"new"), time=3)
    shell("forget", "--keep-last", "2").ok()
    again = shell.json("analyze", "export", folder)[-1]
    assert again["kept"] == 2 and again["rows"]["entries"] == 8, "one is new, two were forgotten"
    assert len(read(folder, "entries")) == 8


def test_hidden_paths_cannot_be_read_and_still_be_compared(
    shell: Shell, repository: Repository, tmp_path: Path
) -> None:
    tree = tree_of(a__secret_txt=b"1", b__secret_txt=b"2") | {b"srv/" + b"x/" * 600 + b"deep": b"3"}
    for _ in range(2):
        back_up(repository, tree, paths=(b"/srv",))
    folder = tmp_path / "export"
    shell("analyze", "export", folder, "--hash-paths").ok()
    rows = read(folder, "entries")
    assert len(rows) == 2 * len(tree) and len({row["path"] for row in rows}) == len(tree)
    assert not any(word in row["path"] + row["text"].encode() for row in rows for word in (b"secret", b"srv", b"deep"))
    by_path = {row["path"]: row for row in rows}
    assert all(path.rpartition(b"/")[0] in by_path for path in by_path if path.count(b"/") == 1), "folders stay folders"
    secret = [row for row in by_path.values() if row["extension"] == "txt"]
    assert len({row["path"].rpartition(b"/")[2] for row in secret}) == 2, "equal names look different elsewhere"
    (srv,) = [path for path in by_path if path.count(b"/") == 0]
    assert read(folder, "snapshots")[0]["paths"] == [srv]
    assert "another export" in shell("analyze", "export", folder).ok(ExitCode.USAGE).err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter").write_text("dear")
    assert "not empty" in shell("analyze", "export", tmp_path / "mine").ok(ExitCode.USAGE).err


def test_hidden_paths_do_not_show_in_long_extensions(shell: Shell, repository: Repository, tmp_path: Path) -> None:
    back_up(repository, {b"srv": None, b"srv/plan.merger-acme": b"1", b"srv/x.txt": b"2", b"srv/bare": b"3"})
    shell("analyze", "export", tmp_path / "export", "--hash-paths").ok()
    assert {row["extension"] for row in read(tmp_path / "export", "entries")} == {"", "txt", "(not shown)"}


def test_an_export_says_what_it_is_complete_of(shell: Shell, repository: Repository, tmp_path: Path) -> None:
    made = [back_up(repository, tree_of(a__x=bytes([number])), time=number) for number in range(2)]
    folder = tmp_path / "export"
    shell("analyze", "export", folder, "--snapshot", made[1].id[:9], "--table", "entries").ok()
    assert (about(folder)["snapshots"], about(folder)["tables"]) == ([made[1].id], ["entries"])
    shell("analyze", "export", folder).ok()
    assert about(folder)["snapshots"] is None and len(about(folder)["tables"]) == 5


def test_paths_of_an_open_repository_cannot_be_hidden(
    empty: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("LOX_PASSWORD")
    Repository.init(LocalStore(str(empty.repository)), None, encryption="none")
    outcome = empty("analyze", "export", tmp_path / "export", "--hash-paths").ok(ExitCode.USAGE)
    assert "not encrypted" in outcome.err and not (tmp_path / "export").exists()


def test_an_export_of_a_damaged_repository_is_not_complete(
    shell: Shell, repository: Repository, tmp_path: Path
) -> None:
    back_up(repository, tree_of(a__x=b"1" * 500))
    known = set((shell.repository / "packs").rglob("*"))
    back_up(repository, tree_of(b__y=b"2" * 500))
    for path in set((shell.repository / "packs").rglob("*")) - known:
        if path.is_file():
            path.unlink()
    folder = tmp_path / "export"
    shell("analyze", "export", folder).ok(ExitCode.DAMAGE_FOUND)
    assert about(folder)["complete"] is False and len(read(folder, "snapshots")) == 2
    assert len({row["snapshot"] for row in read(folder, "entries")}) == 1
    assert not (folder / "packs" / "packs.parquet").exists(), "nobody knows what is live"
