"""Many snapshots as columns: what a local cache keeps of them, many times as fast to read back as their documents.

JSON: parents, originals, and once what snapshots of one host have in common (host, paths, tags, ...)
bytes: columns of 64-bit numbers, one after the other, then the ids of the chunks where their manifests begin
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, repeat
from operator import attrgetter
from typing import Any, TypeVar

from repository.document_cache import Packed
from repository.manifest_root import ManifestRoot
from repository.snapshot import SNAPSHOT_PREFIX, Snapshot

T = TypeVar("T")

_NUMBERS = ("time", "started", "finished", "problems")
_ROOT_NUMBERS = ("parts", "rows", "bytes")
_COLUMNS = len(_NUMBERS) + len(_ROOT_NUMBERS) + 2  # beside them: which of the commons, and how many chunks
_WORD, _ID = 8, 32  # bytes of a number and of a chunk id
_COMMON = ("host", "user", "mode", "program", "extra", "paths", "excludes", "tags", "hosts")
_FIELDS = len(_COMMON) + 1  # beside them: which numbers `stats` has
_OWN = ("id", "parent", "stats", "root", "original")
# What is not packed would be lost without a word; what has a writer is never packed.
assert {*_NUMBERS, *_COMMON, *_OWN, "writer"} == set(Snapshot._fields)


def packs(snapshot: Snapshot) -> bool:
    """Whether the numbers of a snapshot fit into columns: anybody's may be as large as JSON has them."""
    root = snapshot.root
    numbers = chain(
        (snapshot.time, snapshot.started, snapshot.finished, snapshot.problems, root.parts, root.rows, root.bytes),
        root.lengths,
        snapshot.stats.values(),
    )
    return all(-(1 << 63) <= number < 1 << 63 for number in numbers)


def pack_snapshots(snapshots: Sequence[Snapshot]) -> Packed:
    """Snapshots that `packs` says yes to; the ids are not in it."""
    commons: dict[tuple[Any, ...], int] = {}
    roots = [snapshot.root for snapshot in snapshots]
    numbers = array("q")
    for columns, rows in ((_NUMBERS, snapshots), (_ROOT_NUMBERS, roots)):
        for name in columns:
            numbers.extend(map(attrgetter(name), rows))
    numbers.extend(commons.setdefault(_common(snapshot), len(commons)) for snapshot in snapshots)
    numbers.extend(len(root.chunks) for root in roots)
    numbers.extend(chain.from_iterable(root.lengths for root in roots))
    numbers.extend(chain.from_iterable(snapshot.stats.values() for snapshot in snapshots))
    document = {
        "parents": [snapshot.parent for snapshot in snapshots],
        "originals": {
            at: (made[0].hex(), made[1]) for at, snapshot in enumerate(snapshots) if (made := snapshot.original)
        },
        "commons": [_closed(*common) for common in commons],
    }
    return document, numbers.tobytes() + b"".join(chain.from_iterable(root.chunks for root in roots))


def _common(snapshot: Snapshot) -> tuple[Any, ...]:
    extra = json.dumps(dict(snapshot.extra), sort_keys=True) if snapshot.extra else "{}"
    texts = snapshot.host, snapshot.user, snapshot.mode, snapshot.program, extra
    return *texts, snapshot.paths, snapshot.excludes, snapshot.tags, tuple(snapshot.stats), snapshot.hosts


def _closed(
    host: str, user: str, mode: str, program: str, extra: str,
    paths: tuple[bytes, ...], excludes: tuple[bytes, ...], tags: tuple[str, ...], keys: tuple[str, ...],
    hosts: tuple[str, ...],
) -> list[object]:  # fmt: skip
    lines = ([line.hex() for line in some] for some in (paths, excludes))
    return [host, user, mode, program, json.loads(extra), *lines, tags, keys, hosts]


def _opened(
    host: str, user: str, mode: str, program: str, extra: dict[str, object],
    paths: list[str], excludes: list[str], tags: list[str], keys: list[str], hosts: list[str],
) -> tuple[Any, ...]:  # fmt: skip
    lines = (tuple(map(bytes.fromhex, some)) for some in (paths, excludes))
    return host, user, mode, program, extra, *lines, tuple(tags), keys, tuple(hosts)


def unpack_snapshots(names: Sequence[str], document: Any, body: bytes) -> Iterator[Snapshot]:
    """The snapshots again. Raises ValueError, TypeError, KeyError, IndexError for what was packed otherwise."""
    at = len(SNAPSHOT_PREFIX)
    commons = [_opened(*common) for common in document["commons"]]
    originals = {int(row): (bytes.fromhex(made[0]), made[1]) for row, made in document["originals"].items()}
    columns, lengths, counts, ids = _split(body, len(names), commons)
    times, started, finished, problems, *sizes, common, chunks = columns
    roots = _made(ManifestRoot, _runs(ids, chunks), _runs(lengths, chunks), *sizes)
    host, user, mode, program, extra, paths, excludes, tags, keys, hosts = (
        [each[field] for each in map(commons.__getitem__, common)] for field in range(_FIELDS)
    )
    numbers = _runs(counts, list(map(len, keys)))
    stats = [dict(zip(some, values, strict=True)) for some, values in zip(keys, numbers, strict=True)]
    yield from _made(
        Snapshot, times, started, finished, host, user, paths, mode, roots, document["parents"], tags, excludes,
        problems, stats, program, [name[at:] for name in names], repeat("", len(names)),
        [originals.get(row) for row in range(len(names))], hosts, extra,
    )  # fmt: skip


def _made(kind: type[T], *columns: Iterable[Any]) -> Iterator[T]:
    """Tuples of this kind, a column for each of its fields: without a call of Python for each."""
    return map(tuple.__new__, repeat(kind), zip(*columns, strict=True))  # type: ignore[arg-type]


def _runs(values: Sequence[Any], counts: Sequence[int]) -> Iterable[tuple[Any, ...]]:
    """The values in runs of so many."""
    if len(values) == len(counts) and set(counts) <= {1}:  # nearly all manifests begin in one chunk
        return zip(values, strict=True)
    ends = list(accumulate(counts))
    return [tuple(values[end - count : end]) for end, count in zip(ends, counts, strict=True)]


def _split(
    body: bytes, rows: int, commons: Sequence[tuple[Any, ...]]
) -> tuple[list[list[int]], list[int], list[int], list[bytes]]:
    """The columns, one number a row; lengths of chunks, counts of `stats` and ids of chunks of all rows in a line."""
    fixed = _COLUMNS * rows
    numbers = array("q", body[: fixed * _WORD]).tolist()
    columns = [numbers[begin : begin + rows] for begin in range(0, fixed, rows)] if rows else [[]] * _COLUMNS
    if min(columns[-1], default=0) < 0 or min(columns[-2], default=0) < 0:
        raise ValueError("less than nothing")
    chunks, counts = sum(columns[-1]), sum(len(commons[common][_FIELDS - 2]) for common in columns[-2])
    end = (fixed + chunks + counts) * _WORD
    if len(numbers) != fixed or len(body) != end + chunks * _ID:
        raise ValueError("another length")
    rest = array("q", body[fixed * _WORD : end]).tolist()
    ids = [body[begin : begin + _ID] for begin in range(end, len(body), _ID)]
    return columns, rest[:chunks], rest[chunks:], ids
