"""Pictures of plans: well-formed, complete, and harmless whatever the names are."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from itertools import pairwise

from runtime.drawing import dot, svg
from runtime.plan import Flow, Plan, Queue
from runtime.stage import Stage


class Same(Stage[int, int]):
    def push(self, item: int) -> Iterator[int]:
        yield item


def plan() -> Plan:
    flow = Flow[int]('<"feed">').then("one", Same(), 2).then('two</text><script>"', Same(), 2).then("three", Same(), 1)
    return flow.plan("a & b", sink="sink")


def test_an_svg_is_well_formed_and_shows_every_stage_in_order() -> None:
    root = ElementTree.fromstring(svg(plan()))
    space = "{http://www.w3.org/2000/svg}"
    words = [(int(text.get("x", "0")), text.text) for text in root.iter(f"{space}text") if text.get("class") is None]
    assert [word for _, word in sorted(words)] == ['<"feed">', "one", 'two</text><script>"', "three", "sink"]
    assert len([rect for rect in root.iter(f"{space}rect") if rect.get("class") == "strand"]) == 2
    assert len([path for path in root.iter(f"{space}path") if path.get("class") == "flow"]) == 4
    assert "script" not in {element.tag.removeprefix(space) for element in root.iter()}
    boxes = sorted(
        (int(rect.get("x", "0")), int(rect.get("width", "0")))
        for rect in root.iter(f"{space}rect")
        if rect.get("class") != "strand"
    )
    assert all(x + width < following for (x, width), (following, _) in pairwise(boxes))
    assert max(x + width for x, width in boxes) < int(root.get("width", "0"))


def test_dot_quotes_names_and_groups_strands() -> None:
    text = dot(plan())
    assert text.startswith('digraph "a & b" {') and text.count("subgraph cluster_") == 2
    assert '"two</text><script>\\""' in text
    assert "source -> n0 -> n1 -> n2 -> sink;" in text


def test_strands_say_what_may_wait_before_them_and_where_they_run() -> None:
    flow = Flow[int]().then("one", Same()).then("two", Same())
    made = flow.plan().cut("two")
    node = made.nodes[1]
    bounded = Plan(
        made.name,
        (made.nodes[0], type(node)(node.name, node.stage, 1, Queue(3, 4 << 20), {"disk": "ssd"})),
        cuts=made.cuts,
    )
    assert "1 lane, at most 3 waiting, at most 4 MiB before it, disk=ssd" in bounded.text()
    assert "at most 4 MiB before it, disk=ssd" in dot(bounded)
    space = "{http://www.w3.org/2000/svg}"
    root = ElementTree.fromstring(svg(bounded))
    texts = {text.text: text for text in root.iter(f"{space}text")}
    labels = [
        "1 lane",
        "at most 3 waiting",
        "at most 4 MiB before it",
        "disk=ssd",
    ]  # below each other: boxes stay small
    heights = [int(texts[label].get("y", "0")) for label in labels]
    assert heights == sorted(set(heights)) and heights[-1] < int(root.get("height", "0"))
    (box,) = [rect for rect in root.iter(f"{space}rect") if rect.get("class") == "strand"][1:]
    middle = int(box.get("x", "0")) + int(box.get("width", "0")) // 2
    assert abs(int(texts["two"].get("x", "0")) - middle) <= 1  # a stage stands in the middle of its strand
