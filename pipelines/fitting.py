"""From what is asked of a run to what each stage is given: lanes, queues, packs, and the memory they add up to.

Memory is a promise, so whatever a run holds is a part of the budget: what each lane of a stage works in, packs being
filled and under way, and what may lie between strands. What nothing is said about is made to fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from model.batches import BODY_MAX, OVERREAD
from pipelines.options import BASE_MEMORY, BATCH_ROWS, MIB, PACK_MAX, PACK_MIN, EngineOptions
from runtime.plan import Plan, Queue
from stages.chunk import KEPT
from stages.compress import SEGMENT_BYTES

BUFFERS = {
    "read": 12 * MIB,
    "download": 8 * MIB,
    "decrypt": 4 * MIB,
    "decompress": 12 * MIB,
    "write": 8 * MIB,
    "unpack": 4 * MIB,
    "repack": 8 * MIB,
}
"""What one lane of a stage works in."""

SEGMENTS = {"compress": 3, "encrypt": 2}
"""Segments that one lane of a stage has in memory: plain, compressed, opened again. With segments of the usual length
the lanes of a whole graph need `options.LANE_BUFFERS`."""

QUEUE_MIN, QUEUE_MAX = 9 * MIB, 128 * MIB  # at least one full batch


@dataclass(frozen=True, slots=True)
class Part:
    """One line of the budget: what for, and how many bytes at most."""

    name: str
    nbytes: int


class Fitting:
    """A chain of stages fitted to the options of a run."""

    def __init__(self, engine: EngineOptions, stages: Sequence[str]) -> None:
        self.engine = engine
        self.stages = tuple(stages)
        usual = engine.usual_lanes(self._queues_in_all({name: engine.stage(name).lanes for name in stages}))
        self.lanes = {name: engine.stage(name).lanes or usual for name in stages}
        self.begins = self._begins(self.lanes)
        self.pack_bytes = engine.pack_bytes or self._pack_bytes()

    @property
    def batches_open(self) -> int:
        """Batches that may be under way at once. Rows leave in order: while the first waits for its pack to fill,
        those of all others wait behind it, so from this many on the packs are closed early."""
        if self.engine.batches_open is not None:
            return self.engine.batches_open
        return int(max(16 * max(self.lanes.values()), (self.engine.memory - BASE_MEMORY) // 3 // BATCH_ROWS))

    def begins_after(self, stage: str) -> bool:
        """Whether what this stage gives may end up on several lanes before it is stored."""
        return any(name in self.begins for name in self.stages[self.stages.index(stage) + 1 :])

    def queue(self, stage: str) -> Queue:
        """What may lie before a stage that begins a strand behind another one."""
        asked = self.engine.stage(stage).queue
        return replace(asked, nbytes=asked.nbytes or self._usual_queue(self.begins))

    def applied(self, plan: Plan) -> Plan:
        """The plan, of just these stages, as it is to run."""
        assert tuple(node.name for node in plan.nodes) == self.stages, "the plan has other stages"
        nodes = [
            replace(
                node,
                lanes=self.lanes[node.name],
                queue=self.queue(node.name) if node.name in self.begins else Queue(),
                placement=self.engine.stage(node.name).placement,
            )
            for node in plan.nodes
        ]
        return replace(plan, nodes=tuple(nodes), cuts=self.engine.cuts.intersection(self.stages))

    def budget(self) -> list[Part]:
        """What the run may take, part by part."""
        parts = [Part("program", BASE_MEMORY)]
        parts += [Part(name, self._buffers(name)) for name in self.stages if self._buffers(name)]
        if "encrypt" in self.stages:
            parts.append(Part("packs", self._packs() * self.pack_bytes))
        return parts + [Part(f"before {name}", self.queue(name).nbytes or 0) for name in self.begins]

    def _buffers(self, name: str) -> int:
        """What all lanes of a stage work in; chunk also keeps pieces that come before their turn."""
        kept = KEPT * (BODY_MAX + OVERREAD) if name == "chunk" and name in self.begins else 0
        segments = SEGMENTS.get(name, 0) * (self.engine.segment_bytes or SEGMENT_BYTES)
        return self.lanes[name] * (BUFFERS.get(name, 0) + segments + kept)

    def _begins(self, lanes: Mapping[str, int | None]) -> tuple[str, ...]:
        """Stages that begin a strand behind another one, if these are their lanes; see `runtime.plan.fuse`."""
        found, labels = [], dict(self.engine.stage(self.stages[0]).placement)
        for before, name in zip(self.stages, self.stages[1:], strict=False):
            own = self.engine.stage(name).placement
            apart = any(labels.get(label, value) != value for label, value in own.items())
            if name in self.engine.cuts or lanes[before] != lanes[name] or apart:
                found.append(name)
                labels = {}
            labels.update(own)
        return tuple(found)

    def _usual_queue(self, begins: Sequence[str]) -> int:
        """Bytes of a queue about which nothing is said: half of the memory is for all queues together."""
        asked = [self.engine.stage(name).queue.nbytes for name in begins]
        room = (self.engine.memory - BASE_MEMORY) // 2 - sum(nbytes for nbytes in asked if nbytes is not None)
        return max(QUEUE_MIN, min(QUEUE_MAX, room // max(1, asked.count(None))))

    def _queues_in_all(self, lanes: Mapping[str, int | None]) -> int:
        begins = self._begins(lanes)
        usual = self._usual_queue(begins)
        return sum(self.engine.stage(name).queue.nbytes or usual for name in begins)

    def _packs(self) -> int:
        """Packs in memory at once: one that each lane fills, another where it is handed over, and those under way."""
        handed_over = "upload" in self.begins
        sending = self.lanes["upload"] * self.engine.packs_under_way
        return self.lanes["encrypt"] * (2 if handed_over else 1) + sending

    def _pack_bytes(self) -> int:
        if "encrypt" not in self.stages:
            return PACK_MIN
        buffers = sum(map(self._buffers, self.stages))
        room = self.engine.memory - BASE_MEMORY - buffers - self._queues_in_all(self.lanes)
        return max(PACK_MIN, min(PACK_MAX, room // self._packs()))
