"""A monitor of a job hears of its runs, in their order, and cannot make the host ask itself."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Iterator
from uuid import uuid4

import pytest

from agent import pings
from tests.agent.conftest import AgentHost, eventually
from tests.control import receivers
from tests.control.receivers import Receiver


@pytest.fixture
def monitor() -> Iterator[Receiver]:
    with receivers.web() as found:
        yield found


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pings, "PAUSE", 0.01)


def paths(monitor: Receiver) -> list[str]:
    """Of all that came."""
    found = []
    while True:
        try:
            found.append(monitor.came.get_nowait().path)
        except queue.Empty:
            return found


def told(url: str, *whats: str, this_host: bool = True) -> None:
    async def everything() -> None:
        run = uuid4()
        for what in whats:
            pings.ping(url, what, run, this_host=this_host)
        await pings.finish(60)

    asyncio.run(everything())


def test_a_start_that_has_to_be_repeated_comes_before_the_end(monitor: Receiver) -> None:
    monitor.statuses = [503, 429]
    told(f"http://127.0.0.1:{monitor.port}/uuid?create=1", "start", "")
    found = paths(monitor)
    assert [path.partition("?")[0] for path in found] == ["/uuid/start"] * 3 + ["/uuid"]
    assert all("?rid=" in path and path.endswith("&create=1") for path in found)


def test_what_a_monitor_refuses_is_not_repeated_and_its_secret_not_logged(
    monitor: Receiver, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monitor.statuses, monitor.location = [404, 302], f"http://127.0.0.1:{monitor.port}/elsewhere"
    told(f"http://127.0.0.1:{monitor.port}/s3cret-uuid", "start", "1")
    assert [path.partition("?")[0] for path in paths(monitor)] == ["/s3cret-uuid/start", "/s3cret-uuid/1"]
    captured = capfd.readouterr()
    assert "s3cret" not in captured.out + captured.err + caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0", "[::ffff:127.0.0.1]", "169.254.169.254"])
def test_a_monitor_is_no_way_into_this_host(monitor: Receiver, host: str) -> None:
    told(f"http://{host}:{monitor.port}/x", "start", "", this_host=False)
    assert paths(monitor) == []


def test_how_a_run_ended() -> None:
    ends = [pings.ending(True, 0), pings.ending(True, 3), pings.ending(False, 1), pings.ending(False, -9)]
    assert ends == ["", "", "1", "fail"] and pings.ending(False, 4000) == "255"


@pytest.mark.slow
def test_an_agent_tells_of_a_run(host: AgentHost, monitor: Receiver) -> None:
    host.configure(allow_ping_this_host=True)
    job = host.add_job(ping_url=f"http://127.0.0.1:{monitor.port}/uuid")
    host.start()
    run = host.run_job(job)
    assert host.ended(run, 90), host.log
    assert [monitor.next().path for _ in range(2)] == [f"/uuid/start?rid={run}", f"/uuid?rid={run}"]
    (host.data / "a.txt").unlink()
    host.data.rmdir()
    failed = host.run_job(job)
    code = host.ended(failed, 90).exit_code
    assert [monitor.next().path for _ in range(2)] == [f"/uuid/start?rid={failed}", f"/uuid/{code}?rid={failed}"]
    eventually(monitor.came.empty)
