"""What is read is what was there; what could not be read, or moved, is said of that file and the run goes on."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.batches import BODY_MAX, OVERREAD, Listing
from model.chunking import WINDOW
from model.entries import STAT, Fresh, Paths
from sources.files.extents import EXTENTS_MAX, data_extents, ranges_of
from sources.files.read import AGAIN, read_listing, read_range
from tests.sources.harness import as_nobody, contents, problems, public_directory, read, scan


def pattern(size: int, seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8).tobytes()


def test_files_of_all_sizes_are_read(tmp_path: Path) -> None:
    wanted = {b"%06d" % size: pattern(size) for size in (0, 1, 4095, 4096, 4097, 100_000)}
    for name, data in wanted.items():
        (tmp_path / name.decode()).write_bytes(data)
    blocks = read(tmp_path, scan(tmp_path)[0])
    assert contents(blocks) == wanted and problems(blocks) == {}
    assert blocks[0].listing.fresh.stat["size"].tolist() == [len(data) for data in wanted.values()]


def test_names_no_terminal_should_see(tmp_path: Path) -> None:
    names = [b"\xff\xfe", b"new\nline", b"tab\t", b"'\"\\", b"-rf", b"\x1b[31mred", b"n" * 255]
    names += ["é".encode(), b"e\xcc\x81"]
    for name in names:
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(name)
    assert contents(read(tmp_path, scan(tmp_path)[0])) == {name: name for name in names}


def test_a_path_deeper_than_any_system_call_takes(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(50):
        os.mkdir(b"d" * 100, dir_fd=here)
        here, above = os.open(b"d" * 100, os.O_RDONLY, dir_fd=here), here
        os.close(above)
    for name, size in ((b"file", 10), (b"sparse", 10)):
        fd = os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=here)
        os.pwrite(fd, b"x" * size, 0 if name == b"file" else 100_000)
        os.close(fd)
    os.symlink(b"target", b"link", dir_fd=here)
    os.close(here)
    blocks = read(tmp_path, scan(tmp_path)[0])
    found = {path[-4:]: data for path, data in contents(blocks).items()}
    assert found[b"file"] == b"x" * 10 and found[b"arse"].endswith(b"x" * 10) and problems(blocks) == {}
    fresh = blocks[-1].listing.fresh
    assert fresh.targets == {list(fresh.paths).index(b"/".join([b"d" * 100] * 50 + [b"link"])): b"target"}


def test_a_listing_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    os.symlink("a", tmp_path / "b")
    (listing,) = scan(tmp_path)[0]
    before = listing.fresh.stat.copy()
    (tmp_path / "a").write_bytes(b"longer")
    first, second = read(tmp_path, [listing]), read(tmp_path, [listing])
    assert (listing.fresh.stat == before).all() and listing.fresh.targets == {}
    assert contents(first) == contents(second) == {b"a": b"longer", b"b": b""}


def change_before_read(tmp_path: Path, change: Callable[[Path], object], size: int = 100) -> tuple[bytes, int, str]:
    """Content, size and problem of a file that changes between scan and read; its neighbours must not suffer."""
    for name in ("a", "m", "z"):
        (tmp_path / name).write_bytes(name.encode() * size)
    listings, _ = scan(tmp_path)
    change(tmp_path / "m")
    blocks = read(tmp_path, listings)
    found, trouble = contents(blocks), problems(blocks)
    assert found[b"a"] == b"a" * size and found[b"z"] == b"z" * size and set(trouble) <= {b"m"}
    fresh = blocks[0].listing.fresh
    return found[b"m"], int(fresh.stat["size"][1]), trouble.get(b"m", "")


def test_a_file_that_vanishes(tmp_path: Path) -> None:
    assert change_before_read(tmp_path, Path.unlink) == (b"", 100, "vanished while reading")


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_file_that_grows_or_shrinks_before_it_is_read_is_read_as_it_is_now(tmp_path: Path, size: int) -> None:
    longer, shorter = b"y" * (size + 50), b"y" * (size - 50)
    assert change_before_read(tmp_path, lambda path: path.write_bytes(longer), size) == (longer, len(longer), "")
    assert change_before_read(tmp_path, lambda path: path.write_bytes(shorter), size) == (shorter, len(shorter), "")
    assert change_before_read(tmp_path, lambda path: path.write_bytes(b""), size) == (b"", 0, "")


def test_a_file_that_is_replaced_has_the_metadata_of_what_was_read(tmp_path: Path) -> None:
    def swap(path: Path) -> None:
        path.with_name("new").write_bytes(b"n" * 100)
        path.with_name("new").chmod(0o600)
        path.with_name("new").rename(path)

    (tmp_path / "m").write_bytes(b"m" * 100)
    listings, _ = scan(tmp_path)
    swap(tmp_path / "m")
    (block,) = read(tmp_path, listings)
    now = os.stat(tmp_path / "m")
    row = block.listing.fresh.stat[0]
    assert contents([block]) == {b"m": b"n" * 100} and problems([block]) == {}
    assert (int(row["ino"]), int(row["mode"]), int(row["ctime"])) == (now.st_ino, now.st_mode, now.st_ctime_ns)


@pytest.mark.parametrize(
    "make",
    [
        os.mkfifo,
        lambda path: os.symlink("/etc/passwd", path),
        os.mkdir,
        pytest.param(lambda path: os.mknod(path, stat.S_IFCHR, os.makedev(1, 5)), marks=pytest.mark.root),
    ],
)
@pytest.mark.parametrize("sparse", [False, True])
def test_a_file_that_turns_into_something_else_is_neither_followed_nor_waited_for(
    tmp_path: Path, make: Callable[[Path], object], sparse: bool
) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"m" * 100)
    if sparse:
        os.truncate(path, 100_000)
    listings, _ = scan(tmp_path)
    path.unlink()
    make(path)
    blocks = read(tmp_path, listings)
    assert contents(blocks) == {b"m": b""}
    assert problems(blocks) == {b"m": "turned into something else while reading"}


def test_a_directory_that_turns_into_a_link_leads_nowhere(tmp_path: Path) -> None:
    for top in ("tree", "elsewhere"):
        (tmp_path / top / "d").mkdir(parents=True)
        (tmp_path / top / "d" / "file").write_bytes(top.encode())
    listings, _ = scan(tmp_path / "tree")
    (tmp_path / "tree/d").rename(tmp_path / "tree/old")
    os.symlink(tmp_path / "elsewhere/d", tmp_path / "tree/d")
    blocks = read(tmp_path / "tree", listings)
    assert contents(blocks)[b"d/file"] == b""
    assert set(problems(blocks)) == {b"d", b"d/file"}


def test_a_file_that_is_appended_to_is_what_it_was_at_some_moment(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"0" * 4_000_000)
    listings, _ = scan(tmp_path)
    write = "import sys\nwith open(sys.argv[1], 'ab', 0) as file:\n    while True: file.write(b'1')"
    writer = subprocess.Popen([sys.executable, "-c", write, path])
    try:
        while path.stat().st_size == 4_000_000:
            time.sleep(0.01)
        (block,) = read(tmp_path, listings)
    finally:
        writer.kill()
        writer.wait()
    size = int(block.listing.fresh.stat["size"][0])
    found = contents([block])[b"log"]
    assert problems([block]) in ({}, {b"log": "changed while reading"})  # the writer may have paused
    assert len(found) == size >= 4_000_000 and found == b"0" * 4_000_000 + b"1" * (size - 4_000_000)


@pytest.mark.parametrize("holes", [0, 4096 * 5])
def test_a_file_that_moves_with_every_look_is_kept_with_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, holes: int
) -> None:
    path = tmp_path / "log"
    make_sparse(path, 10 + holes, {holes: b"0" * 10})
    listings, _ = scan(tmp_path)
    path.open("ab").write(b"1")
    attempts = []
    preadv = os.preadv

    def growing(fd: int, buffers: list[memoryview], offset: int) -> int:
        attempts.append(offset)
        with path.open("ab") as file:
            file.write(b"1")
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", growing)
    (block,) = read(tmp_path, listings)
    found = contents([block])[b"log"]
    assert len(attempts) == AGAIN and problems([block]) == {b"log": "changed while reading"}
    assert found == b"0" * 10 + b"1" * AGAIN
    assert int(block.listing.fresh.stat["size"][0]) == holes + len(found)


def test_a_file_that_outgrows_the_body_is_kept_as_far_as_it_was_listed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a" * (BODY_MAX - 10))
    (tmp_path / "b").write_bytes(b"b" * 10)
    listings, _ = scan(tmp_path)
    (tmp_path / "b").write_bytes(b"b" * BODY_MAX)
    (block,) = read(tmp_path, listings)
    assert contents([block])[b"b"] == b"b" * 10 and problems([block]) == {b"b": "changed while reading"}
    assert block.listing.fresh.stat["size"].tolist() == [BODY_MAX - 10, 10]


def test_files_nobody_may_read() -> None:
    with public_directory() as top:
        for name, mode in (("open", 0o644), ("closed", 0o600), ("sparse", 0o600)):
            Path(f"{top}/{name}").write_bytes(name.encode())
            if name == "sparse":
                os.truncate(f"{top}/{name}", 1 << 40)
            os.chmod(f"{top}/{name}", mode)
        os.mkdir(f"{top}/dir", 0o700)

        def work() -> tuple[dict[bytes, bytes], dict[bytes, str], list[int]]:
            blocks = read(top, scan(top)[0])
            return contents(blocks), problems(blocks), blocks[0].listing.fresh.stat["size"].tolist()

        found, trouble, sizes = as_nobody(work)
    assert found == {b"open": b"open", b"closed": b"", b"sparse": b"", b"dir": b""}
    assert trouble == dict.fromkeys([b"closed", b"dir", b"sparse"], "permission denied")
    assert sizes[0] == len("closed")


def test_a_file_whose_reading_fails(tmp_path: Path) -> None:
    """Address 0 of a process: a regular file whose bytes cannot be read."""
    row = np.zeros(1, dtype=STAT)
    row["mode"], row["size"], row["nlink"] = 0o100600, 10, 1
    none = np.zeros(1, dtype=np.bool_)
    fresh = Fresh(Paths.of([b"proc/%d/mem" % os.getpid()]), row, np.zeros(1, dtype=np.uint32), none)
    (block,) = read("/", [Listing(0, fresh, np.zeros(1, dtype=np.int32))])
    assert problems([block]) == {fresh.paths[0]: "input/output error"} and block.length.tolist() == [0]


def test_linked_files_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    os.link(tmp_path / "a", tmp_path / "b")
    blocks = read(tmp_path, scan(tmp_path)[0])
    assert contents(blocks) == {b"a": b"content", b"b": b""} and problems(blocks) == {}


def test_reading_leaves_the_access_time_alone(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"x")
    os.utime(tmp_path / "d/file", ns=(10**18, 10**18))
    os.utime(tmp_path / "d", ns=(10**18, 10**18))
    (block,) = read(tmp_path, scan(tmp_path)[0])
    assert block.listing.fresh.stat["atime"].tolist() == [10**18, 10**18]
    assert {os.stat(tmp_path / name).st_atime_ns for name in ("d", "d/file")} == {10**18}


# --- holes ----------------------------------------------------------------------------------------------------------


def make_sparse(path: Path, size: int, data: dict[int, bytes]) -> None:
    with open(path, "wb") as file:
        file.truncate(size)
        for offset, some in data.items():
            file.seek(offset)
            file.write(some)


@pytest.mark.parametrize(
    "data", [{}, {0: b"a" * 4096}, {40960: b"b" * 8192}, {0: b"a" * 4096, 40960: b"b" * 4096, 98304: b"c" * 1696}]
)
def test_holes_are_neither_read_nor_lost(tmp_path: Path, data: dict[int, bytes]) -> None:
    make_sparse(tmp_path / "f", 100_000, data)
    (tmp_path / "g").write_bytes(b"dense")
    (block,) = read(tmp_path, scan(tmp_path)[0])
    fresh = block.listing.fresh
    extents = fresh.extents[0]
    assert contents([block]) == {b"f": b"".join(data.values()), b"g": b"dense"}
    assert extents.tolist() == [[offset, len(some)] for offset, some in data.items()]
    assert int(fresh.stat["size"][0]) == 100_000 and problems([block]) == {}


def test_a_file_of_one_terabyte_with_a_little_data(tmp_path: Path) -> None:
    make_sparse(tmp_path / "f", 1 << 40, {4096: b"a" * 4096, (1 << 40) - 4096: b"z" * 4096})
    begin = time.monotonic()
    blocks = read(tmp_path, scan(tmp_path)[0])
    assert time.monotonic() - begin < 2
    assert contents(blocks) == {b"f": b"a" * 4096 + b"z" * 4096}
    assert blocks[0].listing.fresh.extents[0].tolist() == [[4096, 4096], [(1 << 40) - 4096, 4096]]


def test_more_holes_than_can_be_listed_are_read_as_zeros(tmp_path: Path) -> None:
    make_sparse(tmp_path / "f", 400 * 8192, {at * 8192: b"x" * 4096 for at in range(400)})
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        assert len(data_extents(fd, 400 * 8192)) == 400  # type: ignore[arg-type]
        few = data_extents(fd, 400 * 8192, at_most=100)
    finally:
        os.close(fd)
    assert few is not None and 1 <= len(few) <= 100 and EXTENTS_MAX > 400
    covered = np.concatenate([np.arange(offset, offset + length, 4096) for offset, length in few.tolist()])
    assert set(range(0, 400 * 8192, 8192)) <= set(covered.tolist())


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=6), st.integers(0, 60), st.integers(0, 60))
def test_ranges_of_the_data_joined(pairs: list[tuple[int, int]], offset: int, length: int) -> None:
    at, extents = 0, []
    places: list[int] = []
    for gap, size in pairs:
        extents.append((at + gap, size))
        places += range(at + gap, at + gap + size)
        at += gap + size
    found = ranges_of(np.array(extents, dtype=np.int64).reshape(-1, 2), offset, length)
    assert [place for start, size in found for place in range(start, start + size)] == places[offset : offset + length]


# --- large files ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    (root / "f").write_bytes(pattern(2 * BODY_MAX + 12345))
    return root


def test_pieces_are_the_file_and_overlap_their_neighbours(large: Path) -> None:
    data = (large / "f").read_bytes()
    blocks = read(large, scan(large)[0])
    assert contents(blocks) == {b"f": data} and problems(blocks) == {}
    for block in blocks:
        piece = block.listing.piece
        assert piece is not None
        start, length = int(block.start[0]), int(block.length[0])
        end = min(len(data), piece.offset + length + OVERREAD)
        assert (start, length) == (min(piece.offset, WINDOW - 1), piece.length)
        assert block.after == end - piece.offset - length
        assert bytes(block.body[: start + length + block.after]) == data[piece.offset - start : end]


def test_a_range_of_a_large_file(large: Path) -> None:
    data = (large / "f").read_bytes()
    listing = scan(large)[0][1]
    assert listing.piece is not None
    for offset, length in ((0, 10), (BODY_MAX - 5, 100), (len(data) - 5, 100), (len(data), 10)):
        assert read_range(os.fsencode(large), b"f", listing.piece, offset, length) == data[offset : offset + length]


def test_pieces_of_a_sparse_file_count_in_its_data(tmp_path: Path) -> None:
    parts = {i * (5 << 20): pattern(3 << 20, i) for i in range(1, 5)}
    make_sparse(tmp_path / "f", 30 << 20, parts)
    listings, _ = scan(tmp_path)
    data = b"".join(parts.values())
    blocks = read(tmp_path, listings)
    assert [listing.piece.length for listing in listings if listing.piece] == [BODY_MAX, (12 << 20) - BODY_MAX]
    assert contents(blocks) == {b"f": data}
    assert listings[0].piece is not None
    assert read_range(os.fsencode(tmp_path), b"f", listings[0].piece, 5 << 20, 4 << 20) == data[5 << 20 : 9 << 20]
    assert blocks[0].listing.fresh.extents[0].tolist() == [[offset, len(some)] for offset, some in parts.items()]


@pytest.mark.parametrize(
    ("change", "length"),
    [
        (lambda path: os.truncate(path, BODY_MAX + 10), BODY_MAX + 10),
        (lambda path: path.open("ab").write(b"more"), 2 * BODY_MAX + 5),
        (lambda path: os.truncate(path, 0), 0),
    ],
)
def test_a_large_file_that_changes(tmp_path: Path, change: Callable[[Path], object], length: int) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * (2 * BODY_MAX + 5))
    listings, _ = scan(tmp_path)
    change(path)
    blocks = read(tmp_path, listings)
    assert contents(blocks) == {b"f": b"x" * length}
    assert [problems([block]) for block in blocks] == [{b"f": "changed while reading"}] * 3


def test_a_large_file_that_vanishes_or_turns_into_a_fifo(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"x" * (BODY_MAX + 5))
    listings, _ = scan(tmp_path)
    path.unlink()
    assert problems(read(tmp_path, listings)) == {b"f": "vanished while reading"}
    os.mkfifo(path)
    assert problems(read(tmp_path, listings)) == {b"f": "turned into something else while reading"}


def test_a_body_is_used_again(tmp_path: Path) -> None:
    for name, size in (("a", 6 << 20), ("b", 5 << 20)):
        (tmp_path / name).write_bytes(pattern(size, size))
    listings, _ = scan(tmp_path)
    body = bytearray(BODY_MAX + OVERREAD + WINDOW)
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        found: dict[bytes, bytes] = {}
        for listing in listings:
            found |= contents([read_listing(fd, listing, body)])
    finally:
        os.close(fd)
    assert found == {b"a": pattern(6 << 20, 6 << 20), b"b": pattern(5 << 20, 5 << 20)}


@settings(max_examples=30)
@given(
    sizes=st.lists(st.integers(0, 9000), max_size=12),
    changes=st.dictionaries(st.integers(0, 11), st.integers(0, 9000)),
)
def test_any_files_that_change_before_they_are_read_are_read_as_they_are(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], changes: dict[int, int]
) -> None:
    root = tmp_path_factory.mktemp("any")
    for number, size in enumerate(sizes):
        (root / f"{number:02}").write_bytes(pattern(size, number))
    listings, _ = scan(root)
    wanted = {b"%02d" % number: pattern(size, number) for number, size in enumerate(sizes)}
    for number, size in changes.items():
        if number < len(sizes):
            wanted[b"%02d" % number] = pattern(size, number + 100)
            (root / f"{number:02}").write_bytes(wanted[b"%02d" % number])
    blocks = read(root, [replace(listing) for listing in listings])
    assert contents(blocks) == wanted and problems(blocks) == {}
