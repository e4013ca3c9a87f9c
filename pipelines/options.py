"""What a caller asks of a run, and how it watches one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from model.batches import BODY_MAX, ROWS_MAX
from model.errors import UsageError
from runtime.joining import ClusterOptions
from runtime.plan import Queue

if TYPE_CHECKING:
    from runtime.trace import Trace

MIB = 1 << 20
MEMORY = 512 * MIB  # bytes a run may take unless told otherwise
MEMORY_LEAST = 256 * MIB  # the interpreter and its libraries take most of it
BASE_MEMORY = 200 * MIB  # interpreter, libraries, allocator and page tables, measured; the rest is for batches
PACK_MIN, PACK_MAX = 8 * MIB, 64 * MIB
BATCH_ROWS = MIB  # what a full batch of rows takes while it waits for its turn in the manifest
LANE_BUFFERS = 32 * MIB  # what a lane of all stages holds beside its packs: body, segment, compressed, read back
LANES_MAX = 1024

BACKUP = ("read", "chunk", "hash", "dedup", "compress", "encrypt", "upload")
RESTORE = ("download", "decrypt", "decompress", "verify", "join", "write")
COPY = ("download", "decrypt", "unpack", "repack", "encrypt", "upload")
"""The stages of each graph, in order."""


@dataclass(frozen=True, slots=True)
class StageOptions:
    """How one stage is run. `lanes` None: as many as the run has. `placement`: labels its hosts must have."""

    lanes: int | None = None
    queue: Queue = field(default_factory=Queue)
    placement: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the graph is run. None: what suits the host and `memory`, the bytes that bound the whole process.

    `stages` are by name, of all graphs; those at which to begin a strand are in `cuts`. A batch has at most
    `batch_rows` rows and `batch_bytes` bytes of small files. `packs_under_way`: on their way to the store, for each
    lane of upload. `batches_open`: batches read and not in the manifest yet. `cluster`: hosts that a backup joins.
    """

    executor: str = "auto"
    lanes: int | None = None
    memory: int = MEMORY
    stages: Mapping[str, StageOptions] = field(default_factory=dict)
    cuts: frozenset[str] = frozenset()
    scan_threads: int = 2
    batch_rows: int = ROWS_MAX
    batch_bytes: int = BODY_MAX
    segment_bytes: int | None = None
    pack_bytes: int | None = None
    packs_under_way: int = 2
    batches_open: int | None = None
    cluster: ClusterOptions | None = None

    def __post_init__(self) -> None:
        for lanes in (self.lanes, *(stage.lanes for stage in self.stages.values())):
            if lanes is not None and not 1 <= lanes <= LANES_MAX:
                hint = f"use 1 to {LANES_MAX}"
                raise UsageError("the number of lanes is out of range", subject=str(lanes), hint=hint)

    def stage(self, name: str) -> StageOptions:
        """The options of a stage, or what holds for those nothing is said about."""
        return self.stages.get(name, StageOptions())

    @property
    def placements(self) -> list[Mapping[str, str]]:
        """The labels that hosts of a backup must have: of each of its stages that asks for some."""
        return [self.stage(name).placement for name in BACKUP if self.stage(name).placement]

    def on_one_host(self) -> str:
        """The executor of a run that is not for many hosts. Raises UsageError if many are asked for."""
        if self.cluster is not None:
            raise UsageError("only a backup runs on many hosts", hint="leave out the address of the cluster")
        return self.executor

    def over(self, cpus: Sequence[int]) -> EngineOptions:
        """The same for hosts with so many processors each, none: for this host alone. `memory` is for each of them."""
        if not cpus:
            return self
        lanes = self.lanes or min(LANES_MAX, sum(min(count, self._lanes_in_memory(0, 0)) for count in cpus))
        open_here = self.batches_open or max(16 * lanes, (self.memory - BASE_MEMORY) // 3 // BATCH_ROWS)
        memory = BASE_MEMORY + (self.memory - BASE_MEMORY) * len(cpus)
        return replace(self, lanes=lanes, batches_open=open_here, memory=memory)

    def _lanes_in_memory(self, queues: int, each: int = 0) -> int:
        """Lanes that the memory of one host has room for beside so many bytes of queues, if each takes so much more."""
        return int(max(1, (self.memory - BASE_MEMORY - queues) // (LANE_BUFFERS + 2 * PACK_MIN + each)))

    def usual_lanes(self, queues: int = 0, each: int = 0) -> int:
        """Lanes of stages about which nothing is said: as asked, else as many as cores and memory allow.

        `queues` are bytes that lie between strands, `each` those that a lane takes because it is cut.
        """
        if self.lanes is not None:
            return self.lanes
        return min(len(os.sched_getaffinity(0)), self._lanes_in_memory(queues, each))


@dataclass(slots=True)
class Progress:
    """How far a run is. Totals are None until they are known; bytes count content, not what is stored. What is counted
    beside bytes are files, unless `noun` says something else."""

    phase: str
    files_done: int = 0
    bytes_done: int = 0
    files_total: int | None = None
    bytes_total: int | None = None
    problems: int = 0
    current: bytes = b""
    limiting_stage: str = ""
    noun: str = "files"


class Watch:
    """What a run tells while it runs; override what you want to hear. Called from the thread that started the run.

    Setting `stop` ends the run cleanly: packs under way are stored and findable, then `Interrupted` is raised. Each of
    `listeners` gets the trace of the engine with every progress, and once more when the engine is done.
    """

    wants_items = False  # whether `item` is to be called at all: a call per entry is felt with millions of them

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.listeners: list[Callable[[Trace], None]] = []

    def problem(self, path: bytes, text: str) -> None:
        """Trouble with one entry; the run goes on."""

    def item(self, path: bytes, action: str, size: int) -> None:
        """An entry was handled: action is "new", "changed" or "unchanged"; size in bytes. Only if `wants_items`."""

    def progress(self, progress: Progress) -> None:
        """Called about five times a second."""

    def traced(self, trace: Trace) -> None:
        """How far the engine is, in numbers: for `listeners`."""
        for listener in self.listeners:
            listener(trace)
