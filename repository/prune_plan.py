"""What garbage collection is to do with each pack: leave it, condemn it, or copy what is needed of it first.

Pure: everything it decides on is in its arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from model.entries import I64, Bool
from model.errors import UsageError
from repository.index import ChunkIndex
from repository.metadata import PACK_BYTES as META_PACK
from repository.needs import Needs
from repository.pack import PACK_TARGET, PackKind

KEEP_WHOLE = 0.9  # of a segment's plain bytes: if so many are needed it is copied as it is, with the rest
SMALL = 4  # a pack is small if it has less than a fourth of what packs are made for
SMALL_MIN = 16  # small packs of one kind that are worth joining
MOSTLY_UNUSED = 0.75  # of what a pack of a write-only machine holds: what is needed of it that machine stores again

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PrunePolicy:
    """How much work is worth it. Shares are of 1, sizes in bytes, spans in ns.

    `max_unused`: the share of the packs that may be of no use before they are rewritten. `max_rewrite`: at most so much
    is copied in one run; the next goes on. `trash`: forgotten snapshots can be brought back for so long. `unfinished`:
    what interrupted runs stored is kept so long for the next run to use.
    """

    max_unused: float = 0.05
    max_rewrite: int | None = None
    trash: int = 7 * 86_400 * 10**9
    unfinished: int = 86_400 * 10**9

    def __post_init__(self) -> None:
        if not 0 <= self.max_unused <= 1:
            raise UsageError("the share of unused data is out of range", subject=str(self.max_unused))
        if (self.max_rewrite is not None and self.max_rewrite < 0) or self.trash < 0 or self.unfinished < 0:
            raise UsageError("a size or a span of time cannot be negative")


@dataclass(slots=True, eq=False)
class Usage:
    """How much of each segment and pack is needed. Stored bytes of a segment are shared out by plain length."""

    needed: Bool  # [s] whether anything in the segment is
    whole: Bool  # [s] whether it is copied as it is, should its pack be rewritten
    gain: Reals  # [p] stored bytes that rewriting it would free

    @classmethod
    def of(cls, needs: Needs) -> Usage:
        """Add up the marks of `needs`."""
        segments, packs = needs.index.segments, len(needs.index.packs)
        plain: Reals = np.zeros(len(segments))
        needed = np.zeros(len(segments), dtype=bool)
        base = 0
        for table, marks in zip(needs.index.tables, needs.marks, strict=True):
            rows = np.flatnonzero(marks)
            size = len(table.segments)
            here = slice(base, base + size)
            plain[here] = np.bincount(table.segment[rows], weights=table.length[rows], minlength=size)
            needed[base + np.unique(table.segment[rows]).astype(np.int64)] = True
            base += size
        share = np.where(needed, np.minimum(plain / np.maximum(segments.plain, 1), 1.0), 0.0)
        whole = needed & (share >= KEEP_WHOLE)
        gain: Reals = np.zeros(packs)
        np.add.at(gain, segments.pack, np.where(whole, 0.0, segments.stored * (1 - share)))
        return cls(needed, whole, gain)

    def needed_packs(self, index: ChunkIndex) -> Bool:
        """Which packs hold something needed."""
        flags = np.zeros(len(index.packs), dtype=bool)
        flags[np.unique(index.segments.pack[self.needed])] = True
        return flags


@dataclass(slots=True)
class Plan:
    """What is to be done. Packs are ids, `rewrite` are rows of the index."""

    unused: list[bytes] = field(default_factory=list)
    rewrite: list[int] = field(default_factory=list)
    rescue: list[bytes] = field(default_factory=list)  # condemned, but needed, and not damaged
    copied: int = 0  # stored bytes to copy, estimated
    gain: int = 0  # stored bytes that frees, estimated
    left_unused: int = 0  # stored bytes of no use that stay, estimated


def plan_prune(
    index: ChunkIndex,
    usage: Usage,
    policy: PrunePolicy,
    present: Mapping[bytes, int],
    condemned: Collection[bytes],
    damaged: Collection[bytes],
    also: Collection[bytes] = (),
) -> Plan:
    """`present` are the packs of the store and their sizes, `condemned` those of any mark, `damaged` those of marks
    that say so, `also` packs that are to be rewritten whatever is in them."""
    needed = usage.needed_packs(index)
    in_use = {pack for pack, use in zip(index.packs, needed.tolist(), strict=True) if use}
    plan = Plan(
        unused=sorted(pack for pack in present if pack not in in_use and pack not in condemned),
        rescue=sorted(pack for pack in in_use if pack in condemned and pack not in damaged),
    )
    sizes = index.pack_table["size"].astype(np.int64)
    there = np.array([present.get(pack) == size for pack, size in zip(index.packs, sizes.tolist(), strict=True)], bool)
    usable = needed & there & ~np.array([pack in condemned for pack in index.packs], bool)
    forced = usable & np.array([pack in also for pack in index.packs], bool)
    written = index.pack_table["written"] != 0
    held = np.bincount(index.segments.pack, weights=index.segments.stored, minlength=len(sizes))
    worth = ~written | forced | (usage.gain >= MOSTLY_UNUSED * held)
    _choose(plan, usage, policy, usable & worth, forced, sizes)
    room = None if policy.max_rewrite is None else policy.max_rewrite - plan.copied
    _join_small(plan, usage, usable & ~written, sizes, index.pack_table["kind"], room)
    chosen = np.zeros(len(index.packs), dtype=bool)
    chosen[plan.rewrite] = True
    plan.gain = int(usage.gain[chosen].sum())
    plan.left_unused = int(usage.gain[usable & ~chosen].sum())
    return plan


def _choose(plan: Plan, usage: Usage, policy: PrunePolicy, usable: Bool, forced: Bool, sizes: I64) -> None:
    """Packs of which least is needed first, until little enough is of no use."""
    limit = policy.max_unused * float(sizes[usable].sum())
    unused = float(usage.gain[usable].sum())
    rows = np.flatnonzero(usable & ((usage.gain > 0) | forced))
    order = rows[np.lexsort((rows, -(usage.gain[rows] / sizes[rows]), ~forced[rows]))]
    for row in order.tolist():
        if unused <= limit and not forced[row]:
            break
        copied = plan.copied + int(sizes[row] - usage.gain[row])
        if policy.max_rewrite is not None and copied > policy.max_rewrite:
            continue
        plan.rewrite.append(row)
        plan.copied = copied
        unused -= float(usage.gain[row])


def _join_small(
    plan: Plan, usage: Usage, usable: Bool, sizes: I64, kinds: npt.NDArray[np.uint8], room: int | None
) -> None:
    """Many runs leave many small packs: join them, so that their number does not grow with the number of runs.

    The smallest first, so that runs with little `room` come to an end as well.
    """
    chosen = set(plan.rewrite)
    for kind, target in ((PackKind.DATA, PACK_TARGET), (PackKind.META, META_PACK)):
        rows: list[int] = np.flatnonzero(usable & (kinds == kind) & (sizes < target // SMALL)).tolist()
        if len(rows) < SMALL_MIN:
            continue
        join, size = [], 0
        for row in sorted(set(rows) - chosen, key=lambda row: (int(sizes[row]), row)):
            copied = int(sizes[row] - usage.gain[row])
            if room is not None and size + copied > room:
                break
            join.append(row)
            size += copied
        if len(join) > 1 or chosen.intersection(rows):
            plan.rewrite += join
            plan.copied += size
            room = None if room is None else room - size
