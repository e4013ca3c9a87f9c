"""commit: put rows back in order, prove that every chunk is stored, and write the one object that makes a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from typing import Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from model.batches import Content, Listing, Receipt, Stored
from model.entries import I32, I64, STAT, U8, Bool, Fresh, Kind
from model.errors import Damaged
from repository.entry_rows import INCOMPLETE
from repository.manifest import ChunkLists, fresh_table
from repository.metadata import MetadataStore

CHECKPOINT_BYTES = 1 << 30  # plain bytes stored since the last index object, after which the next one is written


class Claims(Protocol):
    """What commit asks about chunks: `ClaimTable`, or what one host sees of it."""

    def resolved(self, ids: U8) -> Bool: ...
    def settled(self, ids: U8) -> Bool: ...
    def release(self, owner: str) -> None: ...


class Intake(Protocol):
    """Where receipts go: `repository.intake.Intake`, or a proxy of it."""

    def take(self, receipts: list[Receipt]) -> None: ...
    def write_index(self) -> None: ...


M = TypeVar("M", covariant=True)


class Rows(Protocol[M]):
    """Where rows go: `ManifestWriter`, or the part of one host; `M` is what comes of them."""

    @property
    def chunk_ids(self) -> U8: ...
    def add(self, table: pa.Table, borders: I32) -> None: ...
    def finish(self) -> M: ...


@dataclass(slots=True)
class CommitCounts:
    """What a run has done so far; bytes are plain unless they say stored."""

    rows: int = 0
    files: int = 0
    bytes_total: int = 0
    bytes_read: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0
    problems: list[tuple[bytes, str]] = field(default_factory=list)


class Commit(Generic[M]):
    """The end of the backup graph, in the driver. Batches arrive in any order, some of them twice; rows leave once.

    A row is taken only when each of its chunks is in a pack that is stored, and only after all rows before it. Until
    then its ticket is not acknowledged, so whatever happens to the workers, the row can be made again.
    """

    def __init__(
        self,
        intake: Intake,
        claims: Claims,
        metadata: MetadataStore,
        manifest: Rows[M],
        on_problem: Callable[[bytes, str], None] = lambda path, text: None,
        on_item: Callable[[bytes, str, int], None] | None = None,
    ) -> None:
        self._intake = intake
        self._claims = claims
        self._metadata = metadata
        self._manifest = manifest
        self._on_problem = on_problem
        self._on_item = on_item
        self._waiting: dict[int, Content] = {}
        self._next = 0
        self._since_checkpoint = 0
        self._links: dict[tuple[int, int], _FirstLink] = {}
        self._large: list[Content] = []
        self._list_ids: list[bytes] = []  # chunks that hold the chunk lists of long files
        self.counts = CommitCounts()

    def push(self, output: Stored[Content]) -> Iterable[int]:
        self._receive(output.receipts)
        for content in output.contents:
            if content.listing.seq >= self._next:
                self._waiting[content.listing.seq] = content
        first = self._next
        for content in self._resolved():
            del self._waiting[self._next]
            self._next += 1
            self._take(content)
        if self._since_checkpoint >= CHECKPOINT_BYTES:
            self.write_index()
        return range(first, self._next)

    def lost(self, lane_name: str) -> None:
        """A lane died: what it claimed and did not store is anyone's again."""
        self._claims.release(lane_name)

    def finish(self) -> M:
        """Close the manifest and prove that all of it is stored. Raises Damaged if it is not.

        To make it findable (`write_index`) and to write the snapshot, last, is for the caller.
        """
        if self._waiting or self._large:
            raise Damaged("rows were left without their chunks", subject=f"{len(self._waiting)} batches")
        made = self._manifest.finish()
        self._receive(self._metadata.finish())
        for ids in (self._manifest.chunk_ids, self._lists):
            if not self._claims.resolved(ids).all():
                raise Damaged("the manifest is not stored", why="a chunk of it has no receipt")
        return made

    def write_index(self) -> None:
        """Make the packs stored so far findable: an interrupted run leaves nothing to be sent twice."""
        self._receive(self._metadata.receipts())
        self._intake.write_index()
        self._since_checkpoint = 0

    def _resolved(self) -> list[Content]:
        """What follows on the rows taken and has all of its chunks stored. One question for all: it may be a call to
        another process."""
        following = [self._waiting[seq] for seq in takewhile(self._waiting.__contains__, count(self._next))]
        if not following:
            return []
        stored = self._claims.settled(np.concatenate([content.ids for content in following]))
        firsts = np.cumsum([0, *(len(content.ids) for content in following)])
        missing = np.flatnonzero(~stored)
        return following if not len(missing) else following[: int(np.searchsorted(firsts, missing[0], "right")) - 1]

    def _receive(self, receipts: list[Receipt]) -> None:
        if receipts:
            self._intake.take(receipts)
        for receipt in receipts:
            self.counts.bytes_stored += receipt.pack_size
            self._since_checkpoint += int(receipt.segment_plain.sum())

    def _take(self, content: Content) -> None:
        listing = content.listing
        self.counts.bytes_new += content.new_bytes
        self.counts.bytes_read += int(content.length.sum(dtype=np.int64))
        if listing.piece is not None:
            self._large.append(content if listing.piece.index == 0 else _bare(content))
            if listing.piece.index < listing.piece.count - 1:
                return
            content, self._large = _joined(self._large), []
            listing = content.listing
        lists = ChunkLists.of_rows(len(listing.fresh), content.row, content.ids, content.length)
        fresh = self._linked(listing.fresh, lists)
        listing, lists = replace(listing, fresh=fresh), lists.deepened(self._store_list)
        rows = self._rows(listing, lists)
        if listing.carried is not None:
            self._metadata.take_over(listing.carried)
        self._manifest.add(rows, listing.borders)
        self._count(rows)
        if self._on_item is not None:
            self._tell_items(listing)

    def _store_list(self, plain: bytes) -> bytes:
        chunk_id = self._metadata.store(plain)
        self._list_ids.append(chunk_id)
        return chunk_id

    @property
    def _lists(self) -> U8:
        return np.frombuffer(b"".join(self._list_ids), np.uint8).reshape(-1, 32)

    def _count(self, rows: pa.Table) -> None:
        kind = rows["kind"].to_numpy()
        self.counts.rows += rows.num_rows
        self.counts.files += int((kind != Kind.DIRECTORY).sum())
        self.counts.bytes_total += int(rows["size"].to_numpy()[kind == Kind.FILE].sum())

    def _rows(self, listing: Listing, lists: ChunkLists) -> pa.Table:
        if not len(listing.fresh):
            return listing.carried
        fresh = fresh_table(listing.fresh, lists)
        self._note_problems(fresh)
        if listing.carried is None or not len(listing.carried_at):
            return fresh
        order = np.empty(len(listing.carried_at) + len(listing.fresh_at), dtype=np.int64)
        order[listing.carried_at] = np.arange(len(listing.carried_at))
        order[listing.fresh_at] = np.arange(len(listing.fresh_at)) + len(listing.carried_at)
        return pa.concat_tables([listing.carried, fresh]).take(order)

    def _note_problems(self, fresh: pa.Table) -> None:
        flawed = fresh.filter(fresh["problem"].is_valid()) if fresh["problem"].null_count < fresh.num_rows else None
        for row in flawed.select(["path", "problem"]).to_pylist() if flawed is not None else ():
            path, text = row["path"], row["problem"].decode(errors="replace")
            self.counts.problems.append((path, text))
            self._on_problem(path, text)

    def _tell_items(self, listing: Listing) -> None:
        assert self._on_item is not None
        fresh = listing.fresh
        known = np.zeros(len(fresh), dtype=bool) if fresh.known is None else fresh.known
        for path, changed, size in zip(fresh.paths, known.tolist(), fresh.stat["size"].tolist(), strict=True):
            self._on_item(path, "changed" if changed else "new", size)
        if listing.carried is not None:
            for row in listing.carried.select(["path", "size"]).to_pylist():
                self._on_item(row["path"], "unchanged", row["size"])

    def _linked(self, fresh: Fresh, lists: ChunkLists) -> Fresh:
        """Later members of a hard-link group were not read: what was read of the first is true of them as well."""
        linked = np.flatnonzero((fresh.stat["nlink"] > 1) & (fresh.kinds == Kind.FILE))
        if fresh.same_as.any():
            fresh = _own(fresh)
        for row in linked.tolist():
            key = (int(fresh.device[row]), int(fresh.stat["ino"][row]))
            if not fresh.same_as[row]:
                self._links[key] = _FirstLink.of(fresh, row, lists)
            elif (first := self._links.get(key)) is not None and row not in fresh.problems:
                first.tell(fresh, lists, row)
                if first.left == 0:
                    del self._links[key]
        return fresh


