"""settle: the end of the copy graph, in the driver; what commit is to a backup."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from model.batches import Receipt, Stored
from model.entries import U8
from model.orders import Moved
from repository.index import save_index
from repository.repository import Repository

CHECKPOINT_BYTES = 1 << 30  # plain bytes stored since the last index object, after which the next one is written


class Claims(Protocol):
    """What settling tells about chunks: `ClaimTable`, or a proxy of one."""

    def add(self, ids: U8) -> None: ...
    def release(self, owner: str) -> None: ...


@dataclass(slots=True)
class CopyCounts:
    """What a copy has moved so far; `plain` are bytes before compression, `stored` what they take in the target.

    `segments_copied` were sealed anew as they were, of `segments_repacked` single chunks were taken.
    """

    chunks: int = 0
    plain: int = 0
    stored: int = 0
    packs: int = 0
    segments_copied: int = 0
    segments_repacked: int = 0
    segments_decompressed: int = 0
    failed: dict[tuple[bytes, int], str] = field(default_factory=dict)  # (pack, ordinal) in the source → what is wrong


class Settle:
    """Makes stored packs findable and acknowledges what they hold."""

    def __init__(
        self,
        target: Repository,
        claims: Claims,
        counts: CopyCounts,
        on_renamed: Callable[[U8, U8], None] | None,
        on_receipt: Callable[[Receipt], None],
    ) -> None:
        self._target = target
        self._claims = claims
        self._on_renamed = on_renamed
        self._on_receipt = on_receipt
        self._receipts: list[Receipt] = []
        self._since_checkpoint = 0
        self._done: set[int] = set()
        self.counts = counts

    def push(self, output: Stored[Moved]) -> Iterable[int]:
        self.take(output.receipts)
        done = []
        for moved in output.contents:
            if moved.seq not in self._done:  # else it is a replay
                self._done.add(moved.seq)
                self._count(moved)
                done.append(moved.seq)
        if self._since_checkpoint >= CHECKPOINT_BYTES:
            self.write_index()
        return done

    def lost(self, lane_name: str) -> None:
        """A lane died: what it claimed and did not store is anyone's again."""
        self._claims.release(lane_name)

    def take(self, receipts: Iterable[Receipt]) -> None:
        """Packs that are stored in the target."""
        for receipt in receipts:
            self._on_receipt(receipt)
            self._claims.add(receipt.ids)
            self._receipts.append(receipt)
            self._since_checkpoint += int(receipt.segment_plain.sum())
            self.counts.stored += receipt.pack_size
            self.counts.packs += 1

    def write_index(self) -> None:
        """Make the packs stored so far findable: an interrupted run leaves nothing to be sent twice."""
        if self._receipts:
            save_index(self._target, self._receipts)
        self._receipts.clear()
        self._since_checkpoint = 0

    def begin(self) -> None:
        """Another run follows, which counts its orders from 0."""
        self._done.clear()

    def _count(self, moved: Moved) -> None:
        counts = self.counts
        counts.chunks += moved.chunks
        counts.plain += moved.plain
        counts.segments_copied += moved.copied
        counts.segments_repacked += moved.repacked
        counts.segments_decompressed += moved.decompressed
        counts.failed |= {(moved.pack_id, ordinal): text for ordinal, text in moved.trouble.items()}
        if self._on_renamed is not None and len(moved.old):
            self._on_renamed(moved.old, moved.new)
