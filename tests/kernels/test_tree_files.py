"""Reading and creating many files: real files, links in the way, FIFOs, missing rights, attributes."""

from __future__ import annotations

import errno
import os
import resource
import stat
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kernels import WRITE_MODE, WRITE_OWNER, WRITE_TIMES
from model.entries import INODE_FLAGS, READ_CHANGED, READ_HAS_XATTRS, READ_NOT_REGULAR, STAT, Paths, Stats
from tests.kernels.test_tree import STRANGE, agrees

ALL = WRITE_OWNER | WRITE_MODE | WRITE_TIMES
NODUMP = 0x40


def read(kernel: Any, root: int, limits: dict[bytes, int]) -> tuple[dict[bytes, Stats], list[bytes]]:
    """Rows by path (flags kept apart by the caller), and the content of each file."""
    room = sum(max(limit, 0) for limit in limits.values())
    body = bytearray(b"?" * room)
    stats, lengths = kernel.read_files(root, Paths.of(limits), np.array([*limits.values()], dtype=np.int64), body)
    ends = np.cumsum(lengths).tolist()
    contents = [bytes(body[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return dict(zip(limits, stats, strict=True)), contents


def test_files_are_read_back_to_back(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    files = {b"one": b"1" * 5000, b"empty": b"", b"d/two": b"22", b"d/e/three": b"333", b"d/four": os.urandom(100_000)}
    files |= {b"d/" + name: name for name in STRANGE}
    for path, content in files.items():
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + path)).write_bytes(content)
    rows, contents = read(kernel, root, {path: len(content) for path, content in files.items()})
    assert contents == list(files.values())
    for path, row in rows.items():
        assert row["flags"] & ~np.uint32(INODE_FLAGS | READ_HAS_XATTRS) == 0
        row["flags"] = 0
        assert agrees(row, os.lstat(os.fsencode(tmp_path) + b"/" + path))


def test_what_is_no_file_is_not_read(kernel: Any, tmp_path: Path, root: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_bytes(b"file")
    (tmp_path / "trap").symlink_to(".")
    limits = {b"fifo": 9, b"directory": 9, b"link": 9, b"trap/file": 9, b"no": 9, b"no/no": 9, b"file/x": 9, b"file": 4}
    if os.geteuid() == 0:
        os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
        limits = {b"zero": 9} | limits
    rows, contents = read(kernel, root, limits)
    assert contents[-1] == b"file"
    assert contents[:-1] == [b""] * (len(limits) - 1)
    kinds = {path for path, row in rows.items() if row["flags"] & np.uint32(READ_NOT_REGULAR)}
    assert kinds == {b"zero", b"fifo", b"directory", b"link"} & limits.keys()
    assert {path: int(row["errno"]) for path, row in rows.items() if row["errno"]} == {
        b"trap/file": errno.ELOOP,
        b"no": errno.ENOENT,
        b"no/no": errno.ENOENT,
        b"file/x": errno.ENOTDIR,
    }


def test_a_file_of_another_size_has_changed(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    for limit, expected, changed in ((3, b"123", True), (5, b"12345", False), (9, b"12345", True), (0, b"", True)):
        rows, contents = read(kernel, root, {b"f": limit})
        assert contents == [expected]
        assert bool(rows[b"f"]["flags"] & np.uint32(READ_CHANGED)) is changed
    rows, contents = read(kernel, root, {b"f": -1})  # metadata alone
    assert contents == [b""]
    assert not rows[b"f"]["flags"] & np.uint32(READ_CHANGED)
    assert rows[b"f"]["size"] == 5


def test_bytes_go_nowhere_else(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "f").write_bytes(b"x" * 100)
    body = bytearray(b"." * 30)
    limits = np.array([10, 10], dtype=np.int64)
    kernel.read_files(root, Paths.of([b"f", b"f"]), limits, memoryview(body)[5:25])
    assert body == b"....." + b"x" * 20 + b"....."


def test_extended_attributes_and_inode_flags_are_noticed(kernel: Any, tmp_path: Path, root: int) -> None:
    for name in ("plain", "xattr", "flag"):
        (tmp_path / name).write_bytes(b"x")
    try:
        os.setxattr(tmp_path / "xattr", "user.test", b"1")
        subprocess.run(["chattr", "+d", str(tmp_path / "flag")], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this file system has no user attributes or inode flags")
    rows, _ = read(kernel, root, {b"flag": 1, b"plain": 1, b"xattr": 1})
    assert [bool(row["flags"] & np.uint32(READ_HAS_XATTRS)) for row in rows.values()] == [False, False, True]
    assert [int(row["flags"] & np.uint32(INODE_FLAGS)) for row in rows.values()] == [NODUMP, 0, 0]


def test_reading_does_not_touch_the_access_time(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "f").write_bytes(b"x")
    os.utime(tmp_path / "f", ns=(1, 2))
    read(kernel, root, {b"f": 1})
    assert (tmp_path / "f").stat().st_atime_ns == 1


@pytest.mark.root
def test_reading_without_rights(kernel: Any, tmp_path: Path, root: int, nobody: int) -> None:
    os.seteuid(0)
    (tmp_path / "closed").write_bytes(b"closed")
    os.chmod(tmp_path / "closed", 0o600)
    (tmp_path / "foreign").write_bytes(b"foreign")
    os.seteuid(nobody)
    rows, contents = read(kernel, root, {b"closed": 6, b"foreign": 7})
    assert contents == [b"", b"foreign"]
    assert [int(row["errno"]) for row in rows.values()] == [errno.EACCES, 0]
    assert [int(row["size"]) for row in rows.values()] == [6, 7]


def test_limits_must_fit_into_the_body(kernel: Any, root: int) -> None:
    two = Paths.of([b"a", b"b"])
    for limits, room in (([5, 6], 10), ([2**62, 2**62], 10), ([1], 10), ([1, 1, 1], 10)):
        with pytest.raises(ValueError):
            kernel.read_files(root, two, np.array(limits, dtype=np.int64), bytearray(room))


def write(kernel: Any, root: int, files: dict[bytes, bytes], meta: Stats | None = None, flags: int = 0) -> list[int]:
    length = np.array([len(content) for content in files.values()], dtype=np.int64)
    start = np.cumsum(length) - length
    rows = np.zeros(len(files), dtype=STAT) if meta is None else meta
    errors = kernel.write_files(root, Paths.of(files), b"".join(files.values()), start, length, rows, flags)
    return [int(error) for error in errors]


def test_files_are_created_with_content_and_metadata(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "d").mkdir()
    files = {b"one": b"1" * 100_000, b"d/empty": b"", b"d/two": b"2"} | {b"d/" + name: name for name in STRANGE}
    meta = np.zeros(len(files), dtype=STAT)
    meta["mode"] = stat.S_IFREG | 0o6751
    meta["uid"], meta["gid"] = (1234, 5678) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
    meta["mtime"] = np.arange(len(files)) * 1_000_000_001 - 3_000_000_000
    meta["atime"] = 4_102_444_800_123_456_789
    assert write(kernel, root, files, meta, ALL) == [0] * len(files)
    for row, (path, content) in zip(meta, files.items(), strict=True):
        found = os.fsdecode(os.fsencode(tmp_path) + b"/" + path)
        status = os.lstat(found)
        assert (status.st_mode, status.st_uid, status.st_gid) == (int(row["mode"]), int(row["uid"]), int(row["gid"]))
        assert status.st_mtime_ns == int(row["mtime"])
        assert Path(found).read_bytes() == content


def test_without_flags_a_file_is_private(kernel: Any, tmp_path: Path, root: int) -> None:
    meta = np.zeros(1, dtype=STAT)
    meta["mode"] = 0o777
    assert write(kernel, root, {b"f": b"x"}, meta) == [0]
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


def test_what_exists_is_never_written_to(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "directory").mkdir()
    (tmp_path / "outside").write_bytes(b"old")
    (tmp_path / "link").symlink_to("outside")
    (tmp_path / "dangling").symlink_to("new")
    (tmp_path / "trap").symlink_to("directory")
    names = [b"file", b"directory", b"link", b"dangling", b"trap/x", b"no/x", b"file/x", b"fine"]
    errors = write(kernel, root, dict.fromkeys(names, b"new"))
    assert errors == [errno.EEXIST] * 4 + [errno.ELOOP, errno.ENOENT, errno.ENOTDIR, 0]
    assert (tmp_path / "file").read_bytes() == (tmp_path / "outside").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["dangling", "directory", "file", "fine", "link", "outside", "trap"]
    assert os.listdir(tmp_path / "directory") == []


def test_a_file_that_fails_halfway_is_removed(kernel: Any, tmp_path: Path, root: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        errors = write(kernel, root, {b"small": b"s", b"large": b"l" * 100_000, b"other": b"o"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert errors == [0, errno.EFBIG, 0]
    assert sorted(os.listdir(tmp_path)) == ["other", "small"]


@pytest.mark.root
def test_an_owner_that_may_not_be_set_leaves_no_file(kernel: Any, tmp_path: Path, root: int, nobody: int) -> None:
    os.seteuid(0)
    os.chmod(tmp_path, 0o777)
    os.seteuid(nobody)
    meta = np.zeros(1, dtype=STAT)
    assert write(kernel, root, {b"f": b"x"}, meta, WRITE_OWNER) == [errno.EPERM]
    os.seteuid(0)
    assert os.listdir(tmp_path) == []


def test_rows_must_lie_in_the_body(kernel: Any, tmp_path: Path, root: int) -> None:
    meta = np.zeros(2, dtype=STAT)
    for start, length in (([0, 5], [5, 6]), ([-1, 0], [2, 2]), ([0, 0], [-1, 1]), ([2**62, 0], [2**62, 1]), ([0], [1])):
        with pytest.raises(ValueError):
            kernel.write_files(root, Paths.of([b"a", b"b"]), bytes(10), np.array(start), np.array(length), meta)
    with pytest.raises(ValueError):
        kernel.write_files(root, Paths.of([b"a"]), bytes(10), np.array([0]), np.array([1]), meta)
    assert os.listdir(tmp_path) == []


def test_directories_are_created_parents_first(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "trap").symlink_to(".")
    paths = [b"a", b"a/b", b"a/b/c", b"a", b"z/z", b"file/x", b"trap/x", b"trap", b"a/d"]
    errors = kernel.create_directories(root, Paths.of(paths)).tolist()
    expected = [0, 0, 0, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EEXIST, 0]
    assert errors == expected
    assert stat.S_IMODE((tmp_path / "a" / "b" / "c").stat().st_mode) == 0o700
    assert sorted(os.listdir(tmp_path / "a")) == ["b", "d"]


def test_no_descriptor_is_left_open(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "d").mkdir()
    before = os.listdir("/proc/self/fd")
    write(kernel, root, {b"a": b"1", b"d/b": b"2", b"no/c": b"3", b"d": b"4"})
    read(kernel, root, {b"a": 1, b"d/b": 1, b"no/c": 1, b"d": 1})
    kernel.create_directories(root, Paths.of([b"d/x", b"no/x"]))
    assert os.listdir("/proc/self/fd") == before


def test_directories_in_any_order(kernel: Any, tmp_path: Path, root: int) -> None:
    """From one directory to the next it may be one step, a level up, far away, or through what is not there."""
    deep = "/".join(f"d{number}" for number in range(40))
    files = [
        "a/b/c/1",
        "a/b/c/2",
        "a/b/d/1",
        "a/1",
        "a/b/1",
        "ab/1",
        "1",
        "a/b/c/3",
        f"{deep}/1",
        f"{deep}/e/1",
        "d0/1",
    ]
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "a" / "link").symlink_to("b")
    missing = ["a/no/c/1", "a/link/c/1", "a/b/c/no/1", "a/1/x"]
    for order in (files, files[::-1], [*files, *missing, *files], [missing[0], files[0], *missing, files[2]]):
        paths = [name.encode() for name in order]
        found = kernel.read_files(root, Paths.of(paths), np.full(len(paths), 300), body := bytearray(300 * len(paths)))
        ends = np.cumsum(found[1])
        contents = [bytes(body[end - size : end]) for end, size in zip(ends.tolist(), found[1].tolist(), strict=True)]
        assert contents == [b"" if name in missing else name.encode() for name in order]
        errors = dict(zip(order, found[0]["errno"].tolist(), strict=True))
        wanted = [errno.ENOENT, errno.ELOOP, errno.ENOENT, errno.ENOTDIR]
        assert {errors[name] for name in files if name in errors} == {0}
        assert all(errors.get(name, code) == code for name, code in zip(missing, wanted, strict=True))


def test_what_entries_have_beside_their_lstat(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link").symlink_to("../anything " + "x" * 3000)
    (tmp_path / "d" / "tagged").mkdir()
    os.setxattr(tmp_path / "d" / "tagged", "user.colour", b"red")
    os.mkfifo(tmp_path / "d" / "fifo")
    names = [b"d", b"d/link", b"d/tagged", b"d/fifo", b"d/gone", b"gone/x", b""]
    modes = [stat.S_IFDIR, stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFDIR]
    flags, targets = kernel.look_at(root, Paths.of(names), np.array(modes, dtype=np.uint32))
    assert list(targets) == [b"", b"../anything " + b"x" * 3000, b"", b"", b"", b"", b""]
    closer = [bool(flag) for flag in flags & np.uint32(READ_HAS_XATTRS)]
    assert closer == [False, False, True, False, True, True, True]


def test_flags_of_directories_are_seen(kernel: Any, tmp_path: Path, root: int) -> None:
    (tmp_path / "d").mkdir()
    if subprocess.run(["chattr", "+d", tmp_path / "d"], check=False, capture_output=True).returncode:
        pytest.skip("no inode flags on this file system, or no chattr: apt install e2fsprogs")
    flags, _ = kernel.look_at(root, Paths.of([b"d"]), np.array([stat.S_IFDIR], dtype=np.uint32))
    assert flags[0] & np.uint32(INODE_FLAGS) == NODUMP
