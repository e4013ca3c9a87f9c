"""A restored tree is the tree that was backed up, in every respect a file system knows."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import socket
import stat
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kernels import hash_chunks
from model.entries import Kind
from model.errors import UsageError
from sources.files.apply import inode_flags
from sources.files.target import RestoreOptions, Target, TargetWriter
from tests.sources.restoring import (
    Held,
    check_of,
    differences,
    directory,
    files,
    held,
    held_tree,
    restore,
    row_of,
    write_window,
)

MIB = 1 << 20
IMMUTABLE, NO_DUMP, NO_ATIME = 0x10, 0x40, 0x80
needs_rsync = pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync: apt-get install rsync")
# An ACL as the kernel stores it: version, then (tag, permissions, id) for owner, user 1000, group, mask, others.
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, bits, name)
    for tag, bits, name in [(1, 7, 2**32 - 1), (2, 6, 1000), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1), (32, 4, 2**32 - 1)]
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service, effective


def build_tree(root: Path) -> None:
    """A few of everything."""
    rng = random.Random(3)
    for number in range(60):
        path = root / f"d{number % 5}" / f"s{number % 3}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(rng.randbytes(rng.choice([0, 1, 3000, 70_000])))
    (root / "large").write_bytes(rng.randbytes(5 * MIB + 17))
    (root / "empty dir").mkdir()
    os.link(root / "large", root / "d1" / "again")
    os.link(root / "d0" / "s0" / "f0", root / "d0" / "zero again")
    os.symlink("../large", root / "d2" / "link")
    os.symlink(b"\xff/nowhere", os.fsencode(root / "dangling"))
    os.link(root / "dangling", root / "dangling too", follow_symlinks=False)
    os.mkfifo(root / "pipe", 0o640)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "socket"))
    (root / "n" / "\udcff\udcfe new\nline").parent.mkdir()
    (root / "n" / "\udcff\udcfe new\nline").write_bytes(b"odd")
    (root / "n" / ("n" * 255)).write_bytes(b"longest")
    with open(root / "sparse", "wb") as file:
        file.seek(3 * MIB)
        file.write(rng.randbytes(300_000))
        file.seek(9 * MIB)
        file.write(b"end")
        file.truncate(64 * MIB)
    with open(root / "hole", "wb") as file:
        file.truncate(5 * MIB)
    os.chmod(root / "d3" / "s0", 0o1750)
    for number, path in enumerate(sorted(root.rglob("*"), reverse=True)):
        os.utime(path, ns=(10**18 + number, 10**18 + 7 * number), follow_symlinks=False)
    os.utime(root, ns=(5, 5))


def add_privileged(root: Path) -> None:
    """What only root can make."""
    os.mknod(root / "char", 0o640 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "block", 0o640 | stat.S_IFBLK, os.makedev(7, 200))
    some = sorted(path for path in root.rglob("f*") if path.is_file())
    os.chown(some[0], 1234, 2345)
    os.chown(some[1], 0, 4)
    os.chmod(some[1], 0o6755)
    os.chown(root / "dangling", 77, 78, follow_symlinks=False)
    os.chown(root / "d4", 1000, 1000)
    os.setxattr(some[2], "security.capability", CAPABILITY)
    os.setxattr(some[3], "user.note", b"\0\xff")
    os.setxattr(some[4], "system.posix_acl_access", ACL)
    os.setxattr(root / "d3", "system.posix_acl_default", ACL)
    os.setxattr(root / "d3", "system.posix_acl_access", ACL)
    os.setxattr(root / "d2", "user.dir", b"x" * 500)
    os.setxattr(root / "d2" / "link", "trusted.link", b"1", follow_symlinks=False)
    os.setxattr(root / "pipe", "trusted.pipe", b"2")
    subprocess.run(["chattr", "+d", some[5]], check=True)
    subprocess.run(["chattr", "+A", root / "d1"], check=True)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    root.mkdir()
    build_tree(root)
    if os.geteuid() == 0:
        add_privileged(root)
    os.utime(root, ns=(5, 5))
    return root


def rows_to_compare(snapshot: Held) -> list[dict[str, Any]]:
    """All that is known of the entries, but for inodes; looking at directories and links changes their access times."""
    rows = snapshot.table.drop_columns(["ino", "ctime"]).to_pylist()
    return [row | ({} if row["kind"] == Kind.FILE else {"atime": 0, "size": 0}) for row in rows]


@needs_rsync
@pytest.mark.parametrize(("window", "segment"), [(1000, 1 * MIB), (7, 50_000)])
def test_a_restored_tree_equals_its_source(source: Path, tmp_path: Path, window: int, segment: int) -> None:
    snapshot = held_tree(source)
    summary = restore(snapshot, tmp_path / "out", window=window, segment=segment)
    assert summary.problems == []
    assert rows_to_compare(held_tree(tmp_path / "out")) == rows_to_compare(snapshot)
    assert differences(source, tmp_path / "out") == ""
    assert (tmp_path / "out" / "hole").stat().st_blocks == 0
    contents = {row["ino"]: snapshot.content[row["path"]] for row in snapshot.table.to_pylist() if row["kind"] == 0}
    assert (summary.files, summary.bytes) == (len(contents), sum(map(len, contents.values())))
    assert summary.links == 3
    assert not list((tmp_path / "out").rglob(".lox-restore-*"))


@needs_rsync
def test_a_second_restore_finds_everything_there_and_touches_nothing(source: Path, tmp_path: Path) -> None:
    snapshot = held_tree(source)
    out = tmp_path / "out"
    restore(snapshot, out)
    before = {path: path.lstat().st_ctime_ns for path in out.rglob("*") if not path.is_dir()}
    summary = restore(snapshot, out)
    assert (summary.files, summary.bytes, summary.problems) == (0, 0, [])
    assert {path: path.lstat().st_ctime_ns for path in before} == before
    assert differences(source, out) == ""


@needs_rsync
def test_whatever_was_changed_in_the_target_is_put_right(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    snapshot = held_tree(source)
    restore(snapshot, out)
    (out / "large").write_bytes(b"short")
    (out / "d0" / "s0" / "f15").unlink()
    os.chmod(out / "d0" / "s1" / "f10", 0o777)
    os.setxattr(out / "d0" / "s1" / "f40", "user.new", b"to go")
    (out / "dangling too").unlink()
    os.symlink("elsewhere", out / "dangling too")
    (out / "pipe").unlink()
    (out / "pipe").write_bytes(b"a file")
    (out / "empty dir").rmdir()
    (out / "empty dir").write_bytes(b"another")
    (out / "hole").unlink()
    (out / "hole").mkdir()
    shutil.rmtree(out / "d4")
    os.symlink(tmp_path, out / "d4")
    with open(out / "sparse", "r+b") as file:
        file.write(b"x" * 100)
    os.utime(out, ns=(5, 5))
    times = out.stat().st_mtime_ns
    summary = restore(snapshot, out)
    assert summary.problems == []
    assert out.stat().st_mtime_ns != times  # the top itself is the user's: only an empty one takes metadata
    os.utime(out, ns=(5, 5))
    assert differences(source, out) == ""


def test_overwrite_policies(tmp_path: Path) -> None:
    out = tmp_path / "out"
    snapshot = files(same=b"as it was", old=b"from the snapshot", newer=b"from the snapshot", gone=b"gone")

    def prepare() -> None:
        shutil.rmtree(out, ignore_errors=True)
        restore(snapshot, out)
        (out / "old").write_bytes(b"older")
        os.utime(out / "old", ns=(1, 1))
        (out / "newer").write_bytes(b"newer")
        (out / "same").write_bytes(b"AS IT WAS")
        os.utime(out / "same", ns=(10**18, 10**18))
        (out / "gone").unlink()

    def outcome(overwrite: str) -> tuple[list[bytes], int, int]:
        prepare()
        summary = restore(snapshot, out, overwrite=overwrite)
        assert summary.problems == []
        names = ("same", "old", "newer", "gone")
        return [(out / name).read_bytes() for name in names], summary.files, summary.skipped

    ours, gone = b"from the snapshot", b"gone"
    assert outcome("always") == ([b"as it was", ours, ours, gone], 4, 0)
    assert outcome("if-changed") == ([b"AS IT WAS", ours, ours, gone], 3, 1)
    assert outcome("if-newer") == ([b"AS IT WAS", ours, b"newer", gone], 2, 2)
    assert outcome("never") == ([b"AS IT WAS", b"older", b"newer", gone], 1, 3)
    with pytest.raises(UsageError):
        Target(os.fsencode(out), RestoreOptions(overwrite="perhaps"))


def test_never_keeps_also_the_metadata_of_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    os.utime(tmp_path / "d", ns=(7, 7))
    (tmp_path / "d" / "file").write_bytes(b"mine")
    os.utime(tmp_path / "d", ns=(7, 7))
    snapshot = held(directory(b"d"), (row_of(b"d/file", b"theirs"), b"theirs"))
    restore(snapshot, tmp_path, overwrite="never")
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o700
    assert (tmp_path / "d").stat().st_mtime_ns == 7
    assert (tmp_path / "d" / "file").read_bytes() == b"mine"


def test_a_directory_in_the_way_of_a_file_is_only_removed_if_empty_or_asked_for(tmp_path: Path) -> None:
    snapshot = files(name=b"content")
    (tmp_path / "name" / "below").mkdir(parents=True)
    summary = restore(snapshot, tmp_path)
    assert (tmp_path / "name" / "below").is_dir()
    assert summary.problems == [(b"name", "what is there already is in the way: Directory not empty")]
    restore(snapshot, tmp_path, delete=True, complete=(b"",))
    assert (tmp_path / "name").read_bytes() == b"content"


def test_dry_run_changes_nothing_and_counts_what_would_be(source: Path, tmp_path: Path) -> None:
    snapshot = held_tree(source)
    planned = restore(snapshot, tmp_path / "out", dry_run=True)
    assert not (tmp_path / "out").exists()
    done = restore(snapshot, tmp_path / "out")
    counts = ("files", "bytes", "directories", "links", "others", "problems")
    assert [getattr(planned, name) for name in counts] == [getattr(done, name) for name in counts]
    (tmp_path / "out" / "extra").write_bytes(b"")
    (tmp_path / "out" / "large").write_bytes(b"")
    os.chmod(tmp_path / "out" / "d0", 0)
    before = rows_to_compare(held_tree(tmp_path / "out"))
    again = restore(snapshot, tmp_path / "out", dry_run=True, delete=True, complete=(b"",))
    assert (again.files, again.bytes, again.deleted) == (0 + 1, 5 * MIB + 17, 1)
    assert rows_to_compare(held_tree(tmp_path / "out")) == before


def test_inode_flags_come_back_and_do_not_stop_a_second_restore(tmp_path: Path) -> None:
    if os.geteuid() != 0 or subprocess.run(["chattr", "+i", tmp_path], check=False, capture_output=True).returncode:
        pytest.skip("needs root and a file system with inode flags (ext4, xfs, btrfs)")
    subprocess.run(["chattr", "-i", tmp_path], check=True)
    content = b"x" * 200_000
    linked = {"nlink": 2, "ino": 9, "flags": IMMUTABLE}
    snapshot = held(
        (row_of(b"a", content, **linked), content),
        (row_of(b"b", content, **linked), content),
        directory(b"d", flags=IMMUTABLE),
        (row_of(b"n", b"n", flags=NO_DUMP | NO_ATIME), b"n"),
        (row_of(b"d/f", content, flags=IMMUTABLE), content),
    )
    out = tmp_path / "out"
    try:
        for segment in (1 * MIB, 70_000):
            summary = restore(snapshot, out, overwrite="always", segment=segment)
            assert summary.problems == []
            for name, flags in (("a", IMMUTABLE), ("d", IMMUTABLE), ("n", NO_DUMP | NO_ATIME), ("d/f", IMMUTABLE)):
                fd = os.open(out / name, os.O_RDONLY)
                assert (inode_flags(fd) or 0) & 0xFF == flags
                os.close(fd)
            assert (out / "b").stat().st_ino == (out / "a").stat().st_ino
            assert (out / "d" / "f").read_bytes() == content
        assert restore(held(directory(b"")), out, delete=True, complete=(b"",)).problems == []
    finally:
        subprocess.run(["chattr", "-R", "-i", tmp_path], check=True)


def test_acls_of_the_place_are_not_inherited(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "old").mkdir(parents=True)
    for path in (out, out / "old"):
        try:
            os.setxattr(path, "system.posix_acl_default", ACL)
        except OSError:
            pytest.skip("needs a file system with ACLs")
    big = bytes(200_000)
    snapshot = held(
        directory(b""),
        directory(b"new"),
        directory(b"old"),
        (row_of(b"top", b"1"), b"1"),
        (row_of(b"new/file", b"2"), b"2"),
        (row_of(b"old/big", big), big),
        (row_of(b"old/empty"), b""),
    )
    assert restore(snapshot, out, segment=70_000).problems == []
    for name in ("new", "old", "top", "new/file", "old/big", "old/empty"):
        assert [xattr for xattr in os.listxattr(out / name) if "acl" in xattr] == []
    assert stat.S_IMODE((out / "old" / "big").stat().st_mode) == 0o644


def test_delete_removes_only_what_the_snapshot_knows_to_be_gone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    snapshot = held(
        directory(b"data"),
        directory(b"data/empty"),
        directory(b"data/unread", problem=b"permission denied"),
        (row_of(b"data/file", b"1"), b"1"),
        row_of(b"data/lost", size=4, problem=b"permission denied"),
    )
    restore(snapshot, out)
    for name in ("other", "data/empty/x/y", "data/unread/z"):
        (out / name).mkdir(parents=True)
    for name in ("aside", "data/extra", "data/empty/x/y/file", "data/cache.tmp", "data/empty/x/keep.tmp", "data/lost"):
        (out / name).write_bytes(b"!")
    os.symlink(out / "other", out / "data" / "empty" / "to other")

    def keep(path: bytes, is_directory: bool) -> bool:
        return path.endswith(b".tmp") and not is_directory

    summary = restore(snapshot, out, delete=True, complete=(b"data",), keep=keep)
    left = sorted(os.fspath(path.relative_to(out)) for path in out.rglob("*"))
    assert left == [
        "aside", "data", "data/cache.tmp", "data/empty", "data/empty/x", "data/empty/x/keep.tmp",
        "data/file", "data/lost", "data/unread", "data/unread/z", "other",
    ]  # fmt: skip
    assert summary.deleted == 4
    assert dict(summary.problems) == {
        b"data/lost": "not in the snapshot: permission denied",
        b"data/unread": "not all of it is in the snapshot: permission denied",
    }
    assert restore(snapshot, out, delete=True).deleted == 0


def test_verify_finds_what_differs(source: Path, tmp_path: Path) -> None:
    snapshot = held_tree(source)
    out = tmp_path / "out"
    restore(snapshot, out)

    def wrong() -> list[bytes]:
        with Target(os.fsencode(out)) as target:
            target.verify(
                check_of(target, snapshot), lambda body, start, length: hash_chunks(None, body, start, length)
            )
            return sorted({path for path, _ in target.summary.problems})

    access = (out / "large").stat().st_atime_ns
    assert wrong() == []
    assert (out / "large").stat().st_atime_ns == access
    for name, place in (("large", 5 * MIB), ("sparse", 3 * MIB + 5), ("d0/s0/f45", 0)):
        with open(out / name, "r+b") as file:
            file.seek(place)
            byte = file.read(1)[0] if (out / name).stat().st_size > place else 0
            file.seek(place)
            file.write(bytes([byte ^ 1]))
    (out / "n" / ("n" * 255)).unlink()
    changed = {b"d1/again", b"large", b"sparse", b"n/" + b"n" * 255}
    if snapshot.content[b"d0/s0/f45"]:
        changed.add(b"d0/s0/f45")
    assert set(wrong()) == changed


def test_ancestors_without_a_row_are_made_and_entered_by_nobody_else(tmp_path: Path) -> None:
    snapshot = held((row_of(b"a/b/c/file", b"deep"), b"deep"))
    assert restore(snapshot, tmp_path / "out").problems == []
    assert (tmp_path / "out/a/b/c/file").read_bytes() == b"deep"
    assert stat.S_IMODE((tmp_path / "out/a/b").stat().st_mode) == 0o700


def test_paths_longer_than_the_system_takes_at_once(tmp_path: Path) -> None:
    names = [b"x" * 250] * 20 + [b"y"] * 100
    rows, path = [], b""
    for name in names:
        path = path + b"/" + name if path else name
        rows.append(directory(path, mtime=10**18 + len(path)))
    snapshot = held(*rows, (row_of(path + b"/file", b"deep"), b"deep"))
    try:
        assert restore(snapshot, tmp_path / "out").problems == []
        again = held_tree(tmp_path / "out")
        assert again.content[path + b"/file"] == b"deep"
        times = {row["path"]: row["mtime"] for row in again.table.to_pylist()}
        assert times[path] == 10**18 + len(path)
        assert restore(held(directory(b"")), tmp_path / "out", delete=True, complete=(b"",)).deleted == len(names) + 1
    finally:
        subprocess.run(["rm", "-rf", tmp_path / "out"], check=True)


def test_a_writer_works_from_elsewhere_and_only_on_its_directory(tmp_path: Path) -> None:
    snapshot = files(one=b"1" * 1000, two=b"2" * 200_000)
    with Target(os.fsencode(tmp_path / "out")) as target:
        copy: TargetWriter = pickle.loads(pickle.dumps(target.writer()))
        plan = target.prepare(snapshot.table)
        target._writer = copy
        write_window(target, plan, snapshot.content, segment=70_000)
        assert target.finish().problems == []
        assert (tmp_path / "out" / "two").read_bytes() == snapshot.content[b"two"]
        elsewhere: TargetWriter = pickle.loads(pickle.dumps(copy))
        os.rename(tmp_path / "out", tmp_path / "moved")
        (tmp_path / "out").mkdir()
        with pytest.raises(UsageError):
            elsewhere.write_at(b"one", 0, b"x")


def test_a_target_that_cannot_be_a_directory_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError):
        Target(os.fsencode(tmp_path / "file"))
    with pytest.raises(UsageError):
        Target(os.fsencode(tmp_path / "file" / "below"))
