"""A graph of stages as data: built by `Flow`, frozen in a `Plan`, rewritten into strands by `fuse`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from model.errors import PlanError
from runtime.stage import Stage, nbytes_of

T = TypeVar("T")
X = TypeVar("X")

Measure = Callable[[Any], int]


@dataclass(frozen=True, slots=True)
class Queue:
    """What may have been handed to a strand and not worked off yet, where another strand stands before it.

    `items` bounds those that wait (None: as many as keep the lanes on both sides busy); `nbytes` the memory of those
    that wait, are worked on, or are about to come (None: not looked at). One item may always come, however large.
    """

    items: int | None = None
    nbytes: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """A stage at its place in a plan; `lanes` copies of it work at once.

    `queue` counts if the stage begins a strand. `placement` are labels that a host must have to run it; executors
    of one host do not look at it.
    """

    name: str
    stage: Stage[Any, Any]
    lanes: int
    queue: Queue = Queue()
    placement: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Strand:
    """Neighbouring stages that run on one lane without handing anything over."""

    name: str
    nodes: tuple[Node, ...]

    @property
    def lanes(self) -> int:
        return self.nodes[0].lanes

    @property
    def queue(self) -> Queue:
        return self.nodes[0].queue

    def text(self) -> str:
        """Its lanes, what may wait before it and where it runs, in words."""
        words = ["1 lane" if self.lanes == 1 else f"{self.lanes} lanes"]
        if self.queue.items is not None:
            words.append(f"at most {self.queue.items} waiting")
        if self.queue.nbytes is not None:
            words.append(f"at most {self.queue.nbytes / (1 << 20):.0f} MiB before it")
        return ", ".join([*words, *(f"{label}={value}" for label, value in self.placement.items())])

    @property
    def placement(self) -> dict[str, str]:
        """The labels of all its stages; `fuse` sees to it that they do not contradict each other."""
        return {label: value for node in self.nodes for label, value in node.placement.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    """A chain of stages between a source that is fed and a sink, both in the caller's thread.

    `measure` gives the bytes of an item for the trace; it must be importable to be used on other processes. Stages
    named in `cuts` begin a strand of their own.
    """

    name: str
    nodes: tuple[Node, ...]
    source: str = "feed"
    sink: str = "sink"
    measure: Measure = nbytes_of
    cuts: frozenset[str] = frozenset()

    def cut(self, *stages: str) -> Plan:
        """The plan with these stages, too, at the beginning of a strand."""
        return replace(self, cuts=self.cuts.union(stages))

    def text(self) -> str:
        """One line a stage, grouped by strand."""
        strands = fuse(self)
        width = max(len(node.name) for node in self.nodes)
        lines = [f"{self.name}: {' → '.join([self.source, *(node.name for node in self.nodes), self.sink])}"]
        lines.append(f"  {self.source:<{width}}  caller")
        for strand in strands:
            for node in strand.nodes:
                lines.append(f"  {node.name:<{width}}  {strand.name}, {strand.text()}: {type(node.stage).__name__}")
        lines.append(f"  {self.sink:<{width}}  caller")
        return "\n".join(lines)

    def mermaid(self) -> str:
        """A Mermaid flowchart; strands are boxes around their stages."""
        lines = ["flowchart LR", f'  source(["{self.source}"])']
        numbers = iter(range(len(self.nodes)))
        for position, strand in enumerate(fuse(self)):
            lines.append(f'  subgraph strand{position}["{strand.name} x {strand.lanes}"]')
            lines += [f'    n{next(numbers)}["{node.name}"]' for node in strand.nodes]
            lines.append("  end")
        lines.append(f'  sink(["{self.sink}"])')
        chain = ["source", *(f"n{number}" for number in range(len(self.nodes))), "sink"]
        lines.append("  " + " --> ".join(chain))
        return "\n".join(lines)

    def json(self) -> str:
        """The same as a JSON object."""
        strands = [
            {
                "name": strand.name,
                "lanes": strand.lanes,
                "queue": {"items": strand.queue.items, "bytes": strand.queue.nbytes},
                "placement": strand.placement,
                "stages": [{"name": node.name, "stage": type(node.stage).__qualname__} for node in strand.nodes],
            }
            for strand in fuse(self)
        ]
        return json.dumps({"name": self.name, "source": self.source, "strands": strands, "sink": self.sink}, indent=2)

    def __str__(self) -> str:
        return self.text()


class Flow(Generic[T]):
    """Builds a plan; `T` is what flows at this point, so that a wrong order is a type error.

    ``Flow[Path]("scan").then("read", Reader(), lanes=2).then("hash", Hasher(), lanes=2).plan("backup")``
    """

    def __init__(self, source: str = "feed", nodes: tuple[Node, ...] = ()) -> None:
        self._source = source
        self._nodes = nodes

    def then(self, name: str, stage: Stage[T, X], lanes: int = 1) -> Flow[X]:
        """The flow with one more stage at its end."""
        if not name or not name.isprintable():
            raise PlanError("a stage needs a name", subject=type(stage).__name__)
        if any(node.name == name for node in self._nodes):
            raise PlanError("two stages have one name", subject=name)
        if any(node.stage is stage for node in self._nodes):
            raise PlanError("one stage stands at two places", subject=name, hint="make a second one")
        if lanes < 1:
            raise PlanError("a stage needs at least one lane", subject=name, why=f"lanes={lanes}")
        return Flow[X](self._source, (*self._nodes, Node(name, stage, lanes)))

    def plan(self, name: str = "run", *, sink: str = "sink", measure: Measure = nbytes_of) -> Plan:
        """The finished plan."""
        if not self._nodes:
            raise PlanError("a plan needs at least one stage", subject=name)
        return Plan(name, self._nodes, self._source, sink, measure)


def fuse(plan: Plan) -> tuple[Strand, ...]:
    """Gather neighbours with equal lanes, and labels that do not contradict each other, into strands.

    A stage at which the plan is cut begins a strand of its own. PlanError if there is no such stage.
    """
    unknown = plan.cuts - {node.name for node in plan.nodes}
    if unknown:
        raise PlanError("no such stage to cut at", subject=", ".join(sorted(unknown)))
    groups: list[list[Node]] = []
    for node in plan.nodes:
        if groups and node.name not in plan.cuts and _fit(groups[-1], node):
            groups[-1].append(node)
        else:
            groups.append([node])
    if len(groups) == 1:
        return (Strand(plan.name, tuple(groups[0])),)
    return tuple(Strand(_span(group), tuple(group)) for group in groups)


def _fit(group: Iterable[Node], node: Node) -> bool:
    """Whether the node can do its work on the lanes of the group."""
    return all(
        other.lanes == node.lanes
        and all(other.placement.get(label, value) == value for label, value in node.placement.items())
        for other in group
    )


def _span(group: list[Node]) -> str:
    return group[0].name if len(group) == 1 else f"{group[0].name}..{group[-1].name}"
