"""Churn: what came and went in each folder between snapshots that follow each other, and where it is hottest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from lox.analysis.history import F64, Places, Spans, by_time, first_places, rows_of_chunks, source_of, spans_of
from model.entries import I32, I64, U8, Bool, Kind
from repository.diff import content_differs, matched, windows
from repository.entry_table import column
from repository.manifest_reader import ManifestReader
from repository.tables.parts import Parts, Progress, silent
from repository.tables.view import View

FOLDERS_MAX = 200_000  # counted apart; of more, those deepest down are counted for the folder above
SHARE = 0.05  # of all churn: a folder with that much is a hot spot
SHORT_LIVED = 0.8  # of the bytes that came in new files, gone again in files removed
OFTEN = 0.5  # of the comparisons, and of what was added
COMPARISONS_MIN = 3  # below which nothing is said to be short-lived

COLUMNS = (
    "comparisons", "files_added", "files_removed", "files_changed", "logical_added", "logical_removed",
    "logical_in_new_files", "logical_in_gone_files", "unique_added", "stored_added",
)  # fmt: skip
CHURN_SCHEMA = pa.schema([pa.field("folder", pa.binary()), *(pa.field(name, pa.int64()) for name in COLUMNS)])
KNOWN_CACHES = re.compile(
    rb"\.?cache(s|d)?|cache2|.*[ _-]cache|node_modules|__pycache__|\.?te?mp|\.trash.*|lost\+found|\.thumbnails|"
    rb"\.(tox|nox|mypy_cache|pytest_cache|ruff_cache|gradle|npm|venv)|spool|target|build|dist",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Churn:
    """What changed. `folders` is in `CHURN_SCHEMA`, a row for each folder in which something did; bytes.

    `logical_added` are bytes of chunks a file has and did not have before (all of a new one), `logical_removed` the
    reverse; `unique_added` are those of them that no older snapshot of any source held, each once, and `stored_added`
    what they take. `comparisons` are pairs of snapshots.
    """

    folders: pa.Table
    comparisons: int
    roots: tuple[bytes, ...]  # what was backed up: a name above says nothing about what is below


@dataclass(frozen=True, slots=True)
class HotSpot:
    """A folder with its churn and that below it, without what other hot spots below it have."""

    folder: bytes
    counts: dict[str, int]
    exclude: bytes | None  # a pattern, if leaving it out is worth a thought
    reason: str

    @property
    def churn(self) -> int:
        """Logical bytes added and removed."""
        return self.counts["logical_added"] + self.counts["logical_removed"]


def churn(view: View, progress: Progress = silent) -> Churn:
    """Compare each snapshot with the one before it of the same source. Raises NotFound, Damaged.

    Reads each part of a manifest once, and those that differ from the snapshot before once more. Memory: 8 bytes for
    each chunk, and at most `FOLDERS_MAX` folders.
    """
    snapshots = by_time(view)
    places = Places(view)
    spans = spans_of(places, Parts(view, snapshots, progress=progress))
    tally = _Tally(places, spans)
    last: dict[object, ManifestReader] = {}
    comparisons = 0
    for number, snapshot in enumerate(snapshots):
        progress("comparing snapshots", number, len(snapshots))
        reader = view.manifest(snapshot)
        before = last.get(source_of(snapshot))
        last[source_of(snapshot)] = reader
        if before is not None:
            comparisons += 1
            tally.compare(before, reader, number)
    roots = {root for snapshot in snapshots for root in snapshot.roots}
    return Churn(tally.table(), comparisons, tuple(sorted(roots, key=len, reverse=True)))


class _Tally:
    """Counts for each folder."""

    def __init__(self, places: Places, spans: Spans) -> None:
        self._places = places
        self._spans = spans
        self._counted = np.zeros(places.rows, dtype=bool)  # chunks whose first appearance has been counted
        self._folders: dict[bytes, F64] = {}

    def compare(self, old: ManifestReader, new: ManifestReader, number: int) -> None:
        touched: set[bytes] = set()
        for before, after in windows(old, new):
            a, b, partner = _changed_files(before, after)
            if a.num_rows or b.num_rows:
                touched |= self._count(old, new, a, b, partner, number)
        for folder in touched:
            self._folders[folder][0] += 1
        if len(self._folders) > FOLDERS_MAX:
            self._folders = _folded(self._folders)

    def _count(
        self, old: ManifestReader, new: ManifestReader, a: pa.Table, b: pa.Table, partner: I64, number: int
    ) -> set[bytes]:
        """`partner` says for each row of b which of a it replaces, -1: it is new."""
        gone, came = old.content(a), new.content(b)
        a_row, b_row = rows_of_chunks(gone), rows_of_chunks(came)
        # Chunks of a file are compared within the file: those of row k of b, and those of the row it replaces.
        pair_of_a = np.full(a.num_rows, -1, np.int64)
        pair_of_a[partner[partner >= 0]] = np.flatnonzero(partner >= 0)
        only_old, only_new = _differences(gone.ids, pair_of_a[a_row], came.ids, b_row.astype(np.int64))
        placed = self._places.of(came.ids)
        fresh = (placed.row >= 0) & (self._spans.first[placed.row] == number) & ~self._counted[placed.row]
        fresh &= first_places(placed.row)
        self._counted[placed.row[fresh]] = True
        new_file, gone_file = partner < 0, pair_of_a < 0
        a_sums, b_sums = np.zeros((a.num_rows, len(COLUMNS))), np.zeros((b.num_rows, len(COLUMNS)))
        b_sums[:, 1], a_sums[:, 2], b_sums[:, 3] = new_file, gone_file, ~new_file
        b_sums[:, 4] = _sums(b_row, came.length * only_new, b.num_rows)
        a_sums[:, 5] = _sums(a_row, gone.length * only_old, a.num_rows)
        b_sums[:, 6], a_sums[:, 7] = b_sums[:, 4] * new_file, a_sums[:, 5] * gone_file
        b_sums[:, 8] = _sums(b_row, placed.length * fresh, b.num_rows)
        b_sums[:, 9] = _sums(b_row, placed.stored * fresh, b.num_rows)
        return self._add(a["path"].to_pylist(), a_sums) | self._add(b["path"].to_pylist(), b_sums)

    def _add(self, paths: list[bytes], sums: F64) -> set[bytes]:
        folders = [path.rpartition(b"/")[0] for path in paths]
        distinct = {folder: number for number, folder in enumerate(dict.fromkeys(folders))}
        totals = np.zeros((len(distinct), len(COLUMNS)))
        np.add.at(totals, [distinct[folder] for folder in folders], sums)
        for folder, number in distinct.items():
            known = self._folders.setdefault(folder, np.zeros(len(COLUMNS), np.float64))
            known += totals[number]
        return set(distinct)

    def table(self) -> pa.Table:
        names = sorted(self._folders)
        values = np.array([self._folders[name] for name in names]).reshape(-1, len(COLUMNS))
        columns = [pa.array(np.round(values[:, at]).astype(np.int64)) for at in range(len(COLUMNS))]
        return pa.table([pa.array(names, pa.binary()), *columns], schema=CHURN_SCHEMA)


def _changed_files(a: pa.Table, b: pa.Table) -> tuple[pa.Table, pa.Table, I64]:
    """Regular files that are not the same in both, and for each of b the row of a it replaces (-1: none)."""
    a, b = (table.filter(pa.array(column(table, "kind") == Kind.FILE)).combine_chunks() for table in (a, b))
    match = matched(a, b)
    both = np.flatnonzero(match >= 0)
    same = both[~content_differs(a.take(both), b.take(match[both]))] if len(both) else both
    keep_a, keep_b = np.ones(a.num_rows, dtype=bool), np.ones(b.num_rows, dtype=bool)
    keep_a[same], keep_b[match[same]] = False, False
    partner = np.full(b.num_rows, -1, np.int64)
    new_number = np.cumsum(keep_a) - 1
    changed = both[keep_a[both]]
    partner[match[changed]] = new_number[changed]
    return a.filter(pa.array(keep_a)), b.filter(pa.array(keep_b)), partner[keep_b]


def _differences(old: U8, old_pair: I64, new: U8, new_pair: I64) -> tuple[Bool, Bool]:
    """Which chunks of old have no equal of the same pair in new, and the reverse."""
    ids = np.ascontiguousarray(np.concatenate([old, new])).view(np.dtype((np.void, 32))).ravel()
    code = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    key = np.concatenate([old_pair, new_pair]) * max(1, len(ids)) + code
    mine, theirs = key[: len(old)], key[len(old) :]
    return (old_pair < 0) | ~np.isin(mine, theirs), ~np.isin(theirs, mine[old_pair >= 0])


def _sums(row: I32, weights: npt.NDArray[Any], rows: int) -> F64:
    sums: F64 = np.bincount(row, weights=weights, minlength=rows).astype(np.float64)
    return sums


def _folded(folders: dict[bytes, F64]) -> dict[bytes, F64]:
    """The same with the deepest folders counted for the ones above, until they are few enough."""
    while len(folders) > FOLDERS_MAX // 2:
        deepest = max(folder.count(b"/") for folder in folders)
        if not deepest:
            break
        shorter: dict[bytes, F64] = {}
        for folder, counts in folders.items():
            name = folder.rpartition(b"/")[0] if folder.count(b"/") == deepest else folder
            shorter[name] = shorter.get(name, np.zeros(len(COLUMNS))) + counts
        folders = shorter
    return folders


def hot_spots(found: Churn, share: float = SHARE) -> list[HotSpot]:
    """Folders with at least `share` of all churn, hottest first, and the rest as the one for ``/``.

    What is below a folder counts for it unless it is a hot spot itself, so that all of them add up to the whole.
    """
    values = np.array([found.folders[name].to_numpy() for name in COLUMNS]).T
    carried = dict(zip(found.folders["folder"].to_pylist(), values, strict=True))
    limit = share * float(values[:, 4:6].sum())
    spots, pending = [], sorted(carried, key=_depth)
    while pending:
        level = _depth(pending[-1])
        above: list[bytes] = []
        while pending and _depth(pending[-1]) == level:
            folder = pending.pop()
            counts = carried.pop(folder)
            if not folder or counts[4:6].sum() >= max(limit, 1):
                spots.append(_spot(folder, counts, found))
                continue
            parent = folder.rpartition(b"/")[0]
            if parent not in carried:
                above.append(parent)
                carried[parent] = np.zeros(len(COLUMNS), np.int64)
            most = max(carried[parent][0], counts[0])
            carried[parent] = carried[parent] + counts
            carried[parent][0] = most
        pending = sorted({*pending, *above}, key=_depth)
    return sorted((spot for spot in spots if spot.churn), key=lambda spot: (not spot.folder, -spot.churn))


def _depth(folder: bytes) -> int:
    return folder.count(b"/") + 1 if folder else 0


def _spot(folder: bytes, counts: Iterable[int], found: Churn) -> HotSpot:
    numbers = dict(zip(COLUMNS, (int(count) for count in counts), strict=True))
    comparisons = found.comparisons
    root = next((root for root in found.roots if not root or folder.startswith(root + b"/")), folder)
    name = next((part for part in folder[len(root) :].split(b"/") if KNOWN_CACHES.fullmatch(part)), None)
    came, gone = numbers["logical_in_new_files"], numbers["logical_in_gone_files"]
    reason = ""
    if name is not None:
        reason = "named like a cache or work folder"
    elif (
        comparisons >= COMPARISONS_MIN
        and numbers["comparisons"] >= OFTEN * comparisons
        and came >= max(1, OFTEN * numbers["logical_added"])
        and gone >= SHORT_LIVED * came
    ):
        reason = "what is written there is soon gone again"
    exclude = b"/" + re.sub(rb"([\\*?\[\]!#])", rb"\\\1", folder) + b"/" if folder and reason else None
    return HotSpot(folder, numbers, exclude, reason)
