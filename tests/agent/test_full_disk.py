"""The disk of the working directory is full: the agent says so, forgets nothing, and goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from agent.bandwidth import Bandwidth
from agent.state import RunRow, State, StateUnwritable
from agent.telling import Teller
from model.errors import RunFailed
from tests.agent.conftest import AgentHost, eventually
from tests.agent.small_server import SmallServer

pytestmark = pytest.mark.root


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("cannot mount a tmpfs here: run as root outside a restricted container")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=False)


def fill(place: Path) -> Path:
    """A file that takes what room there is."""
    file = place / "filler"
    with file.open("wb", buffering=0) as opened:
        try:
            while opened.write(bytes(4096)):
                pass
        except OSError:
            return file
    raise AssertionError("it has no end")


@pytest.mark.slow
def test_what_cannot_be_written_is_kept_and_written_later(small: Path) -> None:
    state, run = State(small / "state.sqlite3"), RunRow(uuid4(), uuid4(), "backup", "running", {})
    woken: list[bool] = []
    teller = Teller(state, run, lambda: woken.append(True))
    teller.started()
    filler = fill(small)
    with pytest.raises(StateUnwritable, match="cannot write down"):
        for number in range(1_000):
            state.put_note(f"note {number}", "x" * 4_000)
    before = state.spooled()
    for _ in range(3_000):
        teller.log("x" * 300)
    teller.ended("failed", 1)
    assert teller.owing
    filler.unlink()

    def written() -> bool:
        teller.flush()
        return not teller.owing

    eventually(written)
    told = state.untold(10_000)
    assert told is not None and state.spooled() > before and len(woken) >= 2
    assert told[1][-1][1] == "finished" and state.runs("ended")[0].run == run.run
    state.put_note("and", "again")


def test_a_run_that_cannot_be_told_its_limit_does_not_run_without_one(small: Path) -> None:
    filler, bandwidth = fill(small), Bandwidth(small, 100.0)
    one, other = uuid4(), uuid4()
    with pytest.raises(RunFailed, match="cannot be told its limit"):
        bandwidth.join(one, None)
    filler.unlink()
    limit = bandwidth.join(other, None)
    assert Path(limit[1:]).read_text() == "100000000bit\n", "the other one has no share any more"


@pytest.mark.slow
def test_an_agent_without_room_stays_and_forgets_nothing(host: AgentHost, server: SmallServer, small: Path) -> None:
    host.configure(work_dir=str(small / "work"))
    (host.data / "big").write_bytes(os.urandom(4 << 20))
    job = host.add_job(bandwidth_limit_mbps=8)
    host.start()
    run = host.run_job(job)
    eventually(lambda: any(event.bytes_done for event in server.told(run, "progress")))
    filler = fill(small)
    asked = host.run_job(job)
    beats = len(server.heartbeats)
    eventually(lambda: any("cannot write down" in str(beat.health.warnings) for beat in server.heartbeats[beats:]))
    assert not server.told(run, "finished") and not server.told(asked, "started")
    assert host.daemon is not None and host.daemon.poll() is None, host.log
    counts = [beat.sequence for beat in server.heartbeats]
    assert counts == sorted(counts), "a count that goes back looks like a second host"
    filler.unlink()
    freed = time.time()
    host.ended(run, 60)
    assert host.ended(asked, 60).status == "success", host.log
    eventually(lambda: server.heartbeats[-1].time.timestamp() > freed + 6)
    assert "cannot write down" not in str(server.heartbeats[-1].health.warnings)