@dataclass(slots=True, eq=False)
class _FirstLink:
    """What was read of the first member of a hard-link group, for the `left` members that may still come."""

    left: int
    ids: bytes  # not arrays: of files that are linked from elsewhere there may be very many
    length: bytes
    stat: bytes
    xattrs: list[tuple[bytes, bytes]] | None
    extents: I64 | None
    problem: str | None

    @classmethod
    def of(cls, fresh: Fresh, row: int, lists: ChunkLists) -> _FirstLink:
        ids, length = lists.row(row)
        left, stat = int(fresh.stat["nlink"][row]) - 1, fresh.stat[row].tobytes()
        xattrs, extents, problem = fresh.xattrs.get(row), fresh.extents.get(row), fresh.problems.get(row)
        return cls(left, ids.tobytes(), length.tobytes(), stat, xattrs, extents, problem)

    def tell(self, fresh: Fresh, lists: ChunkLists, row: int) -> None:
        """Make `row`, another name of the same inode, say the same."""
        self.left -= 1
        lists.with_row(row, np.frombuffer(self.ids, np.uint8).reshape(-1, 32), np.frombuffer(self.length, np.uint32))
        fresh.stat[row] = np.frombuffer(self.stat, STAT)[0]
        if self.xattrs is not None:
            fresh.xattrs[row] = self.xattrs
        if self.extents is not None:
            fresh.extents[row] = self.extents
        if self.problem is not None:
            fresh.problems[row] = self.problem


