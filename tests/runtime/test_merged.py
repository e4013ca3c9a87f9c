from __future__ import annotations

import pytest

from runtime.bottleneck import CALLER
from runtime.merged import merged
from runtime.trace import StageTrace, Trace


def trace_of(wall: float, scan: float, read: tuple[float, ...], cores: int = 2, idle: float | None = 0.5) -> Trace:
    lanes, busy = len(read), sum(read)
    blocked = (wall * lanes - busy) / 2
    return Trace(
        "threads",
        wall,
        (
            StageTrace("scan", CALLER, 1, 0, 7, 0, 700, scan, 0.0, wall - scan),
            StageTrace("read", "backup", lanes, 7, 7, 700, 700, busy, wall * lanes - busy - blocked, blocked, read),
            StageTrace("commit", CALLER, 1, 7, 0, 700, 0, 0.1, wall - 0.1, 0.0),
        ),
        fed=7,
        acked=5,
        replayed=1,
        cores=cores,
        idle_cores=idle,
    )


def test_lanes_add_up_and_times_to_all_of_the_time() -> None:
    whole = merged({"a": trace_of(10.0, 1.0, (9.0, 8.0)), "b": trace_of(4.0, 2.0, (3.0,), 1)}, "ray", 12.0, 5.0, 2)
    assert (whole.fed, whole.acked, whole.deaths, whole.replayed, whole.cores) == (14, 10, 2, 2, 3)
    assert whole.idle_cores == pytest.approx(1.0)
    assert whole.placed == (("backup-0", "a"), ("backup-1", "a"), ("backup-0", "b"))
    for line in whole.stages:
        assert line.busy + line.starved + line.blocked == pytest.approx(12.0 * line.lanes)
    read = whole.stage("read")
    assert (read.lanes, read.busy, read.lane_busy, read.bytes_out) == (3, 20.0, (9.0, 8.0, 3.0), 1400)
    assert merged({"a": trace_of(1.0, 0.5, (1.0,), idle=None)}, "ray", 1.0, 0.0).idle_cores is None


def test_scans_beside_each_other_are_not_one_scan() -> None:
    """Each host scans by itself: three that are busy for half of the time keep nobody for more than that."""
    whole = merged({host: trace_of(10.0, 5.0, (9.0,)) for host in "abc"}, "ray", 10.0, 0.0)
    found = whole.bottleneck()
    assert (found.stage, found.lanes, found.lanes_busy) == ("read", 3, 3)
    assert found.share == pytest.approx(0.9)
