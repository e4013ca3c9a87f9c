"""`lox runs`, `lox run` and `lox top`: what backups, restores and copies leave behind, and how it is shown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

import lox.run_rows
from lox.run_compare import compare
from lox.run_rows import Stages, sparkline
from pipelines.run_recorder import RunRecorder
from pipelines.run_records import RunStore, timeline_table
from pipelines.run_summary import RunSummary
from runtime.bottleneck import CALLER
from runtime.timeline import Timeline
from runtime.trace import StageTrace, Trace
from tests.lox.running import PASSWORD, ROOT, Shell

STAGES = {"scan", "read", "chunk", "hash", "dedup", "compress", "encrypt", "upload", "commit"}


@pytest.fixture(autouse=True)
def _own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOX_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(5):
        (root / f"{number}").write_bytes(os.urandom(200_000))
    return root


def test_every_run_is_listed_with_how_it_ended(
    shell: Shell, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("backup", tree).ok()
    os.symlink("nowhere", tree / "link")
    shell("restore", "latest", "--target", tmp_path / "out").ok()
    monkeypatch.setenv("LOX_FROM_PASSWORD", PASSWORD)
    shell("init", "--copy-chunker-from", shell.repository, "--repo", tmp_path / "second").ok()
    shell("copy", "--from-repo", shell.repository, "--repo", tmp_path / "second").ok()
    rows = shell.json("runs", "--repo", tmp_path / "second")
    assert [(row["kind"], row["outcome"]) for row in rows] == [("copy", "done")]
    rows = shell.json("runs")
    assert [(row["kind"], row["outcome"], row["files"]) for row in rows] == [
        ("backup", "done", 5), ("restore", "done", 5),
    ]  # fmt: skip
    assert rows[0]["bytes_read"] == rows[0]["bytes_new"] == 1_000_000 and rows[0]["bytes_stored"] > 0
    assert rows[0]["paths"] == [{"path": str(tree)}] and rows[0]["repository"] == str(shell.repository)
    assert rows[0]["snapshot"] == rows[1]["snapshot"] != ""
    assert [row["kind"] for row in shell.json("runs", "--last", "1")] == ["restore"]
    assert [row["kind"] for row in shell.json("runs", "--kind", "backup")] == ["backup"]
    listed = shell("runs").ok().out.splitlines()
    assert listed[0].split()[:4] == ["RUN", "STARTED", "KIND", "OUTCOME"] and len(listed) == 3


def test_a_backup_without_deduplication_says_so_everywhere(shell: Shell, tree: Path) -> None:
    again = ("backup", "--no-deduplication", "--mode", "full", tree)
    shell("backup", tree).ok()
    assert "read 977 KiB, not deduplicated, stored" in shell(*again).ok().out
    summary = shell.json(*again)[-1]
    assert (summary["deduplicated"], summary["bytes_new"]) == (False, 1_000_000) and summary["bytes_stored"] > 1_000_000
    rows = shell.json("runs")
    assert [row["settings"].get("deduplication") for row in rows] == [None, "off", "off"]
    assert [row["bytes_stored"] > 1_000_000 for row in rows] == [True] * 3


def test_what_has_no_stages_leaves_a_record_of_its_steps(shell: Shell, tree: Path, tmp_path: Path) -> None:
    shell("backup", tree).ok()
    (tree / "0").write_bytes(os.urandom(200_000))
    shell("backup", tree, "--mode", "full").ok()
    shell("check", "--read-data").ok()
    shell("check", "--keyless").ok()
    shell("forget", "--keep-last", "1", "--dry-run").ok()  # a question, no run
    shell("forget", "--keep-last", "1").ok()
    pruned = shell.json("prune", "--trash", "0d", "--max-unused", "0%")[-1]
    shell("repair").ok()
    shell("store", "sync", shell.repository, tmp_path / "mirror").ok()
    rows = shell.json("runs")[2:] + shell.json("runs", "--repo", tmp_path / "mirror")
    kinds = ["check", "check", "forget", "prune", "repair", "sync"]
    assert [(row["kind"], row["outcome"]) for row in rows] == [(kind, "done") for kind in kinds]
    data, keyless, forget, prune, repair, sync = rows
    assert data["bytes_read"] >= 1_200_000 and data["settings"]["level"] == "data"
    assert keyless["settings"]["level"] == "keyless" and keyless["repository_id"] == data["repository_id"]
    assert (forget["snapshots"], forget["settings"]) == (1, {"rule": "policy"})
    assert prune["snapshots"] == 1 and prune["bytes_deleted"] == pruned["bytes_deleted"] > 0
    assert repair["settings"]["dry_run"] == "True"
    assert sync["snapshots"] == 1 and sync["bytes_stored"] > 1_000_000 and sync["settings"]["from"]
    for row in rows:
        shown = shell.json("run", "show", row["id"])
        steps = [line for line in shown if line["type"] == "stage"]
        wall = sum(line["busy"] for line in steps)  # one after the other: together they are all there was
        assert steps and all(line["busy"] + line["starved"] == pytest.approx(wall, abs=1e-3) for line in steps)
    assert [row["kind"] for row in shell.json("runs", "--kind", "prune")] == ["prune"]
    assert "deleted" in shell("run", "show", prune["id"]).ok().out


def test_a_check_that_finds_damage_is_recorded_with_it(shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    pack = max((path for path in (shell.repository / "packs").rglob("*") if path.is_file()), key=os.path.getsize)
    pack.unlink()
    assert shell("check").code == 15
    row = shell.json("runs", "--kind", "check")[0]
    assert (row["outcome"], row["exit_code"], row["problems"] > 0) == ("damaged", 15, True)


def test_a_run_that_fails_is_recorded_with_why(shell: Shell, tree: Path) -> None:
    shell("backup", tree).ok()
    (shell.repository / "packs").rename(shell.repository / "elsewhere")
    (shell.repository / "packs").write_text("in the way")
    (tree / "new").write_bytes(os.urandom(1000))
    assert shell("backup", tree).code == 1
    first, second = shell.json("runs")
    assert (first["outcome"], second["outcome"]) == ("done", "failed")
    assert second["exit_code"] == 1 and "packs" in second["error"]


@pytest.mark.parametrize(
    "after", ["raise", "raise RuntimeError('cannot release un-acquired lock')"], ids=["plain", "broken"]
)
def test_an_interrupted_run_is_recorded_as_such(shell: Shell, tree: Path, tmp_path: Path, after: str) -> None:
    """Also if being broken off at some point makes something else go wrong there."""
    scanning = tmp_path / "scanning"
    slow = (
        "import pathlib, threading, time, sources.files.scan as scan\ndef slowly(self):\n"
        f" if threading.current_thread() is threading.main_thread(): pathlib.Path({str(scanning)!r}).touch()\n"
        f" try: time.sleep(120)\n except KeyboardInterrupt: {after}\n yield\nscan.Scanner.__iter__ = slowly\n"
    )
    code = f"{slow}import sys; from lox.__main__ import main; sys.exit(main(sys.argv[1:]))"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    with subprocess.Popen([sys.executable, "-c", code, "backup", tree], env=env, stderr=subprocess.PIPE) as process:
        until = time.monotonic() + 60
        while not (running := shell.json("top", "--once")) or not scanning.exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        assert running[0]["pid"] == process.pid and running[0]["kind"] == "backup"
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        if any(b"stopping" in line for line in process.stderr):  # two at once would be one signal
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    (row,) = shell.json("runs")
    assert (row["outcome"], row["exit_code"]) == ("interrupted", 130), row
    assert shell.json("top", "--once") == []


def test_one_run_is_shown_in_all_detail(shell: Shell, tree: Path) -> None:
    shell("backup", tree, "--executor", "inline", "--tag", "x").ok()
    rows = shell.json("run", "show")
    assert rows[0]["type"] == "run" and rows[0]["settings"]["mode"] == "incremental"
    assert {row["stage"] for row in rows if row["type"] == "stage"} == STAGES
    intervals = [row for row in rows if row["type"] == "interval"]
    for row in intervals:
        assert row["busy"] + row["starved"] + row["blocked"] == pytest.approx(row["seconds"] * row["lanes"])
    text = shell("run", "show", rows[0]["id"][:12]).ok().out
    assert text.splitlines()[0] == f"run        {rows[0]['id']}: backup, done"
    assert f"paths      {tree}" in text and text.splitlines()[-1] == rows[0]["bottleneck"]
    assert shell("run", "show", "nothing").code == 1


def test_no_record_is_a_note_and_no_failure(shell: Shell, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    outcome = shell("backup", tree).ok()
    (note,) = [line for line in outcome.err.splitlines() if line.startswith("note: there is no record of this run")]
    assert "state" in note and note.endswith("not a directory") and "Errno" not in note


def test_runs_under_way_are_shown_with_each_stage(shell: Shell, tmp_path: Path) -> None:
    assert shell("top", "--once").ok().out == "nothing runs on this host\n"
    summary = RunSummary("", "backup", "ab" * 16, "/srv/backup", paths=(b"/data\x1b",))
    recorder = RunRecorder(RunStore(), summary)
    recorder.start()
    lines = (
        StageTrace("scan", CALLER, 1, items_out=10, busy=0.5, blocked=1.5),
        StageTrace("read", "work", 2, items_in=10, items_out=10, bytes_out=8 << 20, busy=3.0, starved=1.0),
    )
    recorder.tick(Trace("threads", 2.0, lines, fed=10, acked=7, began=1.0))
    recorder._publish()
    (row,) = shell.json("top", "--once")
    assert (row["in_flight"], row["limiting"], row["pid"]) == (3, "read", os.getpid())
    assert row["stages"][1]["busy"] == 0.75 and row["stages"][1]["bytes_out_per_second"] == 4 << 20
    out = shell("top", "--once").ok().out.splitlines()
    assert "/data\\x1b → /srv/backup" in out[0] and "3 items in flight" in out[1]
    assert out[4].split()[-1] == "#" * 18 + "." * 6
    assert out[5].startswith("read limits: 2 of 2 lanes busy 75 %")
    recorder.end("done", 0)
    assert shell("top", "--once").ok().out == "nothing runs on this host\n"


def stages(wall: float, compress: float, read: float, size: int = 1 << 30, lanes: int = 2) -> Stages:
    """A run in which two stages shared lanes, of which the rest was waiting."""
    timeline = Timeline()
    total = wall * lanes
    lines = (
        StageTrace("scan", CALLER, 1, items_out=9, blocked=wall),
        StageTrace("read", "work", lanes, 9, 9, bytes_out=size, busy=read, starved=total - read),
        StageTrace("compress", "work", lanes, 9, 9, size, size // 2, busy=compress, starved=total - compress),
    )
    timeline.tick(Trace("threads", wall, lines), last=True)
    return Stages.of(timeline_table([(0.0, timeline)]))


def run(name: str, **settings: str) -> RunSummary:
    return RunSummary(name, "backup", executor="threads", lanes=2, settings=settings)


def test_a_comparison_names_the_stage_that_made_the_difference() -> None:
    found = compare(run("a", level="3"), run("b", level="9"), stages(10, 12, 6), stages(20, 32, 6))
    assert found.settings == [("level", "3", "9")]
    assert [blame.stage for blame in found.blames] == ["compress"]
    assert found.blames[0].wall == pytest.approx(10) and found.blames[0].speed == pytest.approx(12 / 32)
    assert found.cause == (
        "B took 2.00 times as long as A, 10.0 s more; compress explains 100 % of it: "
        "1.00 times the data at 0.38 times the speed"
    )


def test_a_comparison_tells_more_data_from_less_speed_and_from_fewer_lanes() -> None:
    more = compare(run("a"), run("b"), stages(10, 12, 6), stages(20, 24, 12, 2 << 30))
    assert "2.00 times the data at 1.00 times the speed; then read (" in more.cause
    fewer = compare(run("a"), run("b"), stages(20, 12, 6, lanes=1), stages(10, 12, 6))
    assert fewer.cause.startswith("A took 2.00 times") and "on 0.5 times the lanes" in fewer.cause


def test_a_stage_that_had_nothing_to_do_in_the_other_run_is_told() -> None:
    full, known = stages(20, 26, 6), stages(10, 0.1, 6)
    lines = [replace(line, bytes_out=9) if line.name == "compress" else line for line in known.lines]
    found = compare(run("a"), run("b"), full, replace(known, lines=tuple(lines)))
    assert found.cause.endswith("compress explains 100 % of it: B had next to nothing for it to do")


def test_a_stage_that_only_one_run_had_is_told() -> None:
    """A check that read data and one that did not have steps of their own."""
    without = stages(10, 0.1, 6)
    known = replace(without, lines=tuple(line for line in without.lines if line.name != "compress"))
    found = compare(run("a"), run("b"), stages(20, 26, 6), known)
    assert found.cause.endswith("compress explains 100 % of it: B had next to nothing for it to do")


def test_runs_alike_are_said_to_be_alike() -> None:
    assert compare(run("a"), run("b"), stages(10, 12, 6), stages(10.2, 12, 6)).cause.startswith("both took the same")
    waited = compare(run("a"), run("b"), stages(10, 12, 6), stages(20, 12, 6))
    assert waited.blames == [] and "all of them waited" in waited.cause


def test_two_real_runs_are_compared(shell: Shell, tree: Path) -> None:
    shell("backup", tree, "--lanes", "1").ok()
    first = shell.json("runs")[0]["id"]
    shell("backup", tree, "--mode", "full", "--lanes", "2").ok()
    (row,) = shell.json("run", "compare", first)
    assert row["settings"]["lanes"] == ["1", "2"] and row["settings"]["mode"] == ["incremental", "full"]
    text = shell("run", "compare", first, "last").ok().out
    assert "STAGE" in text and text.splitlines()[-1] == row["cause"]


def test_bars_of_terminals_that_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sparkline([0.0, 0.01, 0.5, 1.0]) == " ▁▄█"
    monkeypatch.setattr(lox.run_rows, "_has_bars", lambda: False)
    assert sparkline([0.0, 0.01, 0.5, 1.0]) == " .=@"


def test_when_a_stage_was_busy_is_seen_over_time() -> None:
    timeline = Timeline()
    for wall, busy in ((1.0, 2.0), (2.0, 2.0), (3.0, 3.0)):
        lines = (
            StageTrace("scan", CALLER, 1, starved=wall),
            StageTrace("work", "work", 2, busy=busy, starved=2 * wall - busy),
        )
        timeline.tick(Trace("threads", wall, lines))
    found = Stages.of(timeline_table([(0.0, timeline)]))
    assert found.over_time("work", 3) == pytest.approx([1.0, 0.0, 0.5])
    assert found.over_time("work", 6) == pytest.approx([1.0, 1.0, 0.0, 0.0, 0.5, 0.5])
