"""``lox prune`` beside real backups, restores and signals."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model.exits import ExitCode
from repository.index import ChunkIndex
from repository.repository import Repository
from repository.session_state import load_sessions
from repository.store import LocalStore
from tests.lox.running import PASSWORD, ROOT, Shell, spawn
from tests.lox.test_repair import packs_of
from tests.pipelines.helpers import differences

KIB, MIB = 1 << 10, 1 << 20
ALL = ("--trash", "0d", "--max-unused", "0%", "--unfinished", "0d")


class Trees:
    """Trees that change, what they were like when they were backed up, and in which snapshot that is."""

    def __init__(self, shell: Shell, base: Path) -> None:
        self.shell = shell
        self.base = base
        self.tree = base / "tree"
        self.copies: dict[str, Path] = {}

    def fill(self, seed: int, files: int, size: int) -> None:
        """Files that no other seed has, in the place of those that were there."""
        rng = random.Random(seed)
        shutil.rmtree(self.tree, ignore_errors=True)
        self.tree.mkdir(parents=True)
        for number in range(files):
            (self.tree / f"file{number}").write_bytes(rng.randbytes(size))

    def keep(self, *options: str) -> str:
        """Back up; the snapshot."""
        (summary,) = self.shell.json("backup", self.tree, *options)
        copy = self.base / f"copy{len(self.copies)}"
        shutil.copytree(self.tree, copy)
        self.copies[summary["snapshot"]] = copy
        return str(summary["snapshot"])

    def verify(self) -> None:
        """All that is there comes out as it went in, and nothing is wrong with the rest."""
        self.shell("check", "--read-data").ok()
        for row in self.shell.json("snapshots"):
            out = self.base / "out"
            self.shell("restore", row["id"], "--target", out, "--verify").ok()
            assert differences(self.copies[row["id"]], out / str(self.tree)[1:]) == ""
            shutil.rmtree(out)


@pytest.fixture
def trees(shell: Shell, tmp_path: Path) -> Trees:
    """Of three generations the second is forgotten; half of it is in the third one, too."""
    trees = Trees(shell, tmp_path)
    trees.fill(1, 3, 400 * KIB)
    trees.keep()
    trees.fill(2, 8, 400 * KIB)
    second = trees.keep()
    for number in range(4):
        (trees.tree / f"file{number}").unlink()
    trees.keep()
    shell("forget", second).ok()
    return trees


def size_of(shell: Shell) -> int:
    return sum(path.stat().st_size for path in packs_of(shell).values())


def repository_of(shell: Shell) -> Repository:
    return Repository.open(LocalStore(str(shell.repository)), PASSWORD)


def test_the_trash_is_kept_and_then_given_up(trees: Trees, shell: Shell) -> None:
    before = size_of(shell)
    (summary,) = shell.json("prune")
    assert (summary["purged"], summary["in_trash"], summary["deleted"]) == (0, 1, 0)
    assert "1 snapshot in the trash, whose data stays; --trash 0d gives it up" in shell("prune").ok().out
    assert size_of(shell) == before
    shell("undelete", "--all").ok()
    trees.verify()
    shell("forget", shell.json("snapshots")[1]["id"]).ok()
    told = shell("prune", "--dry-run", *ALL).ok().out
    assert "1 snapshot would be removed from the trash for good" in told and "1 pack would be rewritten" in told
    (foretold,) = shell.json("prune", "-n", *ALL)
    assert size_of(shell) == before
    outcome = shell("prune", *ALL).ok()
    assert "1 snapshot removed from the trash for good" in outcome.out and "0 % of it of no use" in outcome.out
    assert f"{foretold['deleted']} packs would be deleted" in told
    assert f"{foretold['deleted']} packs deleted" in outcome.out
    after = size_of(shell)
    assert before - after > 4 * 400 * KIB and abs(foretold["bytes_after"] - after) < 10_000
    trees.verify()
    (again,) = shell.json("prune", *ALL)
    assert (again["deleted"], again["rewritten"], again["bytes_before"], again["bytes_after"]) == (0, 0, after, after)


def test_no_more_is_copied_than_asked(trees: Trees, shell: Shell) -> None:
    (summary,) = shell.json("prune", *ALL, "--max-rewrite", "100KiB")
    assert summary["rewritten"] == 0 and summary["left_unused"] > 4 * 390 * KIB
    (summary,) = shell.json("prune", *ALL, "--max-rewrite", "2MiB")
    assert summary["rewritten"] == 1 and summary["left_unused"] == 0
    trees.verify()


@pytest.mark.parametrize(
    "wrong",
    [
        ["--max-unused", "101%"],
        ["--max-unused", "-1"],
        ["--trash", "soon"],
        ["--trash", "-1d"],
        ["--unfinished", ""],
        ["--max-rewrite", "much"],
        ["unexpected"],
    ],
)
def test_what_makes_no_sense_deletes_nothing(trees: Trees, shell: Shell, wrong: list[str]) -> None:
    before = packs_of(shell)
    assert shell("prune", *wrong).ok(ExitCode.USAGE).err.startswith("lox: ")
    assert packs_of(shell) == before


def test_a_pack_that_does_not_open_stays_and_is_told(trees: Trees, shell: Shell) -> None:
    shell("prune", "--trash", "0d", "--max-unused", "100%").ok()  # what is of no use as a whole
    repository = repository_of(shell)
    index = ChunkIndex.load(repository, None)
    torn = max(packs_of(shell).items(), key=lambda item: item[1].stat().st_size)
    row = index.packs.index(bytes.fromhex(torn[1].name))
    segments = index.segments.take(index.segments.pack == row)
    torn[1].chmod(0o600)
    with open(torn[1], "r+b") as file:
        file.seek(int(segments.offset[0]) + 100)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    rows = shell.json("prune", *ALL, code=ExitCode.DAMAGE_FOUND)
    assert [row["type"] for row in rows] == ["damaged", "summary"] and torn[0] in rows[0]["object"]
    assert rows[1]["exit_code"] == 15 and torn[0] in packs_of(shell)
    assert "stays as it is, lox check --read-data tells more" in shell("prune", *ALL).ok(ExitCode.DAMAGE_FOUND).err


def test_who_is_at_work_is_named_and_waited_for(trees: Trees, shell: Shell) -> None:
    with sleeping(shell, "restore") as child:
        outcome = shell("prune", *ALL).ok()
        assert "0 packs deleted" in outcome.out and "to be deleted once nobody can rely on them" in outcome.out
        assert f"    restore on {os.uname().nodename}, process {child.pid}" in outcome.out
        trees.verify()
        child.send_signal(signal.SIGSTOP)
        assert shell.json("prune", *ALL)[-1]["deleted"] == 0, "it may go on at any time"
    assert shell.json("prune", *ALL)[-1]["deleted"] > 0, "it was killed"
    trees.verify()
    with sleeping(shell, "prune") as child:
        error = shell("prune").ok(ExitCode.FAILURE).err
        assert "another one is at work" in error and f"process {child.pid}" in error
    assert load_sessions(repository_of(shell)) != []
    shell("prune", *ALL).ok()
    assert load_sessions(repository_of(shell)) == []


def test_a_dump_that_is_read_slowly_comes_to_its_end(trees: Trees, shell: Shell) -> None:
    trees.fill(5, 2, 12 * MIB)
    gone = trees.keep("--host", "a")
    (trees.tree / "file1").unlink()
    trees.keep("--host", "b")
    shell("forget", gone, "--allow-last").ok()
    path = trees.tree / "file0"
    command = [sys.executable, "-m", "lox", "dump", "latest", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        begin = child.stdout.read(1000)
        (summary,) = shell.json("prune", *ALL)
        assert summary["rewritten"] > 0 and "dump on" in summary["waiting_for"][0]
        assert begin + child.stdout.read() == path.read_bytes()
    assert child.returncode == 0
    assert shell.json("prune", *ALL)[0]["deleted"] > 0
    trees.verify()


SLEEP = """
import sys, time
from repository.repository import Repository
from repository.sessions import open_session
from repository.store import LocalStore
with open_session(Repository.open(LocalStore(sys.argv[1]), sys.argv[2]), sys.argv[3]):
    print("on", flush=True)
    time.sleep(60)
