"""Where deduplication comes from: every logical byte is either stored for the first time or known for one reason.

A chunk of a file is counted for the first of these that holds: an older snapshot of the same host has it, another host
has it, it is a further name of a hard-linked file, the same file has it already, another file of the same snapshot has
it; else it is new. So the rows add up to all logical bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lox.analysis.history import F64, Places, by_time, first_places, rows_of_chunks
from model.entries import I64, Bool, Kind
from repository.entry_table import column
from repository.snapshot import Snapshot
from repository.tables.of_entries import extensions
from repository.tables.parts import Part, Parts, Progress, silent
from repository.tables.view import View

HISTORY, HOSTS, LINKS, WITHIN, FILES, NEW = range(6)
REASONS = (
    "between snapshots", "between hosts", "hard links", "within a file", "between files", "stored: first of its kind"
)  # fmt: skip
HOSTS_MAX = 63  # told apart; all others count as one
EXTENSIONS_MAX = 50_000
SIZES = ((4 << 10, "up to 4 KiB"), (64 << 10, "up to 64 KiB"), (1 << 20, "up to 1 MiB"), (16 << 20, "up to 16 MiB"),
         (256 << 20, "up to 256 MiB"))  # fmt: skip
LARGER = "over 256 MiB"
MEASURES = ("between_snapshots", "between_hosts", "hard_links", "within_file", "between_files", "unique")

REASONS_SCHEMA = pa.schema([("reason", pa.string()), ("logical", pa.int64()), ("stored", pa.int64())])
GROUPS_SCHEMA = pa.schema(
    [("group", pa.string()), ("files", pa.int64()), ("logical", pa.int64())]
    + [(name, pa.int64()) for name in MEASURES]
    + [("stored", pa.int64())]
)
HOSTS_SCHEMA = pa.schema(
    [("host", pa.string()), ("other", pa.string()), ("unique", pa.int64()), ("stored", pa.int64())]
)

U64 = npt.NDArray[np.uint64]


@dataclass(slots=True)
class Dedup:
    """`reasons` in `REASONS_SCHEMA`: logical bytes by why they are known, which add up to all; only what is stored for
    the first time takes stored bytes. `extensions` and `sizes` in `GROUPS_SCHEMA` split the same by kind of file:
    `logical` is the sum of the columns from `between_snapshots` to `unique`. `hosts` in `HOSTS_SCHEMA`: what two hosts
    both need, and with itself what a host needs in all.
    """

    reasons: pa.Table
    extensions: pa.Table
    sizes: pa.Table
    hosts: pa.Table


def dedup(view: View, progress: Progress = silent) -> Dedup:
    """Where the deduplication of all snapshots comes from. Raises NotFound, Damaged.

    Reads each part of a manifest once. Memory: 20 bytes for each chunk of the index.
    """
    snapshots = by_time(view)
    count = _Count(view, snapshots)
    for part in Parts(view, snapshots, progress=progress):
        count.add(part)
    return count.result()


class _Groups:
    """Sums by group: files, logical, by reason, stored."""

    def __init__(self, names: list[str]) -> None:
        self._number = {name: number for number, name in enumerate(names)}
        self._sums: F64 = np.zeros((max(1, len(names)), 3 + len(REASONS)))

    def number(self, name: str) -> int:
        """The number of a group; of too many all further ones are one."""
        name = name if name in self._number or len(self._number) < EXTENSIONS_MAX else "(others)"
        number = self._number.setdefault(name, len(self._number))
        if number >= len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        return number

    def add(self, groups: I64, at: int | I64, values: F64 | I64 | Bool) -> None:
        """Add `values` to measure `at` of `groups`."""
        np.add.at(self._sums.reshape(-1), groups * self._sums.shape[1] + at, values)

    def table(self, by_size: bool = True) -> pa.Table:
        """The groups that have anything, the largest first unless they have an order of their own."""
        names = np.array(list(self._number), dtype=object)
        sums = np.round(self._sums[: len(names)]).astype(np.int64)
        rows = np.argsort(-sums[:, 1], kind="stable") if by_size else np.arange(len(names))
        order = [row for row in rows if sums[row].any()]
        columns = [pa.array(sums[order, at]) for at in range(sums.shape[1])]
        return pa.table([pa.array(names[order].tolist(), pa.string()), *columns], schema=GROUPS_SCHEMA)


class _Count:
    """What the parts up to now held, in the order of the first snapshot that has each."""

    def __init__(self, view: View, snapshots: list[Snapshot]) -> None:
        self._places = Places(view)
        names = list(dict.fromkeys(snapshot.host for snapshot in snapshots))
        self._hosts = names if len(names) <= HOSTS_MAX else [*names[: HOSTS_MAX - 1], "(all others)"]
        self._host_of = np.array([min(names.index(one.host), HOSTS_MAX - 1) for one in snapshots])
        self._known: U64 = np.zeros(self._places.rows, np.uint64)  # the hosts that need each chunk, as bits
        self._since = np.full(self._places.rows, -1, np.int32)  # the snapshot with which the last of them came
        self._first = np.full(self._places.rows, -1, np.int32)  # the snapshot with which the first of them came
        self._totals = np.zeros(len(REASONS))
        self._stored = 0.0
        self._extensions = _Groups([])
        self._sizes = _Groups([*(name for _, name in SIZES), LARGER])
        self._linked: set[tuple[int, int]] = set()  # files with several names met in the snapshot of `_snapshot`
        self._snapshot = -1

    def add(self, part: Part) -> None:
        """Count a part: for its first snapshot chunk by chunk, for all further ones as a whole."""
        files = np.flatnonzero(column(part.rows, "kind") == Kind.FILE)
        held = rows_of_chunks(part.lists)
        placed = self._places.of(part.lists.ids)
        length = part.lists.length.astype(np.int64)
        reasons = self._reasons(part, held, placed.row)
        self._mark(part, placed.row)
        self._totals += np.bincount(reasons, weights=length, minlength=len(REASONS))
        new = reasons == NEW
        self._stored += float(placed.stored[new].sum())
        later = self._later(part)
        self._totals += later * float(length.sum())
        whole = np.bincount(held, weights=length, minlength=part.rows.num_rows)
        for groups, of_row in self._groups_of(part.rows):
            times = len(part.snapshots)
            groups.add(of_row[files], 0, np.full(len(files), times))
            groups.add(of_row[files], 1, whole[files] * times)
            groups.add(of_row[held], 2 + reasons, length)
            groups.add(of_row[held[new]], 2 + len(REASONS), placed.stored[new])
            for reason in np.flatnonzero(later).tolist():
                groups.add(of_row[files], 2 + reason, whole[files] * later[reason])

    def _later(self, part: Part) -> F64:
        """How often the part occurs in further snapshots, by why it is known then."""
        hosts = self._host_of[part.snapshots]
        again = ~first_places(hosts)
        times = np.zeros(len(REASONS))
        times[HISTORY] = int(again[1:].sum())
        times[HOSTS] = int((~again[1:]).sum())
        return times

    def _reasons(self, part: Part, held: npt.NDArray[np.int32], row: I64) -> I64:
        """Why each chunk is known in the first snapshot of its part."""
        snapshot = int(part.snapshots[0])
        own = np.uint64(1) << np.uint64(self._host_of[snapshot])
        stored = row >= 0
        known, since, first = self._known[row], self._since[row], self._first[row]
        before = stored & (known != 0) & ((known & own) != 0) & (since != snapshot)
        elsewhere = stored & (known != 0) & ~before & (first != snapshot)
        here = stored & (first == snapshot)
        key = np.where(stored, row, self._places.rows + np.arange(len(row)))
        earlier_here = ~first_places(key)  # in this part
        within = ~first_places(held.astype(np.int64) * (self._places.rows + len(row)) + key)
        reasons = np.full(len(row), NEW, np.int64)
        reasons[here | earlier_here] = FILES
        reasons[within] = WITHIN
        reasons[self._links(part, snapshot)[held]] = LINKS
        reasons[elsewhere] = HOSTS
        reasons[before] = HISTORY
        return reasons

    def _links(self, part: Part, snapshot: int) -> Bool:
        """Which rows are further names of a file met before in the same snapshot."""
        if snapshot != self._snapshot:
            self._linked, self._snapshot = set(), snapshot
        rows = part.rows
        further = np.zeros(rows.num_rows, dtype=bool)
        several = np.flatnonzero((column(rows, "nlink") > 1) & (column(rows, "kind") == Kind.FILE))
        inodes, devices = column(rows, "ino")[several].tolist(), column(rows, "device")[several].tolist()
        for number, key in zip(several.tolist(), zip(inodes, devices, strict=True), strict=True):
            further[number] = key in self._linked
            self._linked.add(key)
        return further

    def _mark(self, part: Part, row: I64) -> None:
        row = row[row >= 0]
        bits = np.bitwise_or.reduce(np.uint64(1) << self._host_of[part.snapshots].astype(np.uint64))
        missing = (self._known[row] & bits) != bits
        self._since[row[missing]] = int(part.snapshots[0])
        self._known[row] |= bits
        fresh = row[self._first[row] < 0]
        self._first[fresh] = int(part.snapshots[0])

    def _groups_of(self, rows: pa.Table) -> list[tuple[_Groups, I64]]:
        names = extensions(rows["path"], pc.equal(rows["kind"], int(Kind.FILE)))
        names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
        words = names.dictionary_encode()
        texts = [f".{text}" if text else "(none)" for text in words.dictionary.to_pylist()]
        codes = np.array([self._extensions.number(text) for text in texts], np.int64)
        by_extension = codes[words.indices.to_numpy()] if len(codes) else np.zeros(0, np.int64)
        by_size = np.searchsorted([limit for limit, _ in SIZES], column(rows, "size")).astype(np.int64)
        return [(self._extensions, by_extension), (self._sizes, by_size)]

    def result(self) -> Dedup:
        logical = np.round(self._totals).astype(np.int64)
        stored = [round(self._stored) if reason == NEW else 0 for reason in range(len(REASONS))]
        reasons = pa.table([list(REASONS), logical, stored], schema=REASONS_SCHEMA)
        return Dedup(reasons, self._extensions.table(), self._sizes.table(by_size=False), self._matrix())

    def _matrix(self) -> pa.Table:
        """What each two hosts share: there are few different sets of hosts, however many chunks."""
        unique, stored = self._places.weights()
        sets, which = np.unique(self._known, return_inverse=True)
        sizes = np.bincount(which, weights=unique), np.bincount(which, weights=stored)
        rows = []
        for one, host in enumerate(self._hosts):
            for other in range(len(self._hosts)):
                both = ((sets >> np.uint64(one)) & (sets >> np.uint64(other)) & np.uint64(1)).astype(bool)
                rows.append((host, self._hosts[other], *(round(float(size[both].sum())) for size in sizes)))
        return pa.Table.from_pylist(
            [dict(zip(HOSTS_SCHEMA.names, row, strict=True)) for row in rows], schema=HOSTS_SCHEMA
        )
