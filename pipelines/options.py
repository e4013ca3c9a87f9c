"""What a caller asks of a run, and how it watches one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import UsageError

if TYPE_CHECKING:
    from runtime.trace import Trace

MIB = 1 << 20
BASE_MEMORY = 200 * MIB  # interpreter, libraries, allocator and page tables, measured; the rest is for batches
PACK_MIN, PACK_MAX = 8 * MIB, 64 * MIB
BATCH_ROWS = MIB  # what a full batch of rows takes while it waits for its turn in the manifest
LANE_BUFFERS = 32 * MIB  # what a lane holds beside its packs: body, segment, compressed, read back


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the graph is run. `lanes` None: one for each core. `memory` bytes bound the whole process."""

    executor: str = "auto"
    lanes: int | None = None
    memory: int = 512 * MIB

    def resolved_lanes(self) -> int:
        """Lanes to run: as asked, else as many as this process's cores and memory allow."""
        if self.lanes is not None:
            if not 1 <= self.lanes <= 1024:
                raise UsageError("the number of lanes is out of range", subject=str(self.lanes), hint="use 1 to 1024")
            return self.lanes
        room = (self.memory - BASE_MEMORY) // (LANE_BUFFERS + 2 * PACK_MIN)
        return int(max(1, min(len(os.sched_getaffinity(0)), room)))

    def pack_bytes(self, lanes: int) -> int:
        """Size of a pack: every lane holds one being filled and two on their way to the store."""
        share = (self.memory - BASE_MEMORY) // lanes - LANE_BUFFERS
        return int(max(PACK_MIN, min(PACK_MAX, share // 3)))

    def batches_open(self, lanes: int) -> int:
        """Batches that may be under way at once. Rows leave in order: while the first waits for its pack to fill,
        those of all others wait behind it, so from this many on the packs are closed early."""
        return int(max(16 * lanes, (self.memory - BASE_MEMORY) // 3 // BATCH_ROWS))


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
