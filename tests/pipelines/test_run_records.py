"""Records of runs: what is in them, what is left of a run that was killed, and that trouble with them is no trouble."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from model.errors import Damaged, NotFound
from pipelines import run_records, run_status
from pipelines.options import Watch
from pipelines.run_recorder import RunRecorder
from pipelines.run_records import RUNS, TIMELINE, RunStore
from pipelines.run_status import RunStatus, is_held
from pipelines.run_summary import RunSummary, outcome_of
from tests.pipelines.helpers import Place

ID = "ab" * 16


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    folder.mkdir()
    for number in range(20):
        (folder / f"{number}").write_bytes(os.urandom(100_000))
    return folder


def record(state: Path, kind: str = "backup", outcome: str = "done", **more: object) -> RunSummary:
    """Leaves the record of a run in which nothing happened."""
    summary = RunSummary("", kind, ID, "/srv/backup", "web1", paths=(b"/data", b"\xff\n"))
    for name, value in more.items():
        setattr(summary, name, value)
    recorder = RunRecorder(RunStore(state_dir=state), summary)
    recorder.start()
    recorder.end(outcome, 0)
    assert recorder.trouble == ""
    return summary


def test_a_backup_leaves_its_seconds_and_its_summary(tree: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    store, watch = RunStore(ID, state), Watch()
    summary = RunSummary("", "backup", ID, "/srv/backup", paths=(os.fsencode(tree),), settings={"mode": "full"})
    recorder = RunRecorder(store, summary)
    watch.listeners.append(recorder.tick)
    recorder.start()
    report = Place(tmp_path / "repository").backup(tree, watch=watch)
    summary.files = report.files
    recorder.end("done", 0)
    found = store.open(summary.id)
    assert recorder.trouble == "" and found.summary == summary
    assert (found.summary.executor, found.summary.lanes, found.summary.outcome) == ("threads", 2, "done")
    assert found.summary.bottleneck == report.bottleneck and found.summary.wall >= report.trace.wall
    timeline = found.timeline
    assert timeline.schema == TIMELINE and set(timeline["stage"].to_pylist()) == {s.name for s in report.trace.stages}
    whole = np.array(timeline["seconds"]) * np.array(timeline["lanes"])
    assert sum(np.array(timeline[name]) for name in ("busy", "starved", "blocked")) == pytest.approx(whole)
    sums = {row["stage"]: row for row in timeline.group_by("stage").aggregate(
        [("busy", "sum"), ("bytes_in", "sum"), ("items_in", "sum"), ("seconds", "sum")]).to_pylist()}  # fmt: skip
    for stage in report.trace.stages:
        assert sums[stage.name]["seconds_sum"] == pytest.approx(report.trace.wall)
        assert sums[stage.name]["busy_sum"] == pytest.approx(stage.busy, abs=0.01)
        assert (sums[stage.name]["bytes_in_sum"], sums[stage.name]["items_in_sum"]) == (stage.bytes_in, stage.items_in)


def test_records_are_private(tmp_path: Path) -> None:
    summary = record(tmp_path / "state")
    folder = tmp_path / "state" / "runs" / ID
    assert [path.name for path in folder.iterdir()] == [f"{summary.id}.parquet"]
    assert stat.S_IMODE((folder / f"{summary.id}.parquet").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_runs_are_a_table(tmp_path: Path) -> None:
    record(tmp_path, started=1_000_000_000, settings={"mode": "full"}, problems=3, outcome="partial")
    record(tmp_path, "restore", started=2_000_000_000)
    table = RunStore(bytes.fromhex(ID), tmp_path).list()
    assert table.schema == RUNS and table["kind"].to_pylist() == ["backup", "restore"]
    first = table.slice(0, 1).to_pylist()[0]
    assert first["paths"] == [b"/data", b"\xff\n"] and first["settings"] == [("mode", "full")]
    assert table["started"].cast(pa.int64()).to_pylist() == [1_000_000_000, 2_000_000_000]
    assert RunStore(ID, tmp_path).list(last=1)["kind"].to_pylist() == ["restore"]
    assert RunStore(None, tmp_path).list(kind="backup").num_rows == 1
    assert RunStore("cd" * 16, tmp_path).list().num_rows == 0


def test_a_run_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    one = record(tmp_path, started=1_000_000_000 * 10**9)
    two = record(tmp_path, started=1_100_000_000 * 10**9)
    store = RunStore(state_dir=tmp_path)
    assert store.open("last").summary.id == two.id
    assert store.open(one.id[:9]).summary.id == one.id
    with pytest.raises(NotFound, match="several runs"):
        store.open("20")
    with pytest.raises(NotFound, match="no such run"):
        store.open("nothing")


_KILLED = """
import sys, time
from pathlib import Path
from pipelines.run_recorder import RunRecorder
from pipelines.run_records import RunStore
from pipelines.run_summary import RunSummary
from runtime.trace import StageTrace, Trace
recorder = RunRecorder(RunStore(state_dir=Path(sys.argv[1])), RunSummary("", "backup", sys.argv[2], "/srv/backup"))
recorder.start()
began = time.perf_counter()
for second in range(1, 4):
    work = StageTrace("work", "work", 2, 7 * second, busy=2.0 * second)
    lines = (StageTrace("scan", "caller", 1, starved=second), work)
    recorder._next_status = 0.0
    recorder.tick(Trace("threads", float(second), lines, fed=9, acked=4, began=began))
