"""Looking at real trees: what the kernels say must be what `os` says, and links must never lead out."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.entries import STAT, Paths, Stats, order_key

STRANGE = [
    b"\xff\xfe",
    b"new\nline",
    b" ",
    b"-rf",
    b"n" * 255,
    b"a",
    b"a b",
    b"ab",
    b"a.",
    b"\x01",
    "ü".encode(),
    b"...",
]


def agrees(row: Stats, status: os.stat_result) -> bool:
    """Whether a row of STAT is this lstat."""
    times = (status.st_mtime_ns, status.st_ctime_ns, status.st_atime_ns)
    expected = (
        *(status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_size, *times),
        *(status.st_ino, status.st_dev, status.st_rdev, status.st_blocks, 0, 0),
    )
    return bool(row == np.array(expected, dtype=STAT))


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """One of every kind of entry."""
    (tmp_path / "file").write_bytes(b"content" * 1000)
    os.utime(tmp_path / "file", ns=(123_456_789, -987_654_321))
    (tmp_path / "empty").touch(0o4755)
    (tmp_path / "directory").mkdir(0o1777)
    (tmp_path / "link").symlink_to("nowhere")
    os.link(tmp_path / "file", tmp_path / "hard")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(tmp_path, os.O_PATH)  # paths of sockets are short
        server.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    with (tmp_path / "sparse").open("wb") as sparse:
        sparse.truncate(5 << 30)
    if os.geteuid() == 0:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(tmp_path / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 300))
    for name in STRANGE:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    return tmp_path


def test_scan_lists_and_stats_everything_in_order(kernel: Any, zoo: Path, root: int) -> None:
    names, stats = kernel.scan_directory(root, b"")
    expected = sorted(os.listdir(os.fsencode(zoo)))
    assert list(names) == expected
    assert len(stats) == len(expected)
    assert all(agrees(row, os.lstat(os.fsencode(zoo) + b"/" + name)) for row, name in zip(stats, expected, strict=True))


def test_a_large_directory_is_listed_whole_and_its_front_looked_at(kernel: Any, zoo: Path, root: int) -> None:
    for number in range(300):
        (zoo / f"{number % 7}{number}").touch()
    names, stats = kernel.scan_directory(root, b"", 100)
    assert list(names) == sorted(os.listdir(os.fsencode(zoo)))
    assert stats.tolist() == kernel.stat_names(root, names, 0, 100).tolist()
    for lo in range(100, len(names), 64):
        hi = min(lo + 64, len(names))
        rows = kernel.stat_names(root, names, lo, hi)
        assert all(agrees(row, os.lstat(os.fsencode(zoo) + b"/" + names[lo + i])) for i, row in enumerate(rows))


def test_types_come_with_the_names(kernel: Any, zoo: Path, root: int) -> None:
    fd = kernel.open_beneath(root, b"", os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(2):  # a descriptor that was read before starts over
        names, types = kernel.list_directory(fd)
        modes = [os.lstat(os.fsencode(zoo) + b"/" + name).st_mode for name in names]
        assert [int(kind) for kind in types] == [mode >> 12 for mode in modes]
    os.close(fd)


def test_an_empty_directory(kernel: Any, root: int) -> None:
    names, stats = kernel.scan_directory(root, b"")
    assert (list(names), len(stats)) == ([], 0)
    assert len(kernel.stat_paths(root, names)) == len(kernel.stat_names(root, names, 0, 0)) == 0


def test_stat_of_paths_in_several_directories(kernel: Any, zoo: Path, root: int) -> None:
    (zoo / "directory" / "deep").mkdir()
    (zoo / "directory" / "deep" / "x").write_bytes(b"x")
    (zoo / "out").symlink_to(zoo)
    paths = [b"", b"file", b"link", b"directory", b"directory/deep", b"directory/deep/x", b"null/x", b"file/x"]
    paths += [b"directory/no", b"no/no", b"out/file", b"out", b"directory/deep/x", *STRANGE]
    stats = kernel.stat_paths(root, Paths.of(paths))
    failed = {path: row["errno"] for path, row in zip(paths, stats, strict=True) if row["errno"]}
    assert failed.pop(b"null/x") in (errno.ENOTDIR, errno.ENOENT)
    expected = {b"file/x": errno.ENOTDIR, b"directory/no": errno.ENOENT, b"no/no": errno.ENOENT}
    assert failed == {**expected, b"out/file": errno.ELOOP}
    for path, row in zip(paths, stats, strict=True):
        if not row["errno"]:
            assert agrees(row, os.lstat(os.path.join(os.fsencode(zoo), path) if path else zoo)), path


BAD = [b"/", b"/a", b"a/", b"a//b", b".", b"..", b"a/..", b"../a", b"a/./b", b"a\0b", b"a/../../b", b"//"]


@pytest.mark.parametrize("path", BAD)
def test_paths_that_are_not_canonical_name_nothing(kernel: Any, root: int, tmp_path: Path, path: bytes) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    with pytest.raises(OSError) as caught:
        kernel.open_beneath(root, path, os.O_RDONLY)
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, path)
    paths = Paths.of([path])
    assert kernel.stat_paths(root, paths)["errno"].tolist() == [errno.EINVAL]
    assert kernel.stat_names(root, paths, 0, 1)["errno"].tolist() == [errno.EINVAL]
    assert kernel.create_directories(root, paths).tolist() == [errno.EINVAL]
    none = np.zeros(1, dtype=np.int64)
    assert kernel.read_files(root, paths, none, bytearray(1))[0]["errno"].tolist() == [errno.EINVAL]
    assert kernel.write_files(root, paths, b"", none, none, np.zeros(1, dtype=STAT)).tolist() == [errno.EINVAL]


def test_links_are_never_followed(kernel: Any, tmp_path: Path, root: int) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    inside = tmp_path / "inside"
    (inside / "real").mkdir(parents=True)
    (inside / "trap").symlink_to(outside)
    (inside / "real" / "trap").symlink_to("../../outside")
    (inside / "file").symlink_to(outside / "secret")
    (inside / "self").symlink_to("self")
    fd = kernel.open_beneath(root, b"inside", os.O_PATH | os.O_DIRECTORY)
    for path in b"trap/secret", b"real/trap/secret", b"file", b"self/x", b"trap/a/b/c":
        with pytest.raises(OSError) as caught:
            kernel.open_beneath(fd, path, os.O_RDONLY)
        assert caught.value.errno == errno.ELOOP, path
    for path in b"trap", b"real/trap":
        with pytest.raises(OSError):
            kernel.scan_directory(fd, path)
    link = kernel.open_beneath(fd, b"trap", os.O_PATH | os.O_NOFOLLOW)
    assert stat.S_ISLNK(os.fstat(link).st_mode)
    os.close(link)
    os.close(fd)


def test_opening_creates_what_the_flags_say(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "d").mkdir()
    fd = kernel.open_beneath(root, b"d/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    assert not os.get_inheritable(fd)
    os.write(fd, b"written")
    os.close(fd)
    assert (tmp_path / "d" / "new").read_bytes() == b"written"
    assert stat.S_IMODE((tmp_path / "d" / "new").stat().st_mode) == 0o640
    with pytest.raises(FileExistsError):
        kernel.open_beneath(root, b"d/new", os.O_WRONLY | os.O_CREAT | os.O_EXCL)


@pytest.fixture
def abyss(tmp_path: Path) -> Iterator[int]:
    """A directory for trees so deep that neither shutil nor pytest can remove them."""
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)
    subprocess.run(["rm", "-rf", str(tmp_path)], check=True)


@pytest.mark.parametrize("component", [b"d" * 255, b"d" * 100, b"d"])
def test_paths_longer_than_the_system_takes(kernel: Any, abyss: int, component: bytes) -> None:
    root = abyss
    depth = 10_000 // (len(component) + 1) if len(component) > 1 else 2500
    paths = [b"/".join([component] * (i + 1)) for i in range(depth)]
    fd = os.dup(root)
    for _ in range(depth):
        os.mkdir(component, dir_fd=fd)
        below = os.open(component, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = below
    bottom = paths[-1]
    assert len(bottom) > 4096
    assert kernel.create_directories(root, Paths.of([bottom + b"/new"])).tolist() == [0]
    assert kernel.stat_paths(root, Paths.of([bottom]))["ino"].tolist() == [os.fstat(fd).st_ino]
    assert list(kernel.scan_directory(root, bottom)[0]) == [b"new"]
    one, zero = np.array([4], dtype=np.int64), np.array([0], dtype=np.int64)
    files = Paths.of([bottom + b"/file"])
    assert kernel.write_files(root, files, b"deep", zero, one, np.zeros(1, dtype=STAT)).tolist() == [0]
    body = bytearray(4)
    assert kernel.read_files(root, files, one, body)[1].tolist() == [4]
    assert body == b"deep"
    os.close(fd)


def test_names_too_long(kernel: Any, root: int) -> None:
    for path in b"n" * 256, b"n" * 5000, b"a/" + b"n" * 256:
        assert kernel.stat_paths(root, Paths.of([path]))["errno"][0] in (errno.ENAMETOOLONG, errno.ENOENT)
        with pytest.raises(OSError):
            kernel.open_beneath(root, path, os.O_RDONLY)


def test_errors_carry_errno_and_path(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "file").touch()
    for path, number in ((b"no", errno.ENOENT), (b"file", errno.ENOTDIR), (b"file/x", errno.ENOTDIR)):
        with pytest.raises(OSError) as caught:
            kernel.scan_directory(root, path)
        assert (caught.value.errno, caught.value.filename) == (number, path)
    with pytest.raises(OSError) as caught:
        kernel.list_directory(root)  # a descriptor for walking cannot be read
    assert caught.value.errno == errno.EBADF


@pytest.mark.root
def test_what_may_not_be_read(kernel: Any, tmp_path: Path, root: int, nobody: int) -> None:
    os.seteuid(0)
    (tmp_path / "closed").mkdir(0o700)
    (tmp_path / "closed" / "file").touch()
    (tmp_path / "listed").mkdir(0o744)
    (tmp_path / "listed" / "file").touch()
    (tmp_path / "open").mkdir(0o755)
    (tmp_path / "open" / "file").touch()
    os.seteuid(nobody)
    with pytest.raises(PermissionError):
        kernel.scan_directory(root, b"closed")
    names, stats = kernel.scan_directory(root, b"listed")
    assert (list(names), stats["errno"].tolist()) == ([b"file"], [errno.EACCES])
    names, stats = kernel.scan_directory(root, b"open")  # not ours: O_NOATIME is refused and left out
    assert (list(names), stats["errno"].tolist()) == ([b"file"], [0])
    stats = kernel.stat_paths(root, Paths.of([b"closed/file", b"open/file"]))
    assert stats["errno"].tolist() == [errno.EACCES, 0]


def test_scanning_does_not_touch_the_access_time(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").touch()
    os.utime(tmp_path / "d", ns=(1, 2))
    kernel.scan_directory(root, b"d")
    assert (tmp_path / "d").stat().st_atime_ns == 1


def test_no_descriptor_is_left_open(kernel: Any, zoo: Path, root: int) -> None:
    before = os.listdir("/proc/self/fd")
    kernel.scan_directory(root, b"directory")
    kernel.stat_paths(root, Paths.of([b"directory/x", b"fifo/x", b"no/x", b"link/x"]))
    for path in b"no", b"link/x", b"directory/no/x", b"a//b":
        with pytest.raises(OSError):
            kernel.open_beneath(root, path, os.O_RDONLY)
    assert os.listdir("/proc/self/fd") == before


def test_join_matches_equal_paths(kernel: Any) -> None:
    a = [b"a", b"c", b"a/b", b"a/c", b"a/c/d", b"a.b/x"]
    b = [b"a", b"b", b"c", b"a/a", b"a/c", b"a.b/x", b"a.b/y", b"z/z"]
    a, b = sorted(a, key=order_key), sorted(b, key=order_key)
    match, used = kernel.join_sorted(Paths.of(a), Paths.of(b))
    assert [b[j] if j >= 0 else None for j in match] == [path if path in b else None for path in a]
    assert b[:used] == [path for path in b if order_key(path) <= order_key(a[-1])]


def test_join_with_nothing(kernel: Any) -> None:
    some, none = Paths.of([b"a", b"b"]), Paths.of([])
    for left, right, expected in ((none, some, ([], 0)), (some, none, ([-1, -1], 0)), (none, none, ([], 0))):
        match, used = kernel.join_sorted(left, right)
        assert (match.tolist(), used) == expected


def test_columns_that_do_not_fit_are_refused(kernel: Any, root: int) -> None:
    good = Paths.of([b"a", b"b"])
    for offsets in ([0, 5, 2], [-1, 1, 2], [0, 1, 3], [0, 2, 1], []):
        bad = Paths(b"ab", np.array(offsets, dtype=np.int32))
        for call, *arguments in (
            (kernel.stat_paths, root, bad),
            (kernel.join_sorted, bad, good),
            (kernel.join_sorted, good, bad),
            (kernel.create_directories, root, bad),
        ):
            with pytest.raises(ValueError):
                call(*arguments)
    for lo, hi in ((-1, 1), (0, 3), (2, 1), (3, 3)):
        with pytest.raises(ValueError):
            kernel.stat_names(root, good, lo, hi)
    with pytest.raises(ValueError):
        kernel.scan_directory(root, b"", -1)
