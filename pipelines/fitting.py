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
"""Segments that one lane of a stage has in memory: plain, compressed, opened again; copies, where they are handed over.
With segments of the usual length the lanes of a whole graph need `options.LANE_BUFFERS`."""

HANDED_OVER = BODY_MAX  # the allocator keeps about one copied batch for each thread that copies; measured
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
        spare = engine.memory - BASE_MEMORY  # half of it is for all queues together, if lanes and packs let it be
        begins = self._begins({name: engine.stage(name).lanes for name in stages})
        queues = self._in_queues(begins, self._usual_queue(begins, spare // 2))
        usual = engine.usual_lanes(queues, len(begins) * HANDED_OVER)
        self.lanes = {name: engine.stage(name).lanes or usual for name in stages}
        self.begins = self._begins(self.lanes)
        spare -= sum(map(self._buffers, self.stages)) + self._handed_over()
        packs = self._packs()
        left = spare - packs * (engine.pack_bytes or PACK_MIN)
        self._queue = self._usual_queue(self.begins, min((engine.memory - BASE_MEMORY) // 2, left))
        room = (spare - self._in_queues(self.begins, self._queue)) // max(1, packs)
        self.pack_bytes = engine.pack_bytes or max(PACK_MIN, min(PACK_MAX, room))

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
        return replace(asked, nbytes=asked.nbytes or self._queue)

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
        if self.begins:
            parts.append(Part("handing over", self._handed_over()))
        if "encrypt" in self.stages:
            parts.append(Part("packs", self._packs() * self.pack_bytes))
        return parts + [Part(f"before {name}", self.queue(name).nbytes or 0) for name in self.begins]

    def _buffers(self, name: str) -> int:
        """What all lanes of a stage work in; chunk also keeps pieces that come before their turn."""
        kept = KEPT * (BODY_MAX + OVERREAD) if name == "chunk" and name in self.begins else 0
        segments = SEGMENTS.get(name, 0) + (2 if name == "compress" and "encrypt" in self.begins else 0)
        segments *= self.engine.segment_bytes or SEGMENT_BYTES
        return self.lanes[name] * (BUFFERS.get(name, 0) + segments + kept)

    def _handed_over(self) -> int:
        """What lanes that hand over keep of what they copied, though it is gone."""
        before = (self.stages[self.stages.index(name) - 1] for name in self.begins)
        return sum(self.lanes[name] * HANDED_OVER for name in before)

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

    def _usual_queue(self, begins: Sequence[str], room: int) -> int:
        """Bytes of a queue about which nothing is said, if all queues together have this room."""
        asked = [self.engine.stage(name).queue.nbytes for name in begins]
        left = room - sum(nbytes for nbytes in asked if nbytes is not None)
        return max(QUEUE_MIN, min(QUEUE_MAX, left // max(1, asked.count(None))))

    def _in_queues(self, begins: Sequence[str], usual: int) -> int:
        return sum(self.engine.stage(name).queue.nbytes or usual for name in begins)

    def _packs(self) -> int:
        """Packs in memory at once: one that each lane fills, another where it is handed over, and those under way."""
        if "encrypt" not in self.stages:
            return 0
        handed_over = "upload" in self.begins
        sending = self.lanes["upload"] * self.engine.packs_under_way
        return self.lanes["encrypt"] * (2 if handed_over else 1) + sending