def _own(fresh: Fresh) -> Fresh:
    """A copy whose rows may be changed."""
    return replace(
        fresh,
        stat=fresh.stat.copy(),
        xattrs=dict(fresh.xattrs),
        extents=dict(fresh.extents),
        problems=dict(fresh.problems),
    )


def _bare(content: Content) -> Content:
    """A later piece of a large file without what the first says already: there may be very many of them."""
    listing = content.listing
    return replace(content, listing=replace(listing, fresh=replace(listing.fresh, extents={}), piece=None))


def _joined(pieces: list[Content]) -> Content:
    """One row with the chunks of all pieces of a large file."""
    first = pieces[0].listing
    length = np.concatenate([piece.length for piece in pieces])
    problems = {row: text for piece in reversed(pieces) for row, text in piece.listing.fresh.problems.items()}
    extents = first.fresh.extents.get(0)
    wanted = first.fresh.stat["size"][0] if extents is None else extents[:, 1].sum()
    if length.sum(dtype=np.int64) != wanted:  # of long lists nobody after us can tell
        problems.setdefault(0, INCOMPLETE)
    fresh = replace(first.fresh, problems=problems)
    if problems and 0 not in fresh.extents:
        # It changed while it was read, or could not be read to its end: it is as long as what was read of it.
        fresh.stat = fresh.stat.copy()
        fresh.stat["size"][0] = length.sum(dtype=np.int64)
    row = np.zeros(len(length), dtype=np.int32)
    ids = np.concatenate([piece.ids for piece in pieces])
    return Content(replace(first, fresh=fresh), row, length, ids)
