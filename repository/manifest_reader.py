"""Reading a manifest: all rows, those below a path, or one entry; parts are fetched one ahead."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.entries import U8, U32, Bool, order_key
from model.errors import Damaged
from repository.entry_table import RECORD, ChunkLists, chunks_of, content_sizes
from repository.manifest_root import ManifestRoot
from repository.part_codec import TABLE_ROWS, PartRef, decode_part, decode_parts

CHUNK_MAX = 64 << 20  # bytes of a chunk; as `ChunkerParams`
LIST_CHUNKS_MAX = 1 << 28  # chunks of one file: 32 TiB at 128 KiB each

Fetch = Callable[[Sequence[bytes]], list[bytes]]
"""Chunks by id, each checked to be what its id says; `ChunkFetcher.fetch`."""

OnLost = Callable[[PartRef, Damaged], None]
"""Told of a part that cannot be read."""


class ManifestReader:
    """The entries of one snapshot. Every table it gives has been checked: sorted, with possible paths and sizes."""

    def __init__(self, root: ManifestRoot, fetch: Fetch, subject: str = "manifest") -> None:
        """Reads the table of parts. Raises Damaged (also for chunks that are missing), naming `subject`."""
        self.root = root
        self.subject = subject
        self._fetch = fetch
        self.parts = self._read_parts()
        self._firsts = [order_key(part.first) for part in self.parts]
        self._lasts = [order_key(part.last) for part in self.parts]

    def _read_parts(self) -> list[PartRef]:
        if self.root.parts > TABLE_ROWS * len(self.root.chunks):
            raise self._damaged("it has more parts than its table can list")
        parts: list[PartRef] = []
        for chunk_id, length in zip(self.root.chunks, self.root.lengths, strict=True):
            (plain,) = self._fetch([chunk_id])
            if len(plain) != length:
                raise self._damaged("the table of its parts has another length than recorded")
            more = decode_parts(plain, self.subject)
            if parts and more and order_key(parts[-1].last) >= order_key(more[0].first):
                raise self._damaged("its parts are not in order")
            parts += more
        if (len(parts), sum(part.rows for part in parts)) != (self.root.parts, self.root.rows):
            raise self._damaged("the table of its parts is incomplete")
        return parts

    @property
    def rows(self) -> int:
        """Entries of the snapshot."""
        return self.root.rows

    def part(self, number: int) -> pa.Table:
        """The rows of one part, in `ENTRY_SCHEMA`. Raises Damaged."""
        ref = self.parts[number]
        (plain,) = self._fetch([ref.id])
        if len(plain) != ref.length:
            raise self._damaged("a part has another length than recorded")
        return decode_part(plain, ref, self.subject)

    def tables(self, start: int = 0, end: int | None = None, on_lost: OnLost | None = None) -> Iterator[pa.Table]:
        """Parts `start` up to `end`, in order; the next one is made ready while the caller works on this one.

        Raises Damaged for a part that cannot be read; with `on_lost` such parts are told to it and left out.
        """
        numbers = range(len(self.parts))[start:end]
        if not numbers:
            return
        with ThreadPoolExecutor(1, thread_name_prefix="manifest") as pool:
            ahead = pool.submit(self.part, numbers[0])
            for number in numbers:
                here = ahead
                here.exception()  # done: one part is made ready at a time
                if number != numbers[-1]:
                    ahead = pool.submit(self.part, number + 1)
                try:
                    table = here.result()
                except Damaged as error:
                    if on_lost is None:
                        raise
                    on_lost(self.parts[number], error)
                else:
                    yield table

    def __iter__(self) -> Iterator[pa.Table]:
        return self.tables()

    def subtree(self, path: bytes, on_lost: OnLost | None = None) -> Iterator[pa.Table]:
        """Rows at `path` and below it, in order. ``b""`` is everything. `on_lost` as of `tables`."""
        if not path:
            yield from self.tables(on_lost=on_lost)
            return
        if (entry := self.find(path)) is not None:
            yield entry
        # Rows below lie together: their directory is `path`, or begins with it and a separator.
        low = (path.replace(b"/", b"\0"), b"")
        high = (low[0] + b"\1", b"")
        start, end = bisect_left(self._lasts, low), bisect_right(self._firsts, high)
        for table in self.tables(start, end, on_lost):
            below = _one_run(pc.starts_with(table["path"], path + b"/").to_numpy())
            if below.stop > below.start:
                yield table.slice(below.start, below.stop - below.start)

    def children(self, path: bytes) -> Iterator[pa.Table]:
        """Rows of the directory `path` itself, without what is below its folders."""
        directory = path.replace(b"/", b"\0")
        start = bisect_left(self._lasts, (directory, b""))
        end = bisect_left(self._firsts, (directory + b"\0", b""))
        prefix = path + b"/" if path else b""
        for table in self.tables(start, end):
            names = table["path"]
            inside = pc.count_substring(names, b"/").to_numpy() == prefix.count(b"/")
            if prefix:
                inside &= pc.starts_with(names, prefix).to_numpy()
            else:
                inside &= pc.binary_length(names).to_numpy() > 0
            run = _one_run(inside)
            if run.stop > run.start:
                yield table.slice(run.start, run.stop - run.start)

    def find(self, path: bytes) -> pa.Table | None:
        """The entry at `path` as a table of one row."""
        number = bisect_left(self._lasts, order_key(path))
        if number == len(self.parts) or self._firsts[number] > order_key(path):
            return None
        table = self.part(number)
        row = pc.index(table["path"], pa.scalar(path, pa.binary())).as_py()
        return table.slice(row, 1) if row >= 0 else None

    def content(self, table: pa.Table, on_damage: Callable[[int, Damaged], None] | None = None) -> ChunkLists:
        """The chunks of content of each row of `table`: lists of long files are fetched.

        Raises Damaged for a list that cannot be read; with `on_damage` such rows are told to it and have no chunks.
        """
        lists = chunks_of(table)
        long = np.flatnonzero(lists.depth == 1).tolist()
        if not long:
            return lists
        wanted = content_sizes(table)
        flawed = table["problem"].is_valid().to_numpy()
        for row in long:
            try:
                ids, length = self.expand(*lists.row(row))
                if int(length.sum(dtype=np.int64)) != int(wanted[row]) and not flawed[row]:
                    raise self._damaged("the chunks of a long file do not add up to its size")
            except Damaged as error:
                if on_damage is None:
                    raise
                on_damage(row, error)
                ids, length = np.zeros((0, 32), np.uint8), np.zeros(0, np.uint32)
            lists.with_row(row, ids, length)
        settled = lists.settled()
        return ChunkLists(settled.offsets, settled.ids, settled.length, np.zeros_like(settled.depth))

    def expand(self, ids: U8, length: U32) -> tuple[U8, U32]:
        """Ids and lengths of the chunks in the lists of chunks `ids`, `length` bytes each. Raises Damaged."""
        if int(length.sum(dtype=np.int64)) > LIST_CHUNKS_MAX * RECORD.itemsize or np.any(length % RECORD.itemsize):
            raise self._damaged("the list of a long file has an impossible length")
        plains = self._fetch([row.tobytes() for row in ids])
        if [len(plain) for plain in plains] != length.tolist():
            raise self._damaged("the list of a long file has another length than recorded")
        records = np.frombuffer(b"".join(plains), RECORD)
        if np.any(records["length"] > CHUNK_MAX):
            raise self._damaged("a chunk is larger than allowed")
        return np.ascontiguousarray(records["id"]), records["length"].astype(np.uint32)

    def _damaged(self, why: str) -> Damaged:
        return Damaged(
            "a manifest is not valid", subject=self.subject, why=why, hint="lox check lists what it concerns"
        )


def _one_run(rows: Bool) -> slice:
    """The run of true values; manifest order makes it one."""
    places = np.flatnonzero(rows)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)
