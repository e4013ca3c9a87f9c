"""The parent snapshot: which entries have not changed since, so that their rows are carried over unread.

An entry is unchanged if kind, size, mtime, ctime and inode number are those of the parent's row. The device number is
not compared, because it changes with every mount. Two kinds of rows are never trusted: those with a problem, and those
whose ctime is so close to the start of the parent's backup that a later change could have got the same ctime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import kernels
from model.entries import I32, Bool, Paths, Stats, kinds_of
from model.errors import Interrupted, LoxError
from sources.files import columns

RACY = 50_000_000  # nanoseconds: clocks of file systems tick every 1 to 10 ms, those of network servers differ more
COMPARED = ("size", "mtime", "ctime", "ino")


@dataclass(slots=True, eq=False)
class Parent:
    """The rows of the parent snapshot in manifest order, and whether their content can still be had."""

    tables: Iterator[pa.Table]  # in the schema of the manifest
    started: int  # when that backup began, nanoseconds since the epoch
    carry_ok: Callable[[pa.Table], Bool]  # for each row: are all of its chunks in the index?


@dataclass(slots=True, eq=False)
class Matches:
    """What the parent knows of some rows: `carried` are unchanged and belong at rows `carried_at`."""

    carried: pa.Table | None
    carried_at: I32
    known: Bool  # for each row: the parent has an entry of this path
    gone: int  # rows of the parent up to here that match none


@dataclass(slots=True, eq=False)
class _Window:
    """The rows of the parent that were not passed yet, of one table."""

    table: pa.Table
    paths: Paths
    kind: npt.NDArray[np.uint8]
    numbers: dict[str, npt.NDArray[Any]]
    trusted: Bool
    at: int = field(default=0)

    @classmethod
    def of(cls, table: pa.Table, trusted_before: int) -> _Window:
        numbers = {name: _numbers(table, name) for name in COMPARED}
        sound = table["problem"].is_null().to_numpy()
        trusted = sound & (numbers["ctime"] < trusted_before)
        return cls(table, columns.from_arrow(table["path"]), _numbers(table, "kind"), numbers, trusted)

    def pass_by(self, rows: int) -> None:
        """Forget the first `rows` of `paths`; the other columns stay and are counted from `at`."""
        self.at += rows
        self.paths = self.paths.slice(rows, len(self.paths))

    def unchanged(self, stat: Stats, kinds: npt.NDArray[np.uint8], rows: columns.Rows) -> Bool:
        """Which of the parent's `rows` say the same as `stat`."""
        same: Bool = self.trusted[rows] & (self.kind[rows] == kinds)
        for name in COMPARED:
            same &= self.numbers[name][rows] == stat[name]
        return same


class ParentCursor:
    """Walks along the parent's rows as the scan walks the tree. Holds one table at a time."""

    def __init__(self, parent: Parent) -> None:
        self._tables = parent.tables
        self._carry_ok = parent.carry_ok
        self._trusted_before = parent.started - RACY
        self._window: _Window | None = None
        self.trouble: LoxError | None = None  # why the parent's rows ended too early

    def match(self, paths: Paths, stat: Stats) -> Matches:
        """What the parent knows of the next rows of the scan."""
        kinds = kinds_of(stat["mode"])
        known = np.zeros(len(paths), dtype=np.bool_)
        tables: list[pa.Table] = []
        places: list[I32] = []
        passed = 0
        while (window := self._next_window()) is not None:
            match, used = kernels.join_sorted(paths, window.paths)
            hits = np.flatnonzero(match >= 0)
            if len(hits):
                known[hits] = True
                rows = match[hits] + window.at
                same = window.unchanged(stat[hits], kinds[hits], rows)
                self._carry(window.table, rows[same], hits[same], tables, places)
            passed += used
            window.pass_by(used)
            if len(window.paths):
                break
        at = np.concatenate(places) if places else np.zeros(0, dtype=np.int32)
        carried = pa.concat_tables(tables) if tables else None
        return Matches(carried, at, known, passed - int(np.count_nonzero(known)))

    def left(self) -> int:
        """Rows of the parent that come after the last row of the scan. Ends the walk."""
        window = 0 if self._window is None else len(self._window.paths)
        return window + sum(len(table) for table in iter(self._next_table, None))

    def _next_window(self) -> _Window | None:
        while self._window is None or not len(self._window.paths):
            table = self._next_table()
            if table is None:
                return None
            self._window = _Window.of(table, self._trusted_before)
        return self._window

    def _next_table(self) -> pa.Table | None:
        """The next rows of the parent. If they cannot be had, there are no more: the rest of the tree is read again,
        which makes a whole snapshot out of a damaged parent."""
        try:
            return next(self._tables, None)
        except LoxError as error:
            if isinstance(error, Interrupted):
                raise
            self.trouble = error
            self._tables = iter(())
            return None

    def _carry(
        self,
        table: pa.Table,
        rows: columns.Rows,
        hits: columns.Rows,
        tables: list[pa.Table],
        places: list[I32],
    ) -> None:
        """Add the parent's `rows` whose content is still stored; they belong at rows `hits` of the scan."""
        if not len(rows):
            return
        chosen = _chosen(table, rows)
        stored = self._carry_ok(chosen)
        if not stored.all():
            chosen, hits = chosen.filter(pa.array(stored)), hits[stored]
        if len(hits):
            tables.append(chosen)
            places.append(hits.astype(np.int32))


def _chosen(table: pa.Table, rows: columns.Rows) -> pa.Table:
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 == len(rows):
        return table.slice(first, len(rows))
    return table.take(pa.array(rows))


def _numbers(table: pa.Table, name: str) -> npt.NDArray[Any]:
    numbers: npt.NDArray[Any] = table[name].to_numpy()
    return numbers
