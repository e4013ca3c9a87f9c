"""What a caller asks of a run, and how it watches one."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from model.errors import UsageError
from runtime.placement import ClusterOptions, Placement

MIB = 1 << 20
BASE_MEMORY = 200 * MIB  # interpreter, libraries, allocator and page tables, measured; the rest is for batches
PACK_MIN, PACK_MAX = 8 * MIB, 64 * MIB
BATCH_ROWS = MIB  # what a full batch of rows takes while it waits for its turn in the manifest
LANE_BUFFERS = 32 * MIB  # what a lane holds beside its packs: body, segment, compressed, read back


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the graph is run. `lanes` None: one for each core. `memory` bytes bound what the run takes on each host.

    `cluster` is a Ray cluster to join, and `placement` says which of its hosts get which stages (a backup only).
    """

    executor: str = "auto"
    lanes: int | None = None
    memory: int = 512 * MIB
    cluster: ClusterOptions | None = None
    placement: Placement = field(default_factory=dict)
    hosts: int = 1  # that share the lanes; set by `over`

    def on_one_host(self) -> str:
        """The executor of a run that is not for many hosts. Raises UsageError if many are asked for."""
        if self.cluster or self.placement:
            raise UsageError("only a backup runs on many hosts", hint="leave out the address of the cluster")
        return self.executor

    def over(self, cpus: Sequence[int]) -> EngineOptions:
        """The same for hosts with so many processors each; none: for this host alone."""
        if not cpus:
            return self
        lanes = self.lanes or min(1024, sum(min(count, self._lanes_in_memory()) for count in cpus))
        return replace(self, lanes=lanes, hosts=len(cpus))

    def resolved_lanes(self) -> int:
        """Lanes to run: as asked, else as many as this process's cores and memory allow."""
        if self.lanes is not None:
            if not 1 <= self.lanes <= 1024:
                raise UsageError("the number of lanes is out of range", subject=str(self.lanes), hint="use 1 to 1024")
            return self.lanes
        return min(len(os.sched_getaffinity(0)), self._lanes_in_memory())

    def _lanes_in_memory(self) -> int:
        """Lanes that `memory` has room for."""
        return int(max(1, (self.memory - BASE_MEMORY) // (LANE_BUFFERS + 2 * PACK_MIN)))

    def pack_bytes(self, lanes: int) -> int:
        """Size of a pack: every lane holds one being filled and one on its way to the store."""
        share = (self.memory - BASE_MEMORY) // -(-lanes // self.hosts) - LANE_BUFFERS
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

    Setting `stop` ends the run cleanly: packs under way are stored and findable, then `Interrupted` is raised.
    """

    wants_items = False  # whether `item` is to be called at all: a call per entry is felt with millions of them

    def __init__(self) -> None:
        self.stop = threading.Event()

    def problem(self, path: bytes, text: str) -> None:
        """Trouble with one entry; the run goes on."""

    def item(self, path: bytes, action: str, size: int) -> None:
        """An entry was handled: action is "new", "changed" or "unchanged"; size in bytes. Only if `wants_items`."""

    def progress(self, progress: Progress) -> None:
        """Called about five times a second."""
