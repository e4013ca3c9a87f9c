"""The prediction follows the model: the slowest of strands, caller, processor, store and limit sets the pace."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.predict import CALLER, LIMIT, PROCESSOR, STORE, Conditions, pace_left, predict
from pipelines.rates import Cost, Crowding, Packing, Rates, host_facts
from runtime.plan import Node, Strand
from runtime.stage import Stage

NS = 1e-9
STAGES = ("read", "chunk", "hash", "dedup", "compress", "encrypt", "upload")


def rates(**wall: float) -> Rates:
    """Costs in ns for a byte; a stage that is not named costs next to nothing."""
    costs = {name: Cost(wall.get(name, 0.01) * NS, wall.get(name, 0.01) * NS) for name in ("scan", *STAGES, "commit")}
    return Rates("made up", 1, 1, 1.0, costs, Cost(0.0, 0.0), Crowding(), (), host_facts(), 0.0)


def packing(compress: float = 0.01, stored: float = 0.5) -> Packing:
    return Packing("zstd", 2, Cost(compress * NS, compress * NS), Cost(0.01 * NS, 0.01 * NS), stored)


def strands(lanes: int, *groups: tuple[str, ...]) -> list[Strand]:
    return [Strand("+".join(group), tuple(Node(name, Stage(), lanes) for name in group)) for group in groups]


def test_one_strand_does_one_thing_after_the_other() -> None:
    forecast = predict(strands(2, STAGES), rates(read=2.0, hash=3.0), packing(5.0), Conditions(cores=8))
    assert forecast.rate == pytest.approx(2 / (10 * NS), rel=0.02)
    assert (forecast.stage, forecast.limit) == ("compress", "+".join(STAGES))
    assert forecast.gain == pytest.approx(10 / 7.5, rel=0.02)
    assert forecast.idle == pytest.approx(6.0, abs=0.1)


def test_strands_of_their_own_work_at_once() -> None:
    cut = strands(1, ("read", "chunk", "hash", "dedup"), ("compress", "encrypt", "upload"))
    forecast = predict(cut, rates(read=4.0), packing(5.0), Conditions(cores=8))
    assert forecast.rate == pytest.approx(1 / (5 * NS), rel=0.02)
    assert (forecast.stage, forecast.then) == ("compress", "read")
    assert forecast.gain == pytest.approx(5 / 4, rel=0.02)


def test_more_lanes_than_cores_are_worth_nothing_to_the_processor() -> None:
    two, many = (predict(strands(n, STAGES), rates(hash=3.0), packing(5.0), Conditions(cores=2)) for n in (2, 16))
    assert many.rate == pytest.approx(two.rate)
    assert many.limit == PROCESSOR and "all 2 cores are busy" in many.text


def test_more_lanes_than_cores_help_who_waits() -> None:
    """A network file system: reading takes long and no processor."""
    slow = rates()
    slow = replace(slow, stages={**slow.stages, "read": Cost(20 * NS, 0.1 * NS)})
    two, many = (predict(strands(n, STAGES), slow, packing(), Conditions(cores=2)) for n in (2, 16))
    assert many.rate == pytest.approx(8 * two.rate, rel=0.01) and two.stage == many.stage == "read"


def test_a_slow_store_limits_and_a_limit_does() -> None:
    forecast = predict(strands(2, STAGES), rates(upload=40.0), packing(stored=0.25), Conditions(cores=2))
    assert (forecast.limit, forecast.stage) == (STORE, "upload")
    assert forecast.rate == pytest.approx(1 / (10 * NS))
    limited = predict(strands(2, STAGES), rates(), packing(stored=0.25), Conditions(cores=2, upload=1e6))
    assert limited.limit == LIMIT and limited.rate == pytest.approx(4e6)
    assert "upload limit" in limited.text


def test_the_caller_has_one_thread() -> None:
    forecast = predict(strands(16, STAGES), rates(commit=3.0), packing(), Conditions(cores=16))
    assert (forecast.limit, forecast.stage) == (CALLER, "commit")


def test_what_is_not_new_is_not_compressed() -> None:
    conditions = Conditions(cores=8, new=0.1)
    forecast = predict(strands(1, STAGES), rates(read=1.0), packing(10.0), conditions)
    assert forecast.rate == pytest.approx(1 / (2 * NS), rel=0.05)


def test_what_goes_from_strand_to_strand_is_copied_and_only_as_much_as_is_left_of_it() -> None:
    whole = replace(rates(read=1.0, hash=1.0), handover=Cost(2 * NS, 2 * NS))
    conditions = Conditions(cores=1, new=0.5)
    fused = predict(strands(1, STAGES), whole, packing(stored=0.1), conditions)
    one_cut = predict(strands(1, STAGES[:2], STAGES[2:]), whole, packing(stored=0.1), conditions)
    late = predict(strands(1, STAGES[:6], STAGES[6:]), whole, packing(stored=0.1), conditions)
    assert 1 / one_cut.rate - 1 / fused.rate == pytest.approx(2 * NS)
    assert 1 / late.rate - 1 / fused.rate == pytest.approx(2 * NS * 0.5 * 0.1)  # what is stored of what is new
    busy = predict(strands(1, STAGES[:2], STAGES[2:]), whole, packing(), Conditions(cores=8))
    assert busy.limit == "read+chunk" and 1 / busy.rate == pytest.approx(3 * NS, rel=0.02)  # who gives copies


def test_lanes_that_wait_at_random_leave_a_core_idle_now_and_then() -> None:
    """Two lanes on one core that work as long as they wait: none, one or two want it, one time to two to two."""
    assert pace_left(2, 1, 1.0, 1.0) == pytest.approx(4 / 5)
    assert pace_left(2, 2, 1.0, 1.0) == pace_left(4, 2, 1.0, 0.0) == 1.0, "nobody waits for a core, or nothing else"
    assert pace_left(1024, 2, 1.0, 1e-9) == pytest.approx(1.0) == pace_left(1024, 64, 1e-9, 1.0)
    slow = rates()
    slow = replace(slow, stages={**slow.stages, "read": Cost(4 * NS, 2 * NS)})
    forecast = predict(strands(2, STAGES), slow, packing(), Conditions(cores=1))
    assert forecast.rate == pytest.approx(0.8 / (2 * NS), rel=0.05)


def test_what_is_crowded_takes_longer() -> None:
    """Measured with three lanes: twice the work, and each further lane that reads waits as long as reading is work."""
    alone = replace(rates(read=1.0, hash=1.0), crowding=Crowding(3, 1.0, 2.0, 1 * NS))
    for lanes, seconds in ((1, 2.0), (2, (1.5 * 2 + 1) / 2), (3, (2 * 2 + 2) / 3), (6, (2 * 2 + 5) / 6)):
        forecast = predict(strands(lanes, STAGES), alone, packing(), Conditions(cores=8))
        assert 1 / forecast.rate == pytest.approx(seconds * NS, rel=0.04), lanes
    stages = {one.name: one for one in forecast.stages}
    assert stages["read"].alone == pytest.approx(1 / NS) and stages["read"].rate == pytest.approx(6 / (7 * NS))
