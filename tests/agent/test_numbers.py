"""What an agent may cost while it waits, and how soon it begins when somebody presses the button."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from tests.agent.conftest import AgentHost, eventually
from tests.agent.small_server import SmallServer

pytestmark = pytest.mark.alone
IDLE_SECONDS = 30.0
IN_ACCESS = 1


def test_idle(host: AgentHost, server: SmallServer) -> None:
    """Less than 80 MB and 0.2 % of a core, after a run, with metrics served and a heartbeat every minute."""
    host.configure(heartbeat_interval=60, metrics={"listen": "127.0.0.1:0"})
    job = host.add_job(schedule_cron="0 2 * * *")
    host.start()
    host.ended(host.run_job(job))
    process = psutil.Process(host.daemon.pid if host.daemon is not None else 0)
    eventually(lambda: not process.children())
    time.sleep(1)
    before = process.cpu_times()
    time.sleep(IDLE_SECONDS)
    after = process.cpu_times()
    used = after.user + after.system - before.user - before.system
    assert process.memory_info().rss < 80_000_000
    assert used / IDLE_SECONDS < 0.002


def test_run_now_reads_within_a_second(host: AgentHost, server: SmallServer) -> None:
    """From the server's command to the first byte that is read of a file; the best of five, on a machine at rest."""
    job = host.add_job()
    host.start()
    host.ended(host.run_job(job))
    assert min(_until_read(host, job, number) for number in range(5)) < 1.0


def _until_read(host: AgentHost, job: UUID, number: int) -> float:
    (host.data / "a.txt").write_text(f"changed {number}\n")
    read: list[float] = []
    watching = threading.Thread(target=_wait_for_read, args=(host.data / "a.txt", read))
    watching.start()
    time.sleep(0.2)  # until the watch is set
    begun = time.monotonic()
    run = host.run_job(job)
    watching.join(30)
    host.ended(run)
    return read[0] - begun


def _wait_for_read(path: Path, read: list[float]) -> None:
    libc = ctypes.CDLL(None)
    fd = libc.inotify_init1(0)
    libc.inotify_add_watch(fd, os.fsencode(path), IN_ACCESS)
    os.read(fd, 4096)
    read.append(time.monotonic())
    os.close(fd)
