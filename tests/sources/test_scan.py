"""The scan finds what is there, in order, and asks for no more reading than is needed."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import stat
import threading
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.batches import BODY_MAX, ROWS_MAX
from model.entries import Kind, order_key
from model.errors import UsageError
from sources.files.ahead import stretches
from sources.files.patterns import Patterns
from sources.files.scan import Scanner, ScanOptions
from sources.files.walk import BORDER, CACHE_SIGNATURE, Rules, Walker, split
from tests.sources.harness import (
    as_nobody,
    fresh_paths,
    in_own_mounts,
    mount,
    on_disk,
    parent_of,
    paths_of,
    public_directory,
    scan,
)

NAMES = st.sampled_from([b"a", b"b", b"a-b", b"a b", b"\xff", b"new\nline", b"z" * 255, b"-x", b"\x1b[31m", b"A", b"~"])
TREES = st.recursive(st.none(), lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=25)


def build(root: bytes, tree: dict[bytes, object] | None) -> None:
    for name, below in (tree or {}).items():
        path = root + b"/" + name
        if isinstance(below, dict):
            os.mkdir(path)
            build(path, below)
        else:
            with open(path, "wb") as file:
                file.write(name)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for directory in ("etc/ssl", "srv/data/docs", "srv/data/cache/deep", "srv/other", "var/log"):
        (tmp_path / directory).mkdir(parents=True)
    for file in ("etc/passwd", "etc/ssl/key", "srv/data/a.txt", "srv/data/docs/b.txt", "srv/data/docs/c.log"):
        (tmp_path / file).write_bytes(file.encode())
    for file in ("srv/data/cache/deep/d", "srv/other/e", "var/log/f.log"):
        (tmp_path / file).write_bytes(b"x" * 100)
    return tmp_path


@pytest.mark.parametrize("threads", [0, 1, 3])
@given(tree=TREES)
def test_every_entry_is_listed_once_in_manifest_order(
    tmp_path_factory: pytest.TempPathFactory, threads: int, tree: dict[bytes, object] | None
) -> None:
    root = tmp_path_factory.mktemp("tree")
    build(os.fsencode(root), tree)
    found = paths_of(scan(root, threads=threads)[0])
    assert found == on_disk(root)
    assert found == sorted(found, key=order_key)


def test_threads_change_nothing_however_the_walk_is_cut(tree: Path) -> None:
    for number in range(300):
        (tree / "srv" / "other" / f"d{number % 17}" / f"e{number % 5}").mkdir(parents=True, exist_ok=True)
    fd = os.open(tree, os.O_RDONLY)
    rules = Rules(frozenset([b""]), {}, Patterns.compile([]), frozenset())
    try:
        ticks = itertools.count()
        hasty = Walker(fd, rules, clock=lambda: float(next(ticks)))  # every stretch is one directory
        found = [path for stretch in stretches(hasty, 3) for path in stretch.paths]
    finally:
        os.close(fd)
    assert found == on_disk(tree)


def test_a_stack_splits_into_what_comes_first_and_the_rest(tree: Path) -> None:
    fd = os.open(tree, os.O_RDONLY)
    try:
        walker = Walker(fd, Rules(frozenset([b""]), {}, Patterns.compile([]), frozenset()), clock=lambda: 0.0)
        whole = [path for stretch in stretches(walker, 0) for path in stretch.paths]
        stack = walker.start()
        assert split(stack) == ([], stack), "one directory cannot be shared out"
        ticks = itertools.count()
        begun = Walker(fd, walker._rules, clock=lambda: float(next(ticks))).walk(stack)
        first, rest = split(begun.rest)
        assert first and rest
        found = [*begun.paths, *walker.walk(first).paths, *walker.walk(rest).paths]
    finally:
        os.close(fd)
    assert found == whole


def test_roots_come_with_the_directories_above_them_only(tree: Path) -> None:
    listings, scanner = scan(tree, b"/srv/data/docs", b"/etc/passwd", b"/var")
    assert paths_of(listings) == [
        *(b"etc", b"srv", b"var", b"etc/passwd", b"srv/data", b"srv/data/docs"),
        *(b"srv/data/docs/b.txt", b"srv/data/docs/c.log", b"var/log", b"var/log/f.log"),
    ]
    assert scanner.stats.problems == [] and scanner.stats.finished


def test_a_root_inside_another_changes_nothing(tree: Path) -> None:
    assert paths_of(scan(tree, b"/srv", b"/srv/data/docs/")[0]) == paths_of(scan(tree, b"/srv")[0])


def test_a_missing_root_is_reported_and_the_others_are_scanned(tree: Path) -> None:
    listings, scanner = scan(tree, b"/nothing/here", b"/etc/ssl")
    assert paths_of(listings) == [b"etc", b"etc/ssl", b"etc/ssl/key"]
    assert scanner.stats.problems == [(b"nothing/here", "no such file or directory")]
    with pytest.raises(UsageError, match="no such file"):
        scan(tree, b"/nothing/here")


@pytest.mark.parametrize("root", [b"relative", b"/a/../b", b""])
def test_roots_must_be_plain_absolute_paths(root: bytes) -> None:
    with pytest.raises(UsageError):
        Scanner([root])


def test_excluded_directories_are_not_entered(tree: Path) -> None:
    os.chmod(tree / "srv/data/cache", 0)
    listings, scanner = scan(tree, b"/srv", excludes=(b"cache/", b"*.log", b"/srv/other/e"))
    assert paths_of(listings) == [
        *(b"srv", b"srv/data", b"srv/other", b"srv/data/a.txt", b"srv/data/docs", b"srv/data/docs/b.txt"),
    ]
    assert scanner.stats.excluded == 3 and scanner.stats.problems == []


def test_a_root_below_something_excluded_is_still_taken(tree: Path) -> None:
    listings, _ = scan(tree, b"/srv", b"/srv/data/cache/deep", excludes=(b"cache/", b"docs/"))
    assert paths_of(listings) == [
        *(b"srv", b"srv/data", b"srv/other", b"srv/data/a.txt", b"srv/data/cache", b"srv/data/cache/deep"),
        *(b"srv/data/cache/deep/d", b"srv/other/e"),
    ]


def test_the_roots_themselves_are_never_excluded(tree: Path) -> None:
    assert b"etc/passwd" in paths_of(scan(tree, b"/etc/passwd", excludes=(b"etc", b"passwd"))[0])


def test_includes_keep_matching_files_and_all_directories(tree: Path) -> None:
    listings, _ = scan(tree, b"/srv/data", includes=(b"*.txt", b"deep/"))
    assert paths_of(listings) == [
        *(b"srv", b"srv/data", b"srv/data/a.txt", b"srv/data/cache", b"srv/data/docs", b"srv/data/cache/deep"),
        *(b"srv/data/cache/deep/d", b"srv/data/docs/b.txt"),
    ]


def test_large_files_can_be_left_out(tree: Path) -> None:
    listings, _ = scan(tree, b"/srv/data/docs", b"/var", exclude_larger_than=99)
    assert b"var/log/f.log" not in paths_of(listings) and b"srv/data/docs/b.txt" in paths_of(listings)
    assert b"var/log/f.log" in paths_of(scan(tree, b"/var", exclude_larger_than=100)[0])


def test_tagged_caches_keep_their_tag_only(tree: Path) -> None:
    (tree / "srv/data/cache/CACHEDIR.TAG").write_bytes(CACHE_SIGNATURE + b"\n# more")
    (tree / "var/log/CACHEDIR.TAG").write_bytes(b"Signature: none")
    os.symlink("nothing", tree / "etc/CACHEDIR.TAG")
    found = paths_of(scan(tree, exclude_caches=True)[0])
    assert [path for path in found if path.startswith(b"srv/data/cache")] == [
        b"srv/data/cache",
        b"srv/data/cache/CACHEDIR.TAG",
    ]
    assert b"var/log/f.log" in found and b"etc/passwd" in found
    assert paths_of(scan(tree)[0]) == on_disk(tree)
    nested = paths_of(scan(tree, b"/srv", b"/srv/data/cache/deep", exclude_caches=True)[0])
    assert b"srv/data/cache/deep/d" in nested


def test_what_is_no_file_is_listed_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.symlink("/etc", tmp_path / "link")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.fsencode(tmp_path / "socket"))
    listings, scanner = scan(tmp_path)
    listener.close()
    assert listings[0].fresh.kinds.tolist() == [Kind.FIFO, Kind.SYMLINK, Kind.SOCKET]
    assert scanner.stats.files == 3 and scanner.stats.directories == 0


@pytest.mark.root
def test_devices_are_listed(tmp_path: Path) -> None:
    os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    fresh = scan(tmp_path)[0][0].fresh
    assert fresh.kinds.tolist() == [Kind.CHAR_DEVICE] and int(fresh.stat["rdev"][0]) == os.makedev(1, 3)


def test_paths_longer_than_any_system_call_takes(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(60):  # 6,000 bytes of path
        os.mkdir(b"d" * 100, dir_fd=here)
        here, above = os.open(b"d" * 100, os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(os.open(b"file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    found = paths_of(scan(tmp_path)[0])
    assert len(found) == 61 and found[-1] == b"/".join([b"d" * 100] * 60 + [b"file"])


def test_a_directory_of_many_names_comes_in_slices(tmp_path: Path) -> None:
    count = ROWS_MAX + 10
    os.mkdir(tmp_path / "many")
    fd = os.open(tmp_path / "many", os.O_RDONLY)
    for number in range(count):
        if number in (4095, 4100):
            os.mkdir(b"%06d" % number, dir_fd=fd)
            os.mkfifo(b"%06d/below" % number, dir_fd=fd)
        else:
            os.mknod(b"%06d" % number, dir_fd=fd)
    os.close(fd)
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "file").touch()
    for threads in (0, 2):
        listings, scanner = scan(tmp_path, threads=threads)
        assert paths_of(listings) == on_disk(tmp_path)
        assert all(listing.rows <= ROWS_MAX for listing in listings)
        assert scanner.stats.directories == 4
    found = paths_of(scan(tmp_path, excludes=(b"*5", b"many/004100"))[0])
    left_out = (b"many/004095", b"many/004100")
    assert found == [path for path in on_disk(tmp_path) if not path.endswith(b"5") and not path.startswith(left_out)]


def test_bodies_are_not_overfilled_and_large_files_come_in_pieces(tmp_path: Path) -> None:
    third = BODY_MAX // 3
    sizes = {b"a": third, b"b": third, b"c": third + 3, b"d": BODY_MAX, b"e": BODY_MAX + 1, b"f": 0, b"g": third}
    for name, size in sizes.items():
        with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
            file.write(b"x" * size)
    listings, scanner = scan(tmp_path)
    assert paths_of(listings) == sorted(sizes)
    assert [list(listing.fresh.paths) for listing in listings] == [
        *([b"a", b"b"], [b"c"], [b"d"], [b"e"], [b"e"], [b"f", b"g"]),
    ]
    pieces = [listing.piece for listing in listings]
    first, second = pieces[3], pieces[4]
    assert first is not None and second is not None and [p for p in pieces if p] == [first, second]
    assert (first.file, first.index, first.count, first.offset, first.length) == (0, 0, 2, 0, BODY_MAX)
    assert (second.file, second.index, second.count, second.offset, second.length) == (0, 1, 2, BODY_MAX, 1)
    assert scanner.stats.bytes_to_read == scanner.stats.bytes_total == sum(sizes.values())


def test_a_huge_hole_costs_nothing(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"y" * 8192)
    with open(tmp_path / "void", "wb") as file:
        file.truncate(1 << 40)
    huge, void = scan(tmp_path)[0]
    assert huge.piece is not None and huge.piece.count == 1 and huge.piece.length == 8192
    assert huge.piece.extents is not None and huge.piece.extents.tolist() == [[1 << 39, 8192]]
    assert void.piece is not None and void.piece.length == 0 and void.piece.extents is not None
    assert void.piece.extents.shape == (0, 2)


def test_of_hard_links_the_first_is_read(tmp_path: Path) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
    (tmp_path / "a/one").write_bytes(b"linked")
    for name in ("a/two", "b/three"):
        os.link(tmp_path / "a/one", tmp_path / name)
    (tmp_path / "b/lonely").write_bytes(b"its other name is not backed up")
    os.link(tmp_path / "b/lonely", tmp_path.parent / f"{tmp_path.name}-outside")
    os.symlink("x", tmp_path / "b/link")
    os.link(tmp_path / "b/link", tmp_path / "b/link2", follow_symlinks=False)
    listings, scanner = scan(tmp_path)
    fresh = listings[0].fresh
    same = {path: bool(flag) for path, flag in zip(fresh.paths, fresh.same_as.tolist(), strict=True)}
    assert same == {
        b"a": False,
        b"b": False,
        b"a/one": False,
        b"a/two": True,
        b"b/link": False,
        b"b/link2": False,
        b"b/lonely": False,
        b"b/three": True,
    }
    assert scanner.stats.bytes_to_read == len(b"linked") + os.path.getsize(tmp_path / "b/lonely")


def test_parts_may_begin_at_directories_chosen_by_their_path(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}" / "file").touch()
    listings, _ = scan(tmp_path)
    paths = paths_of(listings)
    borders, at = [], 0
    for listing in listings:
        borders += [paths[at + row] for row in listing.borders.tolist() if listing.rows]
        at += listing.rows
    wanted = [path for path in paths if path.endswith(b"/file") and crc32(path[:-5]) % BORDER == 0]
    assert [path for path in borders if b"/" in path] == wanted and wanted


def test_directories_that_cannot_be_listed_are_reported() -> None:
    with public_directory() as top:
        for name, mode in (("closed", 0o000), ("searchable", 0o111), ("listable", 0o444), ("open", 0o755)):
            os.mkdir(f"{top}/{name}")
            Path(f"{top}/{name}/file").touch()
            os.chmod(f"{top}/{name}", mode)

        def work() -> tuple[list[bytes], list[tuple[bytes, str]], dict[bytes, str]]:
            listings, scanner = scan(top)
            fresh = listings[0].fresh
            return paths_of(listings), scanner.stats.problems, {fresh.paths[r]: t for r, t in fresh.problems.items()}

        paths, problems, of_rows = as_nobody(work)
        for name in ("closed", "searchable", "listable"):
            os.chmod(f"{top}/{name}", 0o755)
    assert paths == [b"closed", b"listable", b"open", b"searchable", b"listable/file", b"open/file"]
    assert problems == [(b"closed", "permission denied"), (b"searchable", "permission denied")]
    assert of_rows == {b"listable/file": "permission denied"}


def test_a_directory_that_vanishes_or_is_replaced_is_reported(tree: Path) -> None:
    fd = os.open(tree, os.O_RDONLY)
    ticks = itertools.count()
    walker = Walker(fd, Rules(frozenset([b""]), {}, Patterns.compile([]), frozenset()), lambda: float(next(ticks)))
    try:
        stack = walker.walk(walker.start()).rest
        for directory, files in (("etc/ssl", ["key"]), ("etc", ["passwd"]), ("var/log", ["f.log"]), ("var", [])):
            for name in files:
                (tree / directory / name).unlink()
            (tree / directory).rmdir()
        os.symlink("srv", tree / "etc")
        failed, paths = [], []
        while stack:
            stretch = walker.walk(stack)
            failed += stretch.failed
            paths += list(stretch.paths)
    finally:
        os.close(fd)
    assert [path for path, _ in failed] == [b"etc", b"var"]
    assert failed[0][1] in (errno.ELOOP, errno.ENOTDIR) and failed[1][1] == errno.ENOENT
    assert paths and all(path.startswith(b"srv/") for path in paths)


def test_an_abandoned_scan_leaves_no_threads_or_descriptors(tmp_path: Path) -> None:
    for number in range(5 * ROWS_MAX // 4 // 64):
        (tmp_path / f"d{number}").mkdir()
        for name in range(64):
            os.mknod(tmp_path / f"d{number}" / str(name))
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    listings = iter(Scanner([b"/"], ScanOptions(threads=3), root=os.fsencode(tmp_path)))
    next(listings)
    listings.close()  # type: ignore[attr-defined]
    assert (len(os.listdir("/proc/self/fd")), threading.active_count()) == before


@pytest.mark.root
def test_mount_points(tmp_path: Path) -> None:
    top = os.fsencode(tmp_path)
    for name in (b"data", b"disk", b"proc", b"again", b"data/deep"):
        os.mkdir(top + b"/" + name)
    (tmp_path / "data/file").touch()

    def work() -> dict[str, list[bytes]]:
        mount(b"tmpfs", top + b"/disk", b"tmpfs")
        os.mkdir(top + b"/disk/sub")
        Path(os.fsdecode(top + b"/disk/sub/inside")).touch()
        mount(b"proc", top + b"/proc", b"proc")
        mount(top, top + b"/again", bind=True)
        return {
            "all": paths_of(scan(top)[0]),
            "one": paths_of(scan(top, one_file_system=True)[0]),
            "asked": paths_of(scan(top, b"/", b"/disk", one_file_system=True)[0]),
            "way": paths_of(scan(top, b"/data", b"/disk/sub", one_file_system=True)[0]),
            "devices": [b"%d" % ordinal for ordinal in scan(top)[0][0].fresh.device.tolist()],
        }

    found = in_own_mounts(work)
    top_level = [b"again", b"data", b"disk", b"proc"]
    assert found["one"] == [*top_level, b"data/deep", b"data/file"]
    assert found["all"] == [*top_level, b"data/deep", b"data/file", b"disk/sub", b"disk/sub/inside"]
    assert found["asked"] == found["all"]
    assert found["way"] == [b"data", b"disk", b"data/deep", b"data/file", b"disk/sub", b"disk/sub/inside"]
    assert found["devices"] == [b"0", b"0", b"1", b"2", b"0", b"0", b"1", b"1"]


@pytest.mark.root
def test_a_pseudo_file_system_is_walked_when_it_is_asked_for() -> None:
    assert b"proc/self" in paths_of(scan("/", b"/proc/sys/kernel/random", b"/proc/self")[0])
    assert fresh_paths(scan("/", b"/proc/sys/kernel/random")[0])[-1].startswith(b"proc/sys/kernel/random/")


def test_counts_add_up(tree: Path) -> None:
    parent = parent_of(tree)
    (tree / "etc/passwd").write_bytes(b"changed")
    (tree / "etc/new").touch()
    (tree / "var/log/f.log").unlink()
    listings, scanner = scan(tree, parent=parent)
    stats = scanner.stats
    assert (stats.files_new, stats.files_changed, stats.files_unchanged, stats.gone) == (1, 1, 6, 1)
    assert stats.files == 8 and stats.directories == 10
    assert len(paths_of(listings)) == 18
    assert stats.bytes_to_read == len(b"changed")
    assert stats.bytes_total == sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())


@pytest.mark.slow
def test_a_million_entries_in_one_directory_stream(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for number in range(1_000_000):
        os.mknod(b"a-file-with-a-usual-name-%07d" % number, dir_fd=fd)
    os.close(fd)
    count = 0
    largest = 0
    for listing in Scanner([b"/"], ScanOptions(), root=os.fsencode(tmp_path)):
        count += listing.rows
        largest = max(largest, listing.rows)
    assert count == 1_000_000 and largest == ROWS_MAX


def test_rows_of_different_devices_get_small_numbers() -> None:
    scanner = Scanner([b"/"])
    stat_rows = np.zeros(5, dtype=[("dev", "<u8")])
    stat_rows["dev"] = [77, 5, 77, 9, 5]
    assert scanner._ordinals(stat_rows).tolist() == [0, 1, 0, 2, 1]
    stat_rows["dev"] = 9
    assert scanner._ordinals(stat_rows).tolist() == [2] * 5
