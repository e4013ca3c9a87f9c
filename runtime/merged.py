"""One trace out of those of plans that ran beside each other, each on a host of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from runtime.trace import StageTrace, Trace


def merged(traces: Mapping[str, Trace], executor: str, wall: float, began: float, deaths: int = 0) -> Trace:
    """The trace of all hosts together, `wall` seconds after it `began`.

    A stage has the lanes of all hosts; where they were not there for all of the time, as before their host began or
    after it was done, they were starved. So ``busy + starved + blocked == wall * lanes`` is true of it as well.
    """
    lines: dict[str, list[StageTrace]] = {}
    for trace in traces.values():
        for line in trace.stages:
            lines.setdefault(line.name, []).append(line)
    parts = list(traces.values())
    known = [trace.idle_cores for trace in parts if trace.idle_cores is not None]
    return Trace(
        executor,
        wall,
        tuple(_together(same, wall) for same in lines.values()),
        sum(trace.fed for trace in parts),
        sum(trace.acked for trace in parts),
        deaths + sum(trace.deaths for trace in parts),
        sum(trace.replayed for trace in parts),
        began,
        sum(trace.cores for trace in parts),
        sum(known) if known and len(known) == len(parts) else None,
        tuple(placed for host, trace in traces.items() for placed in _placed(host, trace)),
    )


def _together(lines: Sequence[StageTrace], wall: float) -> StageTrace:
    lanes = sum(line.lanes for line in lines)
    busy = min(sum(line.busy for line in lines), wall * lanes)
    blocked = min(sum(line.blocked for line in lines), wall * lanes - busy)
    return StageTrace(
        lines[0].name,
        lines[0].strand,
        lanes,
        sum(line.items_in for line in lines),
        sum(line.items_out for line in lines),
        sum(line.bytes_in for line in lines),
        sum(line.bytes_out for line in lines),
        busy,
        wall * lanes - busy - blocked,
        blocked,
        tuple(seconds for line in lines for seconds in line.lane_busy or [line.busy / line.lanes] * line.lanes),
    )


def _placed(host: str, trace: Trace) -> list[tuple[str, str]]:
    """The lanes of each strand, under the names they have on their host."""
    strands = {line.strand: line.lanes for line in trace.stages[1:-1]}
    return [(f"{strand}-{lane}", host) for strand, lanes in strands.items() for lane in range(lanes)]