print("ready", flush=True)
time.sleep(60)
"""


def test_a_run_is_seen_while_it_runs_and_known_to_be_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(state_dir=tmp_path)
    with subprocess.Popen([sys.executable, "-c", _KILLED, tmp_path, ID], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        (status,) = store.running()
        assert status.pid == process.pid and status.trace is not None and status.trace.fed - status.trace.acked == 5
        assert store.summaries()[0].outcome == "running"
        process.send_signal(signal.SIGKILL)
    monkeypatch.setattr(run_records, "STALE_SECONDS", 0.0)
    assert store.running() == []
    assert store.list()["outcome"].to_pylist() == ["killed"]
    found = store.open("last")
    assert found.summary.outcome == "killed" and found.summary.limiting == "work"
    assert found.timeline["items_in"].to_pylist() == [0, 21], "what it had done until then"


def test_a_run_under_way_has_a_record_every_minute(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines import run_recorder

    monkeypatch.setattr(run_recorder, "RECORD_SECONDS", 0.0)
    watch, summary = Watch(), RunSummary("", "backup", ID)
    recorder = RunRecorder(RunStore(state_dir=tmp_path), summary)
    watch.listeners.append(recorder.tick)
    recorder.start()
    Place(tmp_path / "repository").backup(tree, watch=watch)
    found = RunStore(state_dir=tmp_path).open("last")
    assert found.summary.outcome == "running" and found.timeline.schema == TIMELINE
    recorder.end("failed", 1, "why")
    assert RunStore(state_dir=tmp_path).open("last").summary.error == "why"


def test_a_status_is_never_seen_half_written(tmp_path: Path) -> None:
    recorder = RunRecorder(RunStore(state_dir=tmp_path), RunSummary("", "backup", ID, paths=(b"/x" * 4000,)))
    recorder.start()
    store, stop, seen = RunStore(state_dir=tmp_path), threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(store.summaries()[0].outcome)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(300):
        recorder._publish()
    stop.set()
    reader.join()
    recorder.end("done", 0)
    assert seen and set(seen) == {"running"}


def test_the_lock_is_let_go_with_the_run(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    let_go = run_status.hold(path)
    assert is_held(path)
    let_go()
    assert not is_held(path) and not path.exists()


def test_records_are_thinned_oldest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "KEEP_RECORDS", 3)
    made = [record(tmp_path, started=number * 10**9).id for number in range(1, 6)]
    assert [summary.id for summary in RunStore(state_dir=tmp_path).summaries()] == made[2:]
    monkeypatch.setattr(run_records, "KEEP_BYTES", 1)
    old = tmp_path / "runs" / ID / ".new-left"
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    RunStore(state_dir=tmp_path).thin(ID)
    assert list((tmp_path / "runs" / ID).iterdir()) == []


def test_what_is_too_old_goes_and_what_runs_stays(tmp_path: Path) -> None:
    gone = record(tmp_path, started=10**9)
    os.utime(tmp_path / "runs" / ID / f"{gone.id}.parquet", (0, 0))
    recorder = RunRecorder(RunStore(state_dir=tmp_path), RunSummary("", "backup", ID, started=2 * 10**9))
    recorder.start()
    os.utime(tmp_path / "runs" / ID / f"{recorder.summary.id}.json", (0, 0))
    os.utime(tmp_path / "runs" / ID / f"{recorder.summary.id}.lock", (0, 0))
    RunStore(state_dir=tmp_path).thin(ID)
    assert [summary.id for summary in RunStore(state_dir=tmp_path).summaries()] == [recorder.summary.id]
    recorder.end("done", 0)


@pytest.mark.parametrize("data", [b"", b"PAR1 nonsense PAR1", b"\x00" * 5000])
def test_a_damaged_record_is_listed_as_such(tmp_path: Path, data: bytes) -> None:
    good = record(tmp_path, started=2 * 10**9)
    path = tmp_path / "runs" / ID / "19700101T000001-aaaa.parquet"
    path.write_bytes(data)
    outcomes = [summary.outcome for summary in RunStore(state_dir=tmp_path).summaries()]
    assert outcomes == ["unreadable", "done"]
    with pytest.raises(Damaged):
        RunStore(state_dir=tmp_path).open("19700101T000001")
    assert RunStore(state_dir=tmp_path).open("last").summary.id == good.id


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"summary": {}}', b"\xff"])
def test_a_damaged_status_is_listed_as_such(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "runs" / ID).mkdir(parents=True)
    (tmp_path / "runs" / ID / "19700101T000001-aaaa.json").write_bytes(data)
    assert [summary.outcome for summary in RunStore(state_dir=tmp_path).summaries()] == ["unreadable"]
    with pytest.raises(Damaged):
        RunStatus.decode(data, "x")


def test_no_place_for_records_is_no_trouble_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    recorder = RunRecorder(RunStore(state_dir=tmp_path / "state"), RunSummary("", "backup", ID))
    recorder.start()
    recorder.end("done", 0)
    assert "ot a directory" in recorder.trouble
    assert RunStore(state_dir=tmp_path / "state").list().num_rows == 0


def test_a_place_that_vanishes_is_no_trouble_either(tmp_path: Path) -> None:
    recorder = RunRecorder(RunStore(state_dir=tmp_path), RunSummary("", "backup", ID))
    recorder.start()
    folder = tmp_path / "runs" / ID
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    recorder.end("done", 0)
    assert recorder.trouble


def test_outcomes_follow_exit_codes() -> None:
    assert [outcome_of(code) for code in (0, 1, 3, 15, 16, 130)] == [
        "done", "failed", "partial", "damaged", "failed", "interrupted",
    ]  # fmt: skip


def test_recording_takes_no_time(tmp_path: Path) -> None:
    """What a run of a second and a half pays: a start, ten ticks, two statuses and an end."""
    from runtime.trace import Meters

    record(tmp_path)  # imports
    meters = Meters("threads", "scan", "commit", [("work", ["read", "chunk", "hash", "dedup", "compress"], 8)])
    begin = time.process_time()
    recorder = RunRecorder(RunStore(state_dir=tmp_path), RunSummary("", "backup", ID))
    recorder.start()
    for _ in range(10):
        recorder.tick(meters.snapshot())
    recorder._publish()
    recorder.end("done", 0)
    assert time.process_time() - begin < 0.1
