"""Plans are data: what can be built, what cannot, how they print, how they fuse."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from model.errors import PlanError
from runtime.plan import Flow, Plan, fuse
from runtime.stage import Stage


class Length(Stage[str, int]):
    def push(self, item: str) -> Iterator[int]:
        yield len(item)


class Stars(Stage[int, str]):
    def push(self, item: int) -> Iterator[str]:
        yield "*" * item


def plan(*lanes: int) -> Plan:
    flow = Flow[str]("words")
    for number, count in enumerate(lanes):
        flow = flow.then(f"length{number}", Length(), lanes=count).then(f"stars{number}", Stars(), lanes=count)
    return flow.plan("wall", sink="print")


def names(plan: Plan, *cuts: str) -> list[tuple[str, int, list[str]]]:
    return [(strand.name, strand.lanes, [node.name for node in strand.nodes]) for strand in fuse(plan.cut(*cuts))]


def test_equal_lanes_fuse() -> None:
    assert names(plan(2, 2)) == [("wall", 2, ["length0", "stars0", "length1", "stars1"])]


def test_different_lanes_do_not() -> None:
    assert names(plan(2, 1)) == [
        ("length0..stars0", 2, ["length0", "stars0"]),
        ("length1..stars1", 1, ["length1", "stars1"]),
    ]


def test_a_cut_begins_a_strand() -> None:
    assert names(plan(2, 2), "stars0", "length0") == [
        ("length0", 2, ["length0"]),
        ("stars0..stars1", 2, ["stars0", "length1", "stars1"]),
    ]


def test_a_cut_at_no_stage_is_an_error() -> None:
    with pytest.raises(PlanError, match="no such stage to cut at: hash"):
        fuse(plan(1).cut("hash"))


def test_plans_that_make_no_sense_are_refused() -> None:
    flow = Flow[str]()
    with pytest.raises(PlanError, match="at least one stage"):
        flow.plan("empty")
    with pytest.raises(PlanError, match="at least one lane"):
        flow.then("length", Length(), lanes=0)
    with pytest.raises(PlanError, match="needs a name"):
        flow.then("", Length())
    with pytest.raises(PlanError, match="one name: same"):
        flow.then("same", Length()).then("same", Stars())
    stars = Stars()
    with pytest.raises(PlanError, match="two places"):
        flow.then("length", Length()).then("one", stars).then("l2", Length()).then("two", stars)


def test_a_flow_can_be_continued_twice() -> None:
    start = Flow[str]().then("length", Length())
    assert len(start.then("stars", Stars()).plan().nodes) == 2
    assert len(start.plan().nodes) == 1


def test_text_shows_strands_lanes_and_classes() -> None:
    assert plan(2, 1).text() == (
        "wall: words → length0 → stars0 → length1 → stars1 → print\n"
        "  words    caller\n"
        "  length0  length0..stars0, 2 lanes: Length\n"
        "  stars0   length0..stars0, 2 lanes: Stars\n"
        "  length1  length1..stars1, 1 lane: Length\n"
        "  stars1   length1..stars1, 1 lane: Stars\n"
        "  print    caller"
    )


def test_mermaid_draws_strands_as_boxes() -> None:
    assert plan(2).cut("stars0").mermaid() == (
        "flowchart LR\n"
        '  source(["words"])\n'
        '  subgraph strand0["length0 x 2"]\n'
        '    n0["length0"]\n'
        "  end\n"
        '  subgraph strand1["stars0 x 2"]\n'
        '    n1["stars0"]\n'
        "  end\n"
        '  sink(["print"])\n'
        "  source --> n0 --> n1 --> sink"
    )


def test_json_says_the_same() -> None:
    assert json.loads(plan(3).json()) == {
        "name": "wall",
        "source": "words",
        "strands": [
            {
                "name": "wall",
                "lanes": 3,
                "queue": {"items": None, "bytes": None},
                "placement": {},
                "stages": [{"name": "length0", "stage": "Length"}, {"name": "stars0", "stage": "Stars"}],
            }
        ],
        "sink": "print",
    }
