"""Where space goes: for each group of files the bytes it alone needs, its part of what it shares, and what deleting it
would free; with all that is no content beside it, so that the rows add up to what lies in the store.

Stored bytes of a chunk are its part of the sealed segment it lies in, by length. A chunk that several groups need is
split evenly among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from lox.analysis.groups import Groups, groups_by, memberships
from lox.analysis.sharing import Sharing
from model.entries import I64, Bool, Kind
from model.errors import Damaged
from repository.entry_table import column, content_sizes
from repository.reserve import RESERVE_PREFIX
from repository.tables.of_chunks import windows
from repository.tables.parts import Part, Parts, Progress, silent
from repository.tables.view import View

F64 = npt.NDArray[np.float64]
Columns = dict[str, npt.NDArray[Any]]
"""Sums by row, of each column."""

SPACE = pa.schema(
    [
        pa.field("name", pa.string(), False),
        pa.field("kind", pa.string(), False),  # files, or overhead
        pa.field("files", pa.int64()),  # in all snapshots together
        pa.field("logical", pa.int64()),  # their content, in all snapshots together
        pa.field("unique", pa.int64()),  # different chunks of their content
        pa.field("stored_exclusive", pa.int64()),  # stored bytes of chunks that no other row needs
        pa.field("stored_shared", pa.int64()),  # its part of the stored bytes of chunks that other rows need as well
        pa.field("stored", pa.int64(), False),  # exclusive + shared; of overhead all
        pa.field("stored_freed", pa.int64()),  # what lox prune gets back if all files of the row are deleted
    ]
)
"""The columns of `space`; the `stored` bytes of all rows are those of all objects in the store."""


@dataclass(slots=True)
class _Counts:
    """Of each group: files, and their logical bytes, in all snapshots together."""

    files: F64 = field(default_factory=lambda: np.zeros(0))
    logical: F64 = field(default_factory=lambda: np.zeros(0))

    def add(self, groups: npt.NDArray[np.integer], sizes: I64, times: int) -> None:
        """Files with these sizes, each in `times` snapshots."""
        top = int(groups.max(initial=-1)) + 1
        self.grow(top)
        self.files[:top] += times * np.bincount(groups, minlength=top)
        self.logical[:top] += times * np.bincount(groups, sizes, top)

    def grow(self, groups: int) -> None:
        more = max(0, groups - len(self.files))
        self.files, self.logical = (np.concatenate([one, np.zeros(more)]) for one in (self.files, self.logical))


@dataclass(slots=True)
class Needs:
    """Who needs what: chunks of content by group, those of the trash, and those of manifests."""

    groups: Groups
    sharing: Sharing
    counts: _Counts
    trashed: Bool
    manifests: Bool


def space(
    view: View, by: str = "path", depth: int = 2, now: int | None = None,
    on_damage: Callable[[Damaged], None] | None = None, progress: Progress = silent,
) -> pa.Table:  # fmt: skip
    """Where space goes, in `SPACE`: rows of files first, the largest first, then overhead.

    `by` is one of `groups.WAYS`; `depth` of path: names below ``/``; `now` of age: ns since the epoch, by default
    the present. Raises Damaged for a manifest that cannot be read; with `on_damage` it is told and left out.
    """
    groups = groups_by(by, depth, time.time_ns() if now is None else now)
    needs = _follow(view, groups, on_damage, progress)
    sums = _Sums(view, needs)
    names, rows = sums.rows()
    order = np.argsort(-(rows["stored_exclusive"] + rows["stored_shared"]), kind="stable")
    order = order[(rows["files"] > 0)[order]]  # folders and the like have no content
    overheads = _overheads(view, sums)
    cells = np.concatenate([rows["stored_exclusive"][order], rows["stored_shared"][order], list(overheads.values())])
    whole = _whole(cells)
    count = len(order)
    exclusive, shared, rest = whole[:count], whole[count : 2 * count], whole[2 * count :]
    files = {
        "name": [names[row] for row in order],
        "kind": ["files"] * count,
        **{key: np.rint(rows[key][order]).astype(np.int64) for key in ("files", "logical", "unique", "stored_freed")},
        "stored_exclusive": exclusive,
        "stored_shared": shared,
        "stored": exclusive + shared,
    }
    others = {"name": list(overheads), "kind": [OVERHEAD] * len(overheads), "stored": rest}
    return pa.concat_tables([_table(files), _table(others)])


def _follow(view: View, groups: Groups, on_damage: Callable[[Damaged], None] | None, progress: Progress) -> Needs:
    live = len(view.snapshots)
    parts = Parts(view, [*view.snapshots, *(one.snapshot for one in view.trash)], on_damage, progress)
    chunks = int(view.bases[-1])
    needs = Needs(groups, Sharing(chunks), _Counts(), np.zeros(chunks, bool), parts.needed)
    of_snapshot = None if groups.per_entry else groups.of_snapshots(view)
    for part in parts:
        entry, place = part.places(view)
        if part.snapshots[-1] >= live:
            needs.trashed[place[place >= 0]] = True
        holders = part.snapshots[part.snapshots < live]
        if not len(holders):
            continue
        sizes = file_sizes(part)
        is_file = np.flatnonzero(sizes >= 0)
        if of_snapshot is None:
            group = groups.of_entries(part.rows)
            needs.sharing.add(place, group[entry])
            needs.counts.add(group[is_file], sizes[is_file], len(holders))
            continue
        several, times = np.unique(of_snapshot[holders], return_counts=True)
        for one, count in zip(several.tolist(), times.tolist(), strict=True):
            needs.sharing.add(place, np.full(len(place), one, np.int32))
            needs.counts.add(np.full(len(is_file), one), sizes[is_file], count)
    needs.counts.grow(len(groups))
    return needs


def file_sizes(part: Part) -> I64:
    """The content of each file of a part, in bytes without holes; -1 for what is none."""
    sizes: I64 = np.where(column(part.rows, "kind") == Kind.FILE, content_sizes(part.rows), -1)
    return sizes


class _Sums:
    """Stored and plain bytes added up: by group, and of what belongs to none."""

    def __init__(self, view: View, needs: Needs) -> None:
        self._needs = needs
        groups = len(needs.groups)
        alone = needs.sharing.alone()
        self._chunk, self._group = needs.sharing.shared()
        self._several = np.unique(self._chunk)
        self._stored, self._plain = np.zeros(len(self._several)), np.zeros(len(self._several))
        self._alone_stored, self._alone_plain = np.zeros(groups), np.zeros(groups)
        self.trashed = self.manifests = self.dead = 0.0
        for window in windows(view):
            some = slice(window.start, window.start + len(window.length))
            first, single = needs.sharing.first[some], alone[some]
            self._alone_stored += np.bincount(first[single], window.stored[single], groups)
            self._alone_plain += np.bincount(first[single], window.length[single], groups)
            begin, end = np.searchsorted(self._several, (some.start, some.stop))
            rows = self._several[begin:end] - window.start
            self._stored[begin:end], self._plain[begin:end] = window.stored[rows], window.length[rows]
            rest, inner = first < 0, needs.manifests[some]
            self.manifests += float(window.stored[rest & inner].sum())
            self.trashed += float(window.stored[rest & ~inner & needs.trashed[some]].sum())
            self.dead += float(window.stored[rest & ~inner & ~needs.trashed[some]].sum())

    def rows(self) -> tuple[list[str], Columns]:
        """Names of the rows, and their columns."""
        names, group, row = memberships(self._needs.groups.rows())
        count = len(names)
        per_group = np.bincount(group, minlength=len(self._needs.groups))
        sums: Columns = {
            "files": np.bincount(row, self._needs.counts.files[group], count),
            "logical": np.bincount(row, self._needs.counts.logical[group], count),
            "unique": np.bincount(row, self._alone_plain[group], count),
            "stored_freed": np.bincount(row, self._alone_stored[group], count),
        }
        stored, one = self._alone_stored[group], per_group[group] == 1
        sums["stored_exclusive"] = np.bincount(row[one], stored[one], count)
        sums["stored_shared"] = np.bincount(row, np.where(one, 0, stored / per_group[group]), count)
        self._add_shared(sums, group, row, per_group)
        return names, sums

    def _add_shared(self, sums: Columns, group: I64, row: I64, per_group: I64) -> None:
        """What several groups need, each of which may belong to several rows."""
        count = len(sums["files"])
        begins = np.cumsum(per_group) - per_group
        times = per_group[self._group]
        at = np.repeat(begins[self._group] - (np.cumsum(times) - times), times) + np.arange(int(times.sum()))
        key = np.repeat(np.searchsorted(self._several, self._chunk), times) * count + row[at]
        pairs, groups = np.unique(key, return_counts=True)
        chunk, rows = pairs // max(count, 1), pairs % max(count, 1)
        needing = np.bincount(chunk, minlength=len(self._several))  # rows that need each chunk
        whole = np.bincount(np.searchsorted(self._several, self._chunk), minlength=len(self._several))
        stored, mine = self._stored[chunk], needing[chunk] == 1
        sums["unique"] += np.bincount(rows, self._plain[chunk], count)
        sums["stored_exclusive"] += np.bincount(rows[mine], stored[mine], count)
        sums["stored_shared"] += np.bincount(rows[~mine], (stored / needing[chunk])[~mine], count)
        freed = groups == whole[chunk]
        sums["stored_freed"] += np.bincount(rows[freed], stored[freed], count)


def _overheads(view: View, sums: _Sums) -> dict[str, float]:
    index = view.index
    sizes, places, first = index.pack_table["size"], index.segments.pack, np.flatnonzero(view.counted)
    counted = np.unique(places[first])
    inside = float(index.segments.stored[first].sum(dtype=np.int64))
    # A pack without a single segment is never written; what is not counted here is in no index.
    known = float(sizes[counted].sum(dtype=np.int64))
    by_name = dict.fromkeys([*OBJECTS.values(), RESERVE, OTHER], 0.0)
    for name, size in view.objects.items():
        if name.startswith(RESERVE_PREFIX):
            by_name[RESERVE] += size
        elif not name.startswith("packs/"):
            by_name[OBJECTS.get(name.partition("/")[0], OTHER)] += size
    packs = float(sum(size for name, size in view.objects.items() if name.startswith("packs/")))
    return {
        "(manifests)": sums.manifests,
        "(only in the trash)": sums.trashed,
        "(dead: no snapshot needs it)": sums.dead,
        "(headers and footers of packs)": known - inside,
        "(packs in no index)": packs - known,
        **by_name,
    }


OVERHEAD = "overhead"
OTHER = "(other objects)"
RESERVE = "(reserve: room to clean up in)"
OBJECTS = {
    "index": "(index)",
    "snapshots": "(snapshots)",
    "notes": "(notes)",
    "trash": "(trash: snapshots)",
    "config": "(config and keys)",
    "keys": "(config and keys)",
    "gc": "(marks and quarantine)",
    "sessions": "(sessions)",
}


def _whole(cells: F64) -> I64:
    """Whole numbers that add up to the sum of `cells`, which is whole; none is off by more than 1."""
    ends = np.rint(np.cumsum(cells)).astype(np.int64)
    return np.diff(ends, prepend=0)


def _table(columns: dict[str, object]) -> pa.Table:
    count = len(columns["name"])  # type: ignore[arg-type]
    arrays = [
        pa.array(columns[one.name], one.type) if one.name in columns else pa.nulls(count, one.type) for one in SPACE
    ]
    return pa.Table.from_arrays(arrays, schema=SPACE)


def total_stored(table: pa.Table) -> int:
    """The stored bytes of all rows: the size of the store."""
    return int(pc.sum(table["stored"]).as_py() or 0)
