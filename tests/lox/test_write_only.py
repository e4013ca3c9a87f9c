"""Write-only machines by the command line: what they store, what it costs them, what they are refused."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.exits import ExitCode
from tests.lox.running import Shell, spawn


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "deep").mkdir(parents=True)
    for number in range(20):
        (root / "deep" / f"file {number}").write_bytes(os.urandom(5000))
    time.sleep(0.2)  # what changed just before a backup is read again by the next
    return root


class Machines:
    """Several machines with caches of their own; those with a key only write."""

    def __init__(self, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shell, self.tmp_path, self._monkeypatch = shell, tmp_path, monkeypatch

    def issue(self, name: str) -> Path:
        key = self.tmp_path / f"{name}.key"
        self.shell("key", "add", "--write-only", "--label", name, "--output", key).ok()
        return key

    @contextmanager
    def on(self, name: str) -> Iterator[Shell]:
        """On the machine of this name."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LOX_CACHE_DIR", str(self.tmp_path / f"cache of {name}"))
            patch.delenv("LOX_PASSWORD")
            patch.setenv("LOX_PASSWORD_FILE", str(self.tmp_path / f"{name}.key"))
            yield self.shell


@pytest.fixture
def machines(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machines:
    return Machines(shell, tmp_path, monkeypatch)


@contextmanager
def opened_files() -> Iterator[list[bytes]]:
    """The names of all that is opened meanwhile, as they were given."""
    names, real = [], os.open

    def spy(path: str | bytes, *arguments: int, **more: int) -> int:
        names.append(os.fsencode(path))
        return real(path, *arguments, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", spy)
        yield names


def restored(shell: Shell, snapshot: str, tree: Path, target: Path) -> dict[str, bytes]:
    shell("restore", snapshot, "--target", target).ok()
    return content(target / tree.relative_to("/"))


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_key_is_written_into_a_private_file(machines: Machines, shell: Shell) -> None:
    key = machines.issue("web")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "exists" in shell("key", "add", "--write-only", "--output", key).ok(ExitCode.USAGE).err
    assert "--output" in shell("key", "add", "--write-only").ok(ExitCode.USAGE).err
    (row,) = [row for row in shell.json("key", "list") if row["type"] == "writer"]
    assert (row["label"], row["revoked"]) == ("web", None)


def test_the_second_backup_of_what_did_not_change_opens_no_file_and_stores_next_to_nothing(
    machines: Machines, shell: Shell, tree: Path, tmp_path: Path
) -> None:
    machines.issue("web")
    with machines.on("web"):
        first = shell.json("backup", tree)[-1]
        before = sum(path.stat().st_size for path in shell.repository.rglob("*") if path.is_file())
        (tree / "one more").write_bytes(b"new")
        time.sleep(0.2)
        second = shell.json("backup", tree)[-1]
        with opened_files() as names:
            third = shell.json("backup", tree)[-1]
    assert names and not [name for name in names if b"file" in name or b"one more" in name]
    assert (first["files_new"], first["bytes_read"]) == (20, 100_000)
    assert (second["files_new"], second["files_unchanged"], second["bytes_read"]) == (1, 20, 3)
    assert (third["files_unchanged"], third["bytes_read"]) == (21, 0)
    assert third["bytes_stored"] < 5_000, "no more than one part of the manifest: /tmp itself changes beside this test"
    after = sum(path.stat().st_size for path in shell.repository.rglob("*") if path.is_file())
    assert after - before < 10_000
    assert restored(shell, third["snapshot"], tree, tmp_path / "out") == content(tree)
    cache = next((tmp_path / "cache of web").glob("*/written"))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.iterdir()} == {0o600}


def test_who_made_a_snapshot_is_shown(machines: Machines, shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    machines.issue("web")
    with machines.on("web"):
        shell("backup", tree).ok()
    ours, theirs = [line for line in shell("snapshots").ok().out.splitlines() if str(tree) in line]
    assert "write-only" in theirs and "write-only" not in ours


def test_losing_the_cache_costs_a_full_reading_and_nothing_else(
    machines: Machines, shell: Shell, tree: Path, tmp_path: Path
) -> None:
    machines.issue("web")
    with machines.on("web"):
        shell("backup", tree).ok()
        for path in (tmp_path / "cache of web").rglob("*.chunk"):
            path.write_bytes(b"damaged")
        again = shell.json("backup", tree)[-1]
        assert (again["bytes_read"], again["bytes_new"]) == (100_000, 0)  # what is stored is still known
        healed = shell.json("backup", tree)[-1]
        assert (healed["files_unchanged"], healed["bytes_read"]) == (20, 0)
        (tmp_path / "cache of web").rename(tmp_path / "lost")
        lost = shell.json("backup", tree)[-1]
    assert (lost["bytes_read"], lost["bytes_new"]) == (100_000, 100_000)
    assert restored(shell, lost["snapshot"], tree, tmp_path / "out") == content(tree)
    shell("check", "--read-data").ok()


def test_every_other_command_is_refused(machines: Machines, shell: Shell, tree: Path, tmp_path: Path) -> None:
    shell("backup", tree).ok()
    machines.issue("web")
    with machines.on("web"):
        latest = shell.json("backup", tree)[-1]["snapshot"]
        for arguments in (
            ("snapshots",), ("ls", "latest"), ("ls", latest), ("find", "*"), ("stats",), ("diff", latest, latest),
            ("dump", latest, tree), ("restore", latest, "--target", tmp_path / "out"), ("check",),
            ("repair",), ("forget", latest), ("undelete", "--list"), ("tag", latest, "--add", "x"), ("pin", latest),
            ("comment", latest, "x"), ("key", "list"), ("key", "rotate"), ("key", "recovery-kit"), ("key", "passwd"),
            ("key", "add", "--write-only", "--output", tmp_path / "more.key"),
        ):  # fmt: skip
            outcome = shell(*[str(argument) for argument in arguments]).ok(ExitCode.WRONG_PASSWORD)
            assert "only writes" in outcome.err and outcome.out == "", arguments
        assert "stores backups" in shell("key", "test").ok().out
    assert not (tmp_path / "out").exists() and not (tmp_path / "more.key").exists()


def test_two_of_them_and_an_ordinary_one_share_a_repository(
    machines: Machines, shell: Shell, tree: Path, tmp_path: Path
) -> None:
    names = ["web", "db"]
    for name in names:
        machines.issue(name)
    made = {}
    for turn in range(2):
        (tree / "changes").write_bytes(b"turn %d" % turn)
        time.sleep(0.2)
        for name in names:
            with machines.on(name):
                made[turn, name] = shell.json("backup", "--host", name, tree)[-1]
        made[turn, "ours"] = shell.json("backup", "--host", "ours", tree)[-1]
        if not turn:
            shell("key", "rotate").ok()
    for name in names:
        assert (made[0, name]["bytes_new"], made[1, name]["bytes_read"]) == (100_006, 6)
    assert made[0, "ours"]["bytes_new"] == 100_006  # not proved yet
    shell("check", "--read-data").ok()
    shell("backup", "--host", "another", "--mode", "full", tree).ok()
    snapshots = {row["id"]: row for row in shell.json("snapshots")}
    assert len(snapshots) == 7 and len({row["writer"] for row in snapshots.values()}) == 3
    for (_, name), report in made.items():
        tree_now = restored(shell, report["snapshot"], tree, tmp_path / f"out of {name} {report['snapshot']}")
        assert tree_now | {"changes": b""} == content(tree) | {"changes": b""}
    (tree / "changes").unlink()
    with machines.on("web"):
        last = shell.json("backup", "--host", "web", tree)[-1]
    assert (last["bytes_read"], last["bytes_stored"] < 10_000) == (0, True)


def test_a_full_key_repairs_and_forgets_what_it_wrote(machines: Machines, shell: Shell, tree: Path) -> None:
    machines.issue("web")
    with machines.on("web"):
        first = shell.json("backup", tree)[-1]["snapshot"]
        shell("backup", tree).ok()
    shell("forget", first).ok()
    shell("undelete", first).ok()
    assert {row["id"] for row in shell.json("snapshots")} > {first}
    for path in (shell.repository / "index").iterdir():
        path.unlink()
    shell("repair", "--apply").ok()
    shell("check", "--read-data").ok()
    with machines.on("web"):
        third = shell.json("backup", tree)[-1]
    assert third["bytes_read"] == 0 and third["bytes_stored"] < 10_000  # a folder above has changed


def test_a_removed_key_is_refused_and_what_it_wrote_stays(
    machines: Machines, shell: Shell, tree: Path, tmp_path: Path
) -> None:
    machines.issue("web")
    with machines.on("web"):
        made = shell.json("backup", tree)[-1]["snapshot"]
    (row,) = [row for row in shell.json("key", "list") if row["type"] == "writer"]
    outcome = shell("key", "remove", row["id"][:8]).ok()
    assert "does not count" in outcome.out and "genuine" in outcome.err
    with machines.on("web"):
        assert "revoked" in shell("backup", tree).ok(ExitCode.WRONG_PASSWORD).err
    assert restored(shell, made, tree, tmp_path / "out") == content(tree)
    assert "removed" in shell("key", "list").ok().out
    assert shell("key", "remove", row["id"][:8]).ok(ExitCode.USAGE)


def test_packs_of_long_files_are_remembered(
    machines: Machines, shell: Shell, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of so many chunks that its row holds lists of them: these are needed by the next backup too."""
    monkeypatch.setattr("repository.entry_table.CHUNKS_INLINE", 2)
    (tree / "long").write_bytes(os.urandom(3 << 20))
    machines.issue("web")
    with machines.on("web"):
        for turn in range(3):
            (tree / "changes").write_bytes(b"turn %d" % turn)
            time.sleep(0.2)
            made = shell.json("backup", tree)[-1]
            assert made["bytes_read"] == (6 if turn else (3 << 20) + 100_006)
    assert restored(shell, made["snapshot"], tree, tmp_path / "out") == content(tree)


@pytest.mark.slow
def test_lanes_in_other_processes_write_only_too(machines: Machines, shell: Shell, tree: Path, tmp_path: Path) -> None:
    machines.issue("web")
    with machines.on("web"):
        run = spawn("--json", "backup", "--executor", "ray", "--lanes", "2", str(tree), env=dict(os.environ))
        assert run.returncode == 0, run.stderr
    (row,) = shell.json("snapshots")
    assert row["writer"] is not None
    assert restored(shell, row["id"], tree, tmp_path / "out") == content(tree)
