"""How many cores are idle: what the kernel counts, within what this process may use."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from runtime import cores
from runtime.cores import CoreMeter


def test_idle_seconds_are_those_the_system_counts() -> None:
    mine = cores._idle_seconds()
    times = psutil.cpu_times()
    assert mine == pytest.approx(times.idle + times.iowait, abs=2.0 * (psutil.cpu_count() or 1))


def test_a_busy_process_has_fewer_idle_cores_than_it_may_use() -> None:
    meter, begin = CoreMeter(), time.perf_counter()
    while time.process_time() - meter._own < 0.2:
        pass
    wall = time.perf_counter() - begin
    idle = meter.idle(wall)
    assert idle is not None and 0.0 <= idle <= meter.allowed - 0.2 / wall


def test_where_nobody_counts_it_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cores, "STAT", str(tmp_path / "nothing"))
    assert CoreMeter().idle(1.0) is None
