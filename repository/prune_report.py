"""What a run of prune did, or would do."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from model.errors import Damaged
from repository.store import Leftover


@dataclass(slots=True)
class PruneReport:
    """What a run did, or with `dry_run` what it would do as things stand. Bytes are stored bytes."""

    dry_run: bool
    purged: list[str] = field(default_factory=list)  # snapshots that left the trash for good
    in_trash: int = 0  # snapshots that can still be brought back, and keep their data
    packs: int = 0
    bytes_before: int = 0
    unused: int = 0  # packs nobody needs, condemned now
    unused_bytes: int = 0
    rewritten: int = 0  # packs
    bytes_read: int = 0
    bytes_written: int = 0
    segments_copied: int = 0
    segments_repacked: int = 0
    rescued: int = 0  # packs that are needed after all
    deleted: int = 0  # packs
    bytes_deleted: int = 0
    kept_deleted: bool = False  # the store keeps what is deleted, until a rule of its own removes it
    locked: int = 0  # packs that the store refuses to delete for the time being
    waiting: int = 0  # condemned packs that are still there
    waiting_bytes: int = 0
    waiting_for: list[str] = field(default_factory=list)  # who is at work and has not read the marks
    unfinished: int = 0  # packs kept for runs that are under way or were interrupted
    unfinished_bytes: int = 0
    left_unused: int = 0  # bytes of no use in packs that stay
    old_keys: int = 0  # packs in use that stay under the keys of older epochs
    resealed: int = 0  # snapshots
    resealed_others: int = 0  # notes, what is in the trash, and the like
    left_old: dict[str, int] = field(default_factory=dict)  # objects under older keys all the same, by folder
    index_written: int = 0  # objects
    index_deleted: int = 0
    leftovers: int = 0  # files that killed writers left half-written
    leftover_bytes: int = 0
    damaged: list[Damaged] = field(default_factory=list)  # packs that could not be rewritten

    def count_leftovers(self, leftovers: Collection[Leftover]) -> None:
        """These were removed, or would be."""
        self.leftovers, self.leftover_bytes = len(leftovers), sum(each.size for each in leftovers)

    @property
    def bytes_after(self) -> int:
        """All packs afterwards, as far as the repository sees them."""
        return self.bytes_before + self.bytes_written - self.bytes_deleted