"""


@contextmanager
def sleeping(shell: Shell, purpose: str) -> Iterator[subprocess.Popen[str]]:
    """A process that is at work and is killed in the end."""
    command = [sys.executable, "-c", SLEEP, str(shell.repository), PASSWORD, purpose]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        assert child.stdout is not None and child.stdout.readline() == "on\n"
        try:
            yield child
        finally:
            child.kill()


def lox(*arguments: str | Path, **env: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lox", *(str(argument) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_what_a_killed_backup_stored_serves_the_next_one(trees: Trees, shell: Shell) -> None:
    trees.fill(9, 60, MIB)
    before = packs_of(shell)
    child = lox("backup", trees.tree, "--lanes", "1", "--memory", "256MiB", LOX_LIMIT_UPLOAD="8MiB")
    deadline = time.monotonic() + 60
    while len(list((shell.repository / "packs").glob("*/[0-9a-f]*"))) < len(before) + 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    child.communicate()
    stored = {name for name in packs_of(shell).keys() - before.keys() if ".tmp-" not in name}
    assert len(stored) >= 2
    (summary,) = shell.json("prune", "--trash", "0d")
    assert summary["waiting_for"] == [] and summary["unfinished"] >= len(stored)
    assert stored <= packs_of(shell).keys()
    shell("repair", "--yes")
    (summary,) = shell.json("prune", *ALL)
    assert summary["unfinished"] == 0 and not stored & packs_of(shell).keys()
    trees.verify()


def test_sigterm_stops_it_between_packs_and_it_goes_on_later(shell: Shell, tmp_path: Path) -> None:
    trees = Trees(shell, tmp_path)
    for seed in range(6):
        trees.fill(seed, 3, 512 * KIB)
        gone = trees.keep("--host", "a")
        (trees.tree / "file0").unlink()
        trees.keep("--host", "b")
        shell("forget", gone, "--allow-last").ok()
    child = lox("--json", "prune", *ALL, LOX_LIMIT_DOWNLOAD="1MiB")
    deadline = time.monotonic() + 60
    while not any((shell.repository / "gc").rglob("condemned/*")) and time.monotonic() < deadline:
        time.sleep(0.01)  # then it has begun to rewrite
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    out, err = child.communicate(timeout=60)
    assert child.returncode == ExitCode.INTERRUPTED, out + err
    assert "nothing is lost; lox prune goes on where it stopped" in err + out
    assert load_sessions(repository_of(shell)) == []
    trees.verify()
    (summary,) = shell.json("prune", *ALL)
    assert 0 < summary["rewritten"] < 6, "what was copied is not copied again"
    trees.verify()


def test_many_runs_leave_no_folders_behind(shell: Shell, tmp_path: Path) -> None:
    trees = Trees(shell, tmp_path)
    trees.fill(1, 1, 1000)
    for _ in range(3):
        shell("forget", trees.keep(), "--allow-last").ok()
        shell("prune", *ALL).ok()
    for place in ("sessions", "trash/snapshots", "gc/condemned"):
        assert list((shell.repository / place).glob("*")) == []


WRITERS = 10


@pytest.mark.slow
def test_many_writers_at_once_beside_a_prune_in_a_loop(shell: Shell, tmp_path: Path) -> None:
    rng = random.Random(1)
    shared = [rng.randbytes(700 * KIB) for _ in range(12)]
    trees = []
    for number in range(WRITERS):
        tree = tmp_path / f"tree{number}"
        tree.mkdir()
        for file, content in enumerate(rng.sample(shared, 6)):
            (tree / f"shared{file}").write_bytes(content)
        (tree / "own").write_bytes(rng.randbytes(300 * KIB))
        trees.append(tree)
    once = Trees(shell, tmp_path / "once")
    for content in shared:  # garbage that all of them may find
        once.fill(0, 1, 10)
        (once.tree / "garbage").write_bytes(content)
        shell("forget", once.keep(), "--allow-last").ok()
    writers = [lox("backup", tree, "--host", tree.name) for tree in trees]
    runs = Counter[int]()
    while any(writer.poll() is None for writer in writers):
        outcome = spawn("prune", *ALL)
        assert outcome.returncode == 0, outcome.stderr
        runs[outcome.returncode] += 1
    for writer in writers:
        out, err = writer.communicate()
        assert writer.returncode == 0, out + err
    assert runs[0] > 0
    shell("check", "--read-data").ok()
    for _ in range(3):
        (summary,) = shell.json("prune", *ALL)
        if not summary["rewritten"]:
            break
    index = ChunkIndex.load(repository_of(shell), None)
    copies = Counter(row.tobytes() for table in index.tables for row in table.ids)
    assert set(copies.values()) == {1}, "what several stored at once is there once in the end"
    shell("check", "--read-data").ok()
    for row in shell.json("snapshots"):
        out = tmp_path / "out" / row["host"]
        shell("restore", row["id"], "--target", out).ok()
        tree = tmp_path / row["host"]
        assert differences(tree, out / str(tree)[1:]) == ""
    assert len(shell.json("snapshots")) == WRITERS
