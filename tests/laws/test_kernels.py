"""The compiled kernels equal the reference: on random input, and on input made to hurt."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels import PUBLIC_KEY, WRITE_MODE, WRITE_TIMES, chunk, gear_table, ids, tree, tree_files
from model.chunking import ChunkerParams
from model.entries import I64, STAT, U64, Paths, order_key

native = pytest.importorskip(
    "kernels.native", reason="kernels._native is not built: pip install -e .", exc_type=ImportError
)

TABLES: dict[str, U64] = {
    "public": gear_table(PUBLIC_KEY),
    "keyed": gear_table(b"a key"),
    "candidates everywhere": np.zeros(256, dtype=np.uint64),
    "no candidates": np.full(256, 1 << 63, dtype=np.uint64),  # shifted out: the value is always 2**63
    "carries everywhere": np.full(256, (1 << 64) - 1, dtype=np.uint64),
    "only the oldest byte counts": np.arange(256, dtype=np.uint64) % 2,
}


@st.composite
def parameters(draw: st.DrawFn) -> ChunkerParams:
    average = 1 << draw(st.integers(6, 14))
    minimum = draw(st.one_of(st.just(64), st.just(average), st.integers(64, average)))
    maximum = draw(st.one_of(st.just(average), st.integers(average, 8 * average)))
    kind = draw(st.sampled_from(["gear", "gear", "gear", "fixed"]))
    return ChunkerParams(kind, minimum, average, maximum, draw(st.integers(0, 8)))


@st.composite
def contents(draw: st.DrawFn, largest: int = 40_000) -> bytes:
    """Parts of noise, of one byte, or of a short pattern; lengths are often those where something ends."""
    parts = []
    for _ in range(draw(st.integers(0, 4))):
        near = st.sampled_from([0, 1, 62, 63, 64, 65, 127, 128, 511, 512, 1024, 4096, largest])
        size = draw(st.one_of(near, st.integers(0, largest)))
        kind = draw(st.sampled_from(["noise", "byte", "pattern"]))
        if kind == "noise":
            parts.append(hashlib.shake_128(bytes([draw(st.integers(0, 255))])).digest(size))
        else:
            pattern = draw(st.binary(min_size=1, max_size=1 if kind == "byte" else 70))
            parts.append((pattern * (size // len(pattern) + 1))[:size])
    return b"".join(parts)


tables = st.sampled_from(list(TABLES.values()))


@given(contents(), parameters(), tables, st.data())
def test_candidates(content: bytes, params: ChunkerParams, table: U64, data: st.DataObject) -> None:
    context = data.draw(st.integers(0, min(len(content), 200)))
    expected = chunk.candidates(content, table, params, context)
    assert np.array_equal(native.candidates(content, table, params, context), expected)


@given(contents(), parameters(), tables, st.data())
def test_cut_files(content: bytes, params: ChunkerParams, table: U64, data: st.DataObject) -> None:
    ends = [*data.draw(st.lists(st.integers(0, len(content)), max_size=6)), len(content)]
    starts = data.draw(st.lists(st.integers(0, len(content)), min_size=len(ends), max_size=len(ends)))
    start = np.minimum(starts, ends)
    length = np.maximum(starts, ends) - start
    expected = chunk.cut_files(content, start, length, table, params)
    found = native.cut_files(content, start, length, table, params)
    assert np.array_equal(found[0], expected[0])
    assert np.array_equal(found[1], expected[1])


@settings(max_examples=25)
@given(st.integers(-3, 3), st.sampled_from([1, 2, 3]), st.integers(0, 255), st.integers(6, 17), tables)
def test_cut_files_across_windows(delta: int, windows: int, seed: int, bits: int, table: U64) -> None:
    """Windows of 64 KiB positions: chunks begin and end anywhere in them."""
    params = ChunkerParams(average=1 << bits, minimum=64, maximum=1 << 18)
    content = hashlib.shake_128(bytes([seed])).digest(windows * (64 << 10) + 64 + delta)
    whole = np.array([0]), np.array([len(content)])
    expected = chunk.cut_files(content, *whole, table, params)[0]
    assert np.array_equal(native.cut_files(content, *whole, table, params)[0], expected)


@given(contents(), parameters(), tables, st.data())
def test_select_from_any_start_to_any_end(
    content: bytes, params: ChunkerParams, table: U64, data: st.DataObject
) -> None:
    found = chunk.candidates(content, table, params)
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    final = data.draw(st.booleans())
    assert np.array_equal(
        native.select(found, params, start, end, final), chunk.select(found, params, start, end, final)
    )


@given(st.lists(st.integers(-(1 << 40), 1 << 40), max_size=30), parameters(), st.integers(0, 10**5), st.booleans())
def test_select_from_nonsense(numbers: list[int], params: ChunkerParams, end: int, final: bool) -> None:
    codes = np.array(numbers, dtype=np.int64)
    assert np.array_equal(native.select(codes, params, 0, end, final), chunk.select(codes, params, 0, end, final))


@given(contents(), parameters(), tables, st.data())
def test_pieces_apart_equal_one_pass(content: bytes, params: ChunkerParams, table: U64, data: st.DataObject) -> None:
    """Ranges looked at by different lanes, each with 63 bytes of context, then selected piece by piece."""
    borders = [0, *sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=5))), len(content)]
    known: list[I64] = []
    cuts: list[int] = []
    for offset, end in pairwise(borders):
        context = min(offset, data.draw(st.integers(63, 100)))
        found = native.candidates(content[offset - context : end], table, params, context)
        known.append(found + 2 * offset)
        last = cuts[-1] if cuts else 0
        cuts += native.select(np.concatenate(known), params, last, end, end == len(content)).tolist()
    whole = native.cut_files(content, np.array([0]), np.array([len(content)]), table, params)[0]
    assert cuts == whole.tolist()


def columns_of(numbers: list[int], width: int) -> Any:
    """Ids that differ in `width` bytes at the front only."""
    rows = [hashlib.sha256(bytes(str(number), "ascii")).digest()[:width].ljust(32, b"\0") for number in numbers]
    return np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 32)


@given(st.lists(st.integers(0, 400), unique=True), st.lists(st.integers(0, 400)), st.integers(1, 32))
def test_find_ids(known: list[int], wanted: list[int], width: int) -> None:
    table = np.array(sorted(set(map(bytes, columns_of(known, width)))), dtype=np.dtype((np.void, 32))).tobytes()
    queries = columns_of(wanted, width)
    assert np.array_equal(native.find_ids(table, queries), ids.find_ids(table, queries))


@given(st.lists(st.integers(0, 400)), st.lists(st.integers(0, 400)), st.integers(1, 32), st.integers(1, 300))
def test_find_guided(known: list[int], wanted: list[int], width: int, buckets: int) -> None:
    """Ids of which some occur several times, and guides with as many buckets as one likes."""
    table = np.array(sorted(map(bytes, columns_of(known, width))), dtype=np.dtype((np.void, 32))).tobytes()
    bucket, marks = ids.guide_places(np.frombuffer(table, np.uint8).reshape(-1, 32), buckets)
    guide = ids.Guide(np.searchsorted(bucket, np.arange(buckets + 1)).astype(np.uint32), marks)
    queries = columns_of(wanted, width)
    assert np.array_equal(native.find_guided(table, guide, queries), ids.find_guided(table, guide, queries))


components = st.one_of(st.sampled_from([b"a", b"b", b"a.b", b"a-b", b"a\x01", b"\xff", b"ab"]), st.binary(max_size=3))
paths = st.lists(components, min_size=1, max_size=4).map(b"/".join)


@given(st.lists(paths), st.lists(paths), st.booleans())
def test_join_sorted(left: list[bytes], right: list[bytes], in_order: bool) -> None:
    if in_order:
        left, right = sorted(set(left), key=order_key), sorted(set(right), key=order_key)
    a, b = Paths.of(left), Paths.of(right)
    match, used = native.join_sorted(a, b)
    expected, expected_used = tree.join_sorted(a, b)
    assert np.array_equal(match, expected)
    assert used == expected_used
    if in_order:
        known = {order_key(path) for path in right}
        assert [row >= 0 for row in match] == [order_key(path) in known for path in left]


@contextmanager
def empty_root() -> Iterator[int]:
    path = tempfile.mkdtemp(prefix="lox-law-")
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)
        shutil.rmtree(path)


# "d" and "e" are often directories, "l" a link to one; the rest may be anything, often not to be used as a name.
names = st.sampled_from([b"d", b"e", b"l", b"f", b"\xff", b"x\n", b"n" * 255, b"n" * 256, b"..", b".", b"", b"a\0b"])
routes = st.lists(names, min_size=0, max_size=3).map(b"/".join)


@settings(max_examples=60)
@example([], [b"e/d"], 0)
@given(st.lists(st.tuples(routes, st.binary(max_size=9)), max_size=8), st.lists(routes, max_size=8), st.integers(-1, 9))
def test_trees_are_made_seen_and_read_alike(files: list[tuple[bytes, bytes]], others: list[bytes], limit: int) -> None:
    """The same calls in two directories, one by each variant: the same errors, names, modes, sizes and bytes."""
    seen = []
    for variant in (native, _reference()):
        with empty_root() as root:
            os.symlink(b"d", b"l", dir_fd=root)
            made = variant.create_directories(root, Paths.of([b"d", b"d/e", b"e", *others]))
            targets = Paths.of([path for path, _ in files])
            length = np.array([len(content) for _, content in files], dtype=np.int64)
            body = b"".join(content for _, content in files)
            meta = np.zeros(len(files), dtype=STAT)
            meta["mode"], meta["mtime"], meta["atime"] = 0o640, 5_000_000_001, 1
            flags = WRITE_MODE | WRITE_TIMES
            written = variant.write_files(root, targets, body, np.cumsum(length) - length, length, meta, flags)
            every = Paths.of([*targets, *others, b"d", b"l", b""])
            limits = np.full(len(every), limit, dtype=np.int64)
            room = bytearray(max(limit, 0) * len(every))
            stats, lengths = variant.read_files(root, every, limits, room)
            columns = ["mode", "uid", "gid", "nlink", "errno", "flags"]
            rows = [stats[columns].tolist(), variant.stat_paths(root, every)[columns].tolist(), lengths.tolist()]
            listed = [_listing(variant, root, path) for path in (b"", b"d", b"d/e", b"l", *others)]
            seen.append((made.tolist(), written.tolist(), rows, bytes(room), listed))
    assert seen[0] == seen[1]


def _listing(variant: Any, root: int, path: bytes) -> object:
    try:
        found, stats = variant.scan_directory(root, path, 2)
    except OSError as error:
        return error.errno
    return list(found), stats["mode"].tolist()


def _reference() -> Any:
    class Reference:
        create_directories = staticmethod(tree_files.create_directories)
        write_files = staticmethod(tree_files.write_files)
        read_files = staticmethod(tree_files.read_files)
        stat_paths = staticmethod(tree.stat_paths)
        scan_directory = staticmethod(tree.scan_directory)

    return Reference


@given(st.binary(max_size=3000), st.one_of(st.none(), st.binary(max_size=100)), st.data())
def test_hash_chunks(body: bytes, key: bytes | None, data: st.DataObject) -> None:
    ranges = data.draw(st.lists(st.tuples(st.integers(0, len(body)), st.integers(0, 3000)), max_size=20))
    start = np.array([first for first, _ in ranges], dtype=np.int64)
    length = np.array([min(size, len(body) - first) for first, size in ranges], dtype=np.uint32)
    expected = ids.hash_chunks(key, body, start, length)
    for way in native.HASH_WAYS:
        with mock.patch.object(native, "HASH_WAYS", [way]):
            assert np.array_equal(native.hash_chunks(key, body, start, length), expected)


def test_hash_chunks_refuses_what_does_not_lie_in_the_body() -> None:
    for first, size in ((-1, 1), (0, 11), (11, 0), (10, 1), (2**63 - 1, 2**32 - 1)):
        with pytest.raises(ValueError, match="body"):
            native.hash_chunks(b"key", bytes(10), np.array([first]), np.array([size], dtype=np.uint32))


NAMES = [b"a", b"b", b"aa", b"a.b", b"ab", b"a-", b"bb"]
BAD = [
    b"",
    b"/",
    b"/a",
    b"a/",
    b"a//b",
    b"./a",
    b"a/..",
    b"a/../b",
    b"n" * 300,
    b"n" * 300 + b"/a",
    b"zz/yy",
    b"a/zz/y",
]


def _random_tree(root: str, rng: random.Random) -> list[bytes]:
    """Directories, files and links under few names, and one chain of directories deeper than a cursor keeps open."""
    directories, paths = [b""], []
    for number in range(120):
        parent = rng.choice(directories)
        path = parent + b"/" + rng.choice(NAMES) if parent else rng.choice(NAMES)
        place = os.path.join(os.fsencode(root), path)
        if os.path.lexists(place):
            continue
        kind = rng.random()
        if kind < 0.5:
            os.mkdir(place)
            directories.append(path)
        elif kind < 0.9:
            with open(place, "wb") as file:
                file.write(b"%d " % number + path)
        else:
            os.symlink(rng.choice(NAMES), place)
        paths.append(path)
    chain = b"deep"
    for number in range(30):
        os.mkdir(os.path.join(os.fsencode(root), chain))
        with open(os.path.join(os.fsencode(root), chain, b"f"), "wb") as file:
            file.write(b"%d" % number)
        paths += [chain, chain + b"/f"]
        chain += b"/d"
    return paths


@pytest.mark.parametrize("seed", range(6))
def test_rows_in_any_order_are_those_of_the_reference(seed: int, tmp_path: Path) -> None:
    """From each row to any other: into the root, up, down, far away, through names that mean nothing."""
    rng = random.Random(seed)
    paths = _random_tree(os.fspath(tmp_path), rng)
    root = os.open(tmp_path, os.O_RDONLY)
    descriptors = len(os.listdir("/proc/self/fd"))
    for _ in range(60):
        rows = [rng.choice(paths) if rng.random() < 0.85 else rng.choice(BAD) for _ in range(rng.randrange(25))]
        column = Paths.of(sorted(rows) if rng.random() < 0.5 else rows)
        limits = np.array([rng.choice([-1, 0, 3, 40]) for _ in rows], dtype=np.int64)
        bodies = [bytearray(int(limits[limits > 0].sum())) for _ in range(2)]
        (stats, lengths), (expected, wanted) = (
            variant.read_files(root, column, limits, body)
            for variant, body in zip((native, tree_files), bodies, strict=True)
        )
        used = int(lengths.sum())
        assert lengths.tolist() == wanted.tolist()
        assert bodies[0][:used] == bodies[1][:used]
        fields = [name for name in stats.dtype.names or () if name != "atime"]
        assert stats[fields].tolist() == expected[fields].tolist()
        found, known = native.stat_paths(root, column), tree.stat_paths(root, column)
        assert found[fields].tolist() == known[fields].tolist()
        flags, targets = native.look_at(root, column, found["mode"].copy())
        reference_flags, reference_targets = tree_files.look_at(root, column, found["mode"].copy())
        assert flags.tolist() == reference_flags.tolist()
        assert list(targets) == list(reference_targets)
    assert len(os.listdir("/proc/self/fd")) == descriptors
    os.close(root)
