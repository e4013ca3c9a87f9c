"""Copying what is needed out of packs, segment by segment, before they are condemned.

A segment that is needed (nearly) whole is opened and sealed again without being decompressed; of others the needed
chunks are gathered into new segments. Segments nobody needs are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

import kernels
from model.batches import Receipt, Segment
from model.entries import Bool
from model.errors import Damaged, Interrupted, Missing, StoreError, StoreFull
from repository.chunk_writer import ChunkWriter
from repository.codecs import Codec
from repository.fetch import RANGE_BYTES, SealedSegment, open_header, open_packed, open_segment
from repository.index import save_index
from repository.metadata import PACK_BYTES as META_PACK
from repository.needs import Needs, Progress
from repository.pack import PACK_TARGET, PackKind, pack_name
from repository.prune_plan import Usage
from repository.receipts import Receipts
from repository.repository import Repository

LANES = 2  # each holds a pack of each kind in memory
CHECKPOINT_BYTES = 1 << 30  # stored bytes copied after which an index object makes them findable


@dataclass(slots=True)
class Rewritten:
    """What was done. `packs` may be condemned: all that is needed of them lies in other packs and is in the index."""

    packs: list[bytes] = field(default_factory=list)
    bytes_read: int = 0  # of packs, stored
    bytes_written: int = 0
    segments_copied: int = 0  # as they were
    segments_repacked: int = 0  # opened, and only what is needed of them kept
    damaged: list[Damaged] = field(default_factory=list)  # packs that stay as they are
    full: StoreFull | None = None  # the store had no room for copies: the other packs stay as they are

    def add(self, other: Rewritten) -> None:
        """What another lane did, too."""
        self.packs += other.packs
        self.bytes_read += other.bytes_read
        self.bytes_written += other.bytes_written
        self.segments_copied += other.segments_copied
        self.segments_repacked += other.segments_repacked
        self.damaged += other.damaged
        self.full = self.full or other.full


def rewrite(
    repository: Repository,
    needs: Needs,
    usage: Usage,
    rows: Sequence[int],
    progress: Progress,
    give_up: Callable[[list[bytes]], object] = lambda packs: None,
    lanes: int | None = None,
) -> Rewritten:
    """Copy what is needed out of the packs in these rows of the index. Raises StoreError; and as `progress`.

    Each lane fills packs of its own. `give_up` is told, by any lane, of packs once all that is needed of them lies in
    others and is in the index. What was copied when the run is interrupted counts, and need not be copied again.
    """
    if not rows:
        return Rewritten()
    receipts = Receipts(needs.index)
    total = int(needs.index.pack_table["size"][list(rows)].sum(dtype=np.int64))
    seen: list[int] = []  # appending is atomic

    def run(some: Sequence[int]) -> Rewritten:
        def step(size: int) -> None:
            progress("rewriting packs", sum(seen), total)
            seen.append(size)

        return _Rewriter(repository, needs, usage, receipts, step, give_up).run(some)

    # Small packs are joined, so one lane has all of those of metadata, and little data needs no second one.
    lanes = min(lanes or LANES, len(rows), 1 + total // (4 * PACK_TARGET))
    meta = needs.index.pack_table["kind"][list(rows)] == PackKind.META
    data = [row for row, is_meta in zip(rows, meta.tolist(), strict=True) if not is_meta]
    shares = [data[lane::lanes] for lane in range(lanes)]
    shares[-1] += [row for row, is_meta in zip(rows, meta.tolist(), strict=True) if is_meta]
    with ThreadPoolExecutor(lanes, thread_name_prefix="rewrite") as pool:
        parts = list(pool.map(run, shares))
    done = Rewritten()
    for part in parts:
        done.add(part)
    return done


class _Rewriter:
    """One lane."""

    def __init__(
        self,
        repository: Repository,
        needs: Needs,
        usage: Usage,
        receipts: Receipts,
        step: Callable[[int], None],
        give_up: Callable[[list[bytes]], object],
    ) -> None:
        self._repository = repository
        self._needs = needs
        self._usage = usage
        self._step = step
        self._give_up = give_up
        self._receipts = receipts
        self._writers = {
            PackKind.DATA: ChunkWriter(repository, PackKind.DATA, PACK_TARGET),
            PackKind.META: ChunkWriter(repository, PackKind.META, META_PACK),
        }
        self._pending: list[bytes] = []  # packs whose copies are not all in the index yet
        self._new: list[Receipt] = []
        self._since_checkpoint = 0
        self.done = Rewritten()

    def run(self, rows: Sequence[int]) -> Rewritten:
        """Copy what is needed out of the packs in these rows. What was copied when it is interrupted counts."""
        try:
            self._copy_all(rows)
        except Interrupted:
            self._checkpoint()
            raise
        except StoreFull as error:
            self._discard()
            self.done.full = error
        return self.done

    def _copy_all(self, rows: Sequence[int]) -> None:
        for row in rows:
            self._step(int(self._needs.index.pack_table["size"][row]))
            try:
                self._copy(row)
            except (Damaged, Missing) as error:
                why = error if isinstance(error, Damaged) else Damaged("a pack is missing", subject=error.subject)
                # Where it was raised is held by it, and with that all that was read: of many, that would be much.
                why.__cause__ = why.__context__ = why.__traceback__ = None
                self.done.damaged.append(why)
            else:
                self._pending.append(self._needs.index.packs[row])
            if self._since_checkpoint >= CHECKPOINT_BYTES:
                self._checkpoint()
        self._checkpoint()

    def _checkpoint(self) -> None:
        """Make all that was copied durable and findable: only then are the old packs of no use."""
        for writer in self._writers.values():
            self._take(writer.finish())
        save_index(self._repository, self._new)
        self._new = []
        self._give_up(self._pending)
        self.done.packs += self._pending
        self._pending, self._since_checkpoint = [], 0

    def _discard(self) -> None:
        """Delete what was stored since the last checkpoint: nobody knows of it, and room is what is lacking."""
        for writer in self._writers.values():
            self._take(writer.receipts())
        for receipt in self._new:
            with suppress(StoreError):  # then the next run does
                self._repository.store.delete(pack_name(receipt.pack_id))
                self.done.bytes_written -= receipt.pack_size
        self._pending, self._new = [], []

    def _take(self, receipts: list[Receipt]) -> None:
        self._new += receipts
        self.done.bytes_written += sum(receipt.pack_size for receipt in receipts)

    def _copy(self, row: int) -> None:
        receipt = self._receipts.of(row)
        number, rows = self._receipts.rows(row)
        wanted = self._needs.marks[number][rows] > 0
        base = int(np.searchsorted(self._needs.index.segments.pack, np.uint32(row)))
        count = len(receipt.segment_offset)
        needed, whole = (flags[base : base + count] for flags in (self._usage.needed, self._usage.whole))
        if receipt.written:  # nobody has proved yet that its chunks are what it says
            whole = np.zeros(count, dtype=bool)
        kind = PackKind.META if receipt.pack_kind == PackKind.META else PackKind.DATA
        writer = self._writers[kind]
        name = pack_name(receipt.pack_id)
        keys = open_header(self._repository, receipt.pack_id)
        for ordinal, sealed in self._fetch(receipt, np.flatnonzero(needed).tolist(), name):
            codec, plain = int(receipt.segment_codec[ordinal]), int(receipt.segment_plain[ordinal])
            offset, stored = int(receipt.segment_offset[ordinal]), int(receipt.segment_stored[ordinal])
            place = SealedSegment(receipt.pack_id, ordinal, offset, stored, plain, codec)
            chunks = receipt.segment == ordinal
            if whole[ordinal]:
                data = open_packed(self._repository, keys, place, sealed)
                columns = receipt.ids[chunks], receipt.offset[chunks], receipt.length[chunks]
                writer.take_segment(Segment(codec, plain, data, *columns))
                self.done.segments_copied += 1
            else:
                raw = codec == Codec.NONE
                opener = open_packed if raw else open_segment
                opened = memoryview(opener(self._repository, keys, place, sealed))
                self._gather(writer, receipt, chunks & wanted, opened, raw, name)
                self.done.segments_repacked += 1
            self._take(writer.receipts())

    def _gather(
        self, writer: ChunkWriter, receipt: Receipt, chunks: Bool, plain: memoryview, raw: bool, name: str
    ) -> None:
        offset, length, ids = receipt.offset[chunks], receipt.length[chunks], receipt.ids[chunks]
        if (offset.astype(np.int64) + length > len(plain)).any():
            raise Damaged("a chunk lies behind the end of its segment", subject=name)
        found = kernels.hash_chunks(self._repository.keys.id_key, plain, offset.astype(np.int64), length)
        if len(wrong := np.flatnonzero((found != ids).any(axis=1))):
            raise Damaged("a chunk is not what its id says", subject=f"{name}, chunk {ids[wrong[0]].tobytes().hex()}")
        for at, size, chunk_id in zip(offset.tolist(), length.tolist(), ids, strict=True):
            writer.put(chunk_id.tobytes(), bytes(plain[at : at + size]), raw)

    def _fetch(self, receipt: Receipt, ordinals: list[int], name: str) -> Iterator[tuple[int, memoryview]]:
        """Each of these segments as it is stored; neighbours are fetched in one range."""
        ends = receipt.segment_offset.astype(np.int64) + receipt.segment_stored
        at = 0
        while at < len(ordinals):
            first = last = at
            begin = int(receipt.segment_offset[ordinals[first]])
            while (
                last + 1 < len(ordinals)
                and ordinals[last + 1] == ordinals[last] + 1
                and int(ends[ordinals[last + 1]]) - begin <= RANGE_BYTES
            ):
                last += 1
            size = int(ends[ordinals[last]]) - begin
            data = memoryview(self._repository.store.get(name, begin, size))
            self.done.bytes_read += len(data)
            self._since_checkpoint += len(data)
            for ordinal in ordinals[first : last + 1]:
                offset = int(receipt.segment_offset[ordinal]) - begin
                yield ordinal, data[offset : offset + int(receipt.segment_stored[ordinal])]
            at = last + 1
