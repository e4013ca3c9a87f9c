"""lox why: what it says of files whose history is known, because the test made it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from model.exits import ExitCode
from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import LocalStore
from tests.lox.running import PASSWORD, Shell

MIB = 1 << 20
SETTLED = 0.12  # seconds after which times of a file are trusted


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    return folder


def settle(shell: Shell, tree: Path, *options: str) -> None:
    """A backup of a tree in which nothing has changed just now."""
    time.sleep(SETTLED)
    shell("backup", tree, *options).ok()


def why(shell: Shell, path: Path | bytes, snapshot: str = "latest") -> dict[str, Any]:
    (found,) = shell.json("why", snapshot, path)
    return found


def share(found: dict[str, Any], origin: str) -> float:
    """Which part of the unique bytes came from where."""
    sizes = {one["origin"]: one["unique_bytes"] for one in found["origins"]}
    return float(sizes.get(origin, 0) / found["unique_bytes"])


def test_a_first_backup_knows_nothing_before_it(shell: Shell, tree: Path) -> None:
    (tree / "one").write_bytes(os.urandom(3 * MIB))
    settle(shell, tree)
    found = why(shell, tree / "one")
    assert (found["state"], found["read"], found["parent"]) == ("new", True, None)
    assert "no parent to compare with" in found["reasons"][0]
    assert share(found, "nothing known: new") == 1.0
    # Random bytes do not compress: a restore fetches them once, from a pack or two, in few ranges.
    assert 3 * MIB <= found["restore"]["stored_bytes_fetched"] < 3.1 * MIB
    assert 1 <= found["restore"]["ranges"] <= 4 and found["restore"]["missing_chunks"] == 0


def test_changed_unchanged_touched_and_new(shell: Shell, tree: Path) -> None:
    start = os.urandom(2 * MIB)
    for name in ("grown", "same", "touched", "mode"):
        (tree / name).write_bytes(start if name == "grown" else os.urandom(50_000))
    settle(shell, tree)
    (tree / "grown").write_bytes(start + os.urandom(MIB))
    os.utime(tree / "touched", ns=(1, 1))
    (tree / "mode").chmod(0o600)
    (tree / "new").write_bytes(os.urandom(1000))
    shell("backup", tree).ok()
    grown = why(shell, tree / "grown")
    assert (grown["state"], grown["read"], grown["content_changed"]) == ("changed", True, True)
    assert grown["changed"] == ["size", "mtime", "ctime"]
    assert 0.55 < share(grown, "same path in the parent") < 0.67
    assert share(grown, "same path in the parent") + share(grown, "nothing known: new") == pytest.approx(1)
    touched = why(shell, tree / "touched")
    assert touched["changed"] == ["mtime", "ctime"] and touched["content_changed"] is False
    assert "its content is the same" in touched["reasons"][0]
    mode = why(shell, tree / "mode")
    assert (mode["changed"], mode["metadata_changed"]) == (["ctime"], ["mode"])
    same = why(shell, tree / "same")
    assert (same["state"], same["read"], same["changed"]) == ("unchanged", False, [])
    new = why(shell, tree / "new")
    assert new["state"] == "new" and "no entry of this path" in new["reasons"][0]
    below = why(shell, tree)["entries_below"]
    assert below == {"new": 1, "changed": 3, "unchanged": 1, "gone": 0}


def test_forced_by_mode_full_although_nothing_had_changed(shell: Shell, tree: Path) -> None:
    (tree / "file").write_bytes(b"x" * 5000)
    settle(shell, tree)
    shell("backup", tree, "--mode", "full").ok()
    found = why(shell, tree / "file")
    assert (found["state"], found["read"], found["mode"]) == ("unchanged", True, "full")
    assert found["reasons"] == ["everything was read: the mode was full", "none of what a scan compares had changed"]


def test_times_that_prove_nothing(shell: Shell, tree: Path) -> None:
    (tree / "file").write_bytes(b"x" * 5000)
    settle(shell, tree)
    repository = Repository.open(LocalStore(str(shell.repository)), PASSWORD)
    (first,) = load_all(repository)
    changed = (tree / "file").stat().st_ctime_ns
    first._replace(time=first.time + 1, started=changed + 10_000_000).save(repository)
    shell("backup", tree).ok()
    found = why(shell, tree / "file")
    assert (found["state"], found["read"]) == ("unchanged", True)
    assert "within 50 ms" in found["reasons"][0]


def test_content_known_from_other_files_snapshots_and_hosts(shell: Shell, tree: Path) -> None:
    content, other = os.urandom(MIB), os.urandom(MIB)
    (tree / "a").write_bytes(content)
    settle(shell, tree, "--host", "web1")
    (tree / "a").rename(tree / "renamed")
    (tree / "copy one").write_bytes(other)
    (tree / "copy two").write_bytes(other)
    settle(shell, tree, "--host", "web1")
    renamed = why(shell, tree / "renamed")
    assert renamed["state"] == "new" and "renamed or linked" in renamed["reasons"][0]
    assert share(renamed, "older snapshots of this host") == 1.0
    (origin,) = renamed["origins"]
    assert [one["path"] for one in origin["holders"]] == [str(tree / "a")]
    twin = why(shell, tree / "copy two")
    assert share(twin, "other files of this snapshot") == 1.0
    assert twin["origins"][0]["holders"][0]["path"] == str(tree / "copy one")
    settle(shell, tree, "--host", "web2")
    elsewhere = why(shell, tree / "copy one")
    assert share(elsewhere, "snapshots of other hosts") == 1.0
    assert {one["host"] for one in elsewhere["origins"][0]["holders"]} == {"web1"}


def test_left_out_before_and_gone_since(shell: Shell, tree: Path) -> None:
    (tree / "kept.log").write_bytes(b"log")
    (tree / "gone").write_bytes(b"gone")
    settle(shell, tree, "--exclude", "*.log")
    missing = shell("why", "latest", tree / "kept.log").ok(ExitCode.FAILURE)
    assert "it was excluded" in missing.err
    (tree / "gone").unlink()
    settle(shell, tree)
    found = why(shell, tree / "kept.log")
    assert found["state"] == "new" and "the parent did not hold it: it was excluded" in found["reasons"][0]
    gone = shell("why", "latest", tree / "gone").ok(ExitCode.FAILURE)
    assert "it is gone since" in gone.err and "has it" in gone.err
    outside = shell("why", "latest", "/nowhere").ok(ExitCode.FAILURE)
    assert "not below the paths" in outside.err


def test_the_parent_that_was_forgotten(shell: Shell, tree: Path) -> None:
    (tree / "file").write_bytes(b"x" * 5000)
    settle(shell, tree)
    settle(shell, tree)
    first, second = (row["id"] for row in shell.json("snapshots"))
    shell("forget", first).ok()
    found = why(shell, tree / "file", second)
    assert found["state"] == "unknown" and found["parent"] is None
    assert any("is not in the repository any more" in reason for reason in found["reasons"])


def test_names_of_the_same_file_links_and_odd_names(shell: Shell, tree: Path) -> None:
    odd = os.fsencode(tree) + b"/odd\n\xff"
    Path(os.fsdecode(odd)).write_bytes(b"odd" * 100)
    os.link(odd, tree / "further")
    os.symlink("further", tree / "symbolic")
    settle(shell, tree)
    assert why(shell, odd)["links"] == [{"path": str(tree / "further")}]
    assert why(shell, tree / "symbolic")["kind"] == "symlink"
    text = shell("why", "latest", odd).ok().out
    assert "odd\\n\\xff" in text and f"same file {tree}/further" in text


def test_a_file_that_repeats_itself(shell: Shell, tree: Path) -> None:
    half = 4 * MIB  # many chunks: what lies around the seam is little of it, whatever the key cuts
    (tree / "twice").write_bytes(os.urandom(half) * 2)
    settle(shell, tree)
    found = why(shell, tree / "twice")
    assert found["logical_bytes"] == 2 * half
    assert 0.5 * half < found["repeated_bytes"] <= half
    assert found["unique_bytes"] + found["repeated_bytes"] == found["logical_bytes"]
