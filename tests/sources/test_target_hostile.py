"""Nothing outside the target is touched, and nothing looks finished that is not, whatever snapshot and target hold."""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.entries import Kind
from sources.files.existing import work_name
from sources.files.target import Target, is_simple
from tests.sources.restoring import (
    directory,
    files,
    held,
    held_tree,
    orders_of,
    restore,
    row_of,
    write_window,
)

MIB = 1 << 20


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A directory beside the target; a test fails if anything in it was changed."""
    root = tmp_path / "victim"
    root.mkdir()
    (root / "passwd").write_bytes(b"root")
    (root / "below").mkdir()
    for path in (root / "passwd", root / "below", root):
        os.chmod(path, 0o700)
        os.utime(path, ns=(1, 1))
    before = _state(root)
    yield root
    assert _state(root) == before


def _state(root: Path) -> list[tuple[str, int, int, int, bytes]]:
    paths = [root, *sorted(root.rglob("*"))]
    return [
        (
            path.name,
            path.lstat().st_mode,
            path.lstat().st_uid,
            path.lstat().st_mtime_ns,
            b"" if path.is_dir() else path.read_bytes(),
        )
        for path in paths
    ]


def symlink(path: bytes, target: bytes, **columns: Any) -> dict[str, Any]:
    return row_of(path, kind=Kind.SYMLINK, mode=0o777, target=target, **columns)


def test_a_snapshot_cannot_lead_out_through_its_own_link(tmp_path: Path, victim: Path) -> None:
    snapshot = held(
        symlink(b"evil", os.fsencode(victim)),
        (row_of(b"evil/passwd", b"owned"), b"owned"),
        (row_of(b"evil/new", bytes(200_000)), bytes(200_000)),
        directory(b"evil/below", mode=0o777),
        symlink(b"evil/link", b"x"),
        row_of(b"evil/pipe", kind=Kind.FIFO),
        row_of(b"evil/empty"),
    )
    for _ in range(2):
        summary = restore(snapshot, tmp_path / "out", segment=70_000)
        assert {path for path, _ in summary.problems} >= {b"evil"} or {path for path, _ in summary.problems} >= {
            b"evil/passwd",
            b"evil/new",
        }


@pytest.mark.parametrize(
    "path",
    [b"..", b".", b"a/../../victim/new", b"/etc/x", b"a//b", b"a/", b"a\0b", b"a/./b", b"a/..", b"../victim/passwd"],
)
def test_names_that_are_none_are_refused(path: bytes, tmp_path: Path, victim: Path) -> None:
    snapshot = held(directory(b"a"), (row_of(path, b"x"), b"x"), (row_of(b"good", b"y"), b"y"))
    summary = restore(snapshot, tmp_path / "out")
    assert summary.problems == [(path, "not a name that can be restored")]
    assert sorted(os.listdir(tmp_path / "out")) == ["a", "good"]


def test_links_waiting_in_the_target_are_replaced_not_followed(tmp_path: Path, victim: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    big = bytes(range(256)) * 1000
    snapshot = held(
        directory(b"dir"),
        directory(b"kept"),
        (row_of(b"file", b"ours"), b"ours"),
        (row_of(b"large", big), big),
        (row_of(b"dir/passwd", b"ours"), b"ours"),
        (row_of(b"dir/new", big), big),
        directory(b"dir/below", mode=0o777),
    )
    os.symlink(victim, out / "dir")
    os.symlink(victim / "passwd", out / "file")
    os.symlink(victim / "not there", out / "large")
    os.symlink(victim, os.fsencode(out) + b"/" + work_name(b"file"))
    os.symlink(victim / "passwd", os.fsencode(out) + b"/" + work_name(b"large"))
    assert restore(snapshot, out, segment=70_000).problems == []
    assert held_tree(out).content[b"dir/passwd"] == b"ours"
    assert held_tree(out).content[b"large"] == big
    os.rename(out / "dir", out / "aside")
    os.symlink(victim, out / "dir")
    summary = restore(snapshot, out, overwrite="never", delete=True, complete=(b"",))
    assert {path for path, _ in summary.problems} == {b"dir", b"dir/passwd", b"dir/new", b"dir/below"}
    assert os.readlink(out / "dir") == os.fspath(victim)


def test_deletion_does_not_follow_links(tmp_path: Path, victim: Path) -> None:
    out = tmp_path / "out"
    (out / "gone").mkdir(parents=True)
    os.symlink(victim, out / "gone" / "link")
    os.symlink(victim, out / "link")
    summary = restore(held(directory(b"")), out, delete=True, complete=(b"",))
    assert (summary.deleted, os.listdir(out)) == (3, [])


def test_a_racing_attacker_gains_nothing(tmp_path: Path, victim: Path) -> None:
    """Somebody swaps a directory of the target for a link to the victim and back, all the time."""
    out = tmp_path / "out"
    big = os.urandom(150_000)
    rows = [(row_of(b"d/f%d" % number, b"ours"), b"ours") for number in range(40)]
    special = [symlink(b"d/link%d" % number, b"x", uid=1, gid=1) for number in range(5)]
    special += [row_of(b"d/pipe%d" % number, kind=Kind.FIFO) for number in range(5)]
    same = [(row_of(name, b"ours", ino=77, nlink=2), b"ours") for name in (b"d/linked1", b"d/linked2")]
    snapshot = held(
        directory(b"d"), (row_of(b"d/below", big), big), *rows, *special, *same, (row_of(b"d/passwd", b"ours"), b"ours")
    )
    done = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not done.is_set():
            try:
                os.rename(out / "d", out / "aside")
                os.symlink(victim, out / "d")
                swaps += 1
                os.unlink(out / "d")
                os.rename(out / "aside", out / "d")
            except OSError:
                for name in ("d", "aside"):
                    if (out / name).is_symlink():
                        (out / name).unlink(missing_ok=True)

    attacker = threading.Thread(target=swap)
    attacker.start()
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            shutil.rmtree(out / "aside", ignore_errors=True)
            restore(snapshot, out, segment=70_000, overwrite="always", delete=True, complete=(b"",))
    finally:
        done.set()
        attacker.join()
    assert swaps > 100


def test_a_hard_link_to_a_link_is_not_one_to_its_target(tmp_path: Path, victim: Path) -> None:
    columns = {"ino": 5, "nlink": 2}
    snapshot = held(
        symlink(b"a", os.fsencode(victim / "passwd"), **columns),
        symlink(b"b", os.fsencode(victim / "passwd"), **columns),
    )
    assert restore(snapshot, tmp_path / "out").problems == []
    assert (tmp_path / "out" / "b").is_symlink()
    assert (victim / "passwd").stat().st_nlink == 1


def test_entries_that_only_claim_to_be_one_inode_are_not_joined(tmp_path: Path) -> None:
    snapshot = held(
        (row_of(b"a", b"one", ino=5, nlink=2), b"one"),
        (row_of(b"b", b"other", ino=5, nlink=2), b"other"),
        directory(b"c", ino=5, nlink=2),
    )
    assert restore(snapshot, tmp_path / "out").problems == []
    assert (tmp_path / "out" / "b").read_bytes() == b"other"


@pytest.mark.root
def test_privileged_things_of_a_foreign_snapshot_can_be_refused(tmp_path: Path) -> None:
    capability = [{"name": b"security.capability", "value": bytes.fromhex("0100000200040000000000000000000000000000")}]
    snapshot = held(
        (row_of(b"capable", b"1", xattrs=capability, mode=0o755), b"1"),
        row_of(b"null", kind=Kind.CHAR_DEVICE, rdev=os.makedev(1, 3)),
        (row_of(b"suid", b"1", mode=0o6755), b"1"),
    )
    summary = restore(snapshot, tmp_path / "out", devices=False, privileges=False)
    assert summary.problems == []
    assert not (tmp_path / "out" / "null").exists()
    assert stat.S_IMODE((tmp_path / "out" / "suid").stat().st_mode) == 0o755
    assert os.listxattr(tmp_path / "out" / "capable") == []
    assert summary.notes == {"devices left out": 1, "privileged xattrs left out": 1, "set-id bits left out": 1}
    summary = restore(snapshot, tmp_path / "all")
    assert (summary.problems, summary.notes) == ([], {})
    assert stat.S_IMODE((tmp_path / "all" / "suid").stat().st_mode) == 0o6755
    assert os.listxattr(tmp_path / "all" / "capable") == ["security.capability"]
    assert stat.S_ISCHR((tmp_path / "all" / "null").stat().st_mode)


def test_an_interrupted_restore_goes_on_and_half_files_never_look_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"
    big = os.urandom(3 * MIB)
    snapshot = held((row_of(b"big", big), big), (row_of(b"done", b"1"), b"1"), (row_of(b"later", b"2"), b"2"))
    with Target(os.fsencode(out)) as target:  # stops in the middle of the large file
        plan = target.prepare(snapshot.table)
        first, *_ = orders_of(plan, snapshot.content, 100_000)
        target.begin_files(plan, np.array([0], dtype=np.int32))
        target.accept(plan, target.writer().write_joined(first))
    assert not (out / "big").exists()
    (out / "done").write_bytes(b"1")
    os.utime(out / "done", ns=(10**18, 10**18))
    inode = (out / "done").stat().st_ino
    (out / "later").write_bytes(b"!")  # of the right size, written by a run that died before the time was set
    summary = restore(snapshot, out, segment=100_000)
    assert (summary.problems, summary.files, summary.skipped) == ([], 2, 1)
    assert [(out / name).read_bytes() for name in ("big", "done", "later")] == [big, b"1", b"2"]
    assert (out / "done").stat().st_ino == inode
    assert sorted(os.listdir(out)) == ["big", "done", "later"]


def test_what_a_replay_writes_again_does_no_harm(tmp_path: Path) -> None:
    big = os.urandom(2 * MIB)
    snapshot = held((row_of(b"big", big), big), (row_of(b"small", b"1" * 5000), b"1" * 5000))
    with Target(os.fsencode(tmp_path / "out")) as target:
        plan = target.prepare(snapshot.table)
        orders = orders_of(plan, snapshot.content, 100_000)
        for joined in orders:
            target.begin_files(plan, joined.order.rows[~is_simple(joined.order.whole, {})])
        lost = target.writer().write_joined(orders[-1])  # its lane dies before it tells
        assert lost.problems == {}
        for joined in [*orders, *orders]:
            target.accept(plan, target.writer().write_joined(joined))
        target.end_window(plan)
        summary = target.finish()
    assert (summary.files, summary.bytes, summary.problems) == (2, len(big) + 5000, [])
    assert sorted(os.listdir(tmp_path / "out")) == ["big", "small"]
    assert (tmp_path / "out" / "big").read_bytes() == big


def test_secrets_are_never_readable_by_others_not_even_for_a_moment(tmp_path: Path) -> None:
    out = tmp_path / "out"
    secret = os.urandom(400_000)
    snapshot = held(
        directory(b"open", mode=0o777),
        *((row_of(b"open/secret%d" % number, secret, mode=0o600), secret) for number in range(30)),
        *((row_of(b"open/small%d" % number, b"s", mode=0o640), b"s") for number in range(300)),
    )
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for root, _, names in os.walk(out):
                for name in names:
                    try:
                        seen.add(stat.S_IMODE(os.lstat(os.path.join(root, name)).st_mode))
                    except OSError:
                        pass

    old = os.umask(0)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        restore(snapshot, out, segment=70_000)
    finally:
        os.umask(old)
        done.set()
        watcher.join()
    assert seen <= {0o600, 0o640}
    assert stat.S_IMODE(out.stat().st_mode) == 0o700


def test_other_names_of_an_existing_file_keep_their_content(tmp_path: Path, victim: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    os.link(victim / "passwd", out / "replaced")
    os.link(victim / "passwd", out / "same")
    here = {"mtime": 1, "mode": 0o666}
    snapshot = held((row_of(b"replaced", b"ours"), b"ours"), (row_of(b"same", b"root", **here), b"root"))
    for overwrite in ("if-changed", "always"):
        assert restore(snapshot, out, overwrite=overwrite).problems == []
    assert (victim / "passwd").stat().st_nlink == 1
    assert stat.S_IMODE((out / "same").stat().st_mode) == 0o666


@pytest.mark.root
def test_owners_by_name_where_this_host_knows_it_else_by_number(tmp_path: Path) -> None:
    nobody = os.stat("/").st_uid  # root, by name, whatever the number says
    snapshot = held(
        (row_of(b"known", b"1", uid=4321, gid=4321, user=b"root", group=b"root"), b"1"),
        (row_of(b"unknown", b"1", uid=4321, gid=4322, user=b"no such user", group=b"\xff"), b"1"),
    )
    restore(snapshot, tmp_path / "out")
    owners = [
        ((tmp_path / "out" / name).stat().st_uid, (tmp_path / "out" / name).stat().st_gid)
        for name in ("known", "unknown")
    ]
    assert owners == [(nobody, 0), (4321, 4322)]
    restore(snapshot, tmp_path / "numbers", numeric_owner=True)
    assert (tmp_path / "numbers" / "known").stat().st_uid == 4321


def test_records_that_contradict_themselves_are_reported_and_make_no_file(tmp_path: Path) -> None:
    good = files(a=b"x" * 1000)
    for changes in (
        {"size": 1001},
        {"lengths": [999]},
        {"lengths": [500], "chunks": [bytes(32)]},
        {"extents": [{"offset": -5, "length": 1000}]},
        {"extents": [{"offset": 900, "length": 1000}], "size": 1500},
        {"extents": [{"offset": 500, "length": 500}, {"offset": 0, "length": 500}], "size": 2000},
        {"extents": [{"offset": 1 << 62, "length": 1 << 62}]},
        {"kind": 7},
        {"kind": 200},
        {"problem": b"permission denied", "chunks": [], "lengths": []},
    ):
        out = tmp_path / "out"
        out.mkdir()
        summary = restore(good.changed(b"a", **changes), out)
        assert [path for path, _ in summary.problems] == [b"a"], changes
        assert os.listdir(out) == []
        out.rmdir()


def test_a_file_that_stays_incomplete_is_set_aside(tmp_path: Path) -> None:
    out = tmp_path / "out"
    big = os.urandom(MIB)
    snapshot = files(big=big, small=b"s" * 100)
    out.mkdir()
    (out / "big").write_bytes(b"what was there before")
    with Target(os.fsencode(out)) as target:
        plan = target.prepare(snapshot.table)
        order, *rest = orders_of(plan, snapshot.content, 100_000)
        target.begin_files(plan, order.order.rows[~is_simple(order.order.whole, {})])
        target.accept(plan, target.writer().write_joined(order))
        target.fail(plan, 0, "a chunk is lost")
        target.end_window(plan)
        summary = target.finish()
    assert [path for path, _ in summary.problems] == [b"big", b"small", b"big"]
    assert summary.problems[0][1] == "a chunk is lost"
    assert (out / "big").read_bytes() == b"what was there before"
    assert (out / "big.damaged").read_bytes() == big[:400_000]
    assert rest and not (out / "small").exists()


def test_a_sparse_file_over_another_has_no_stale_bytes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "sparse").write_bytes(b"stale" * MIB)
    os.makedirs(out / "x")
    (out / os.fsdecode(work_name(b"sparse"))).write_bytes(b"stale" * MIB)
    data = os.urandom(5000)
    extents = [{"offset": MIB, "length": 3000}, {"offset": 2 * MIB, "length": 2000}]
    snapshot = held((row_of(b"sparse", data, size=3 * MIB, extents=extents), data))
    assert restore(snapshot, out, segment=1024).problems == []
    expected = bytearray(3 * MIB)
    expected[MIB : MIB + 3000] = data[:3000]
    expected[2 * MIB : 2 * MIB + 2000] = data[3000:]
    assert (out / "sparse").read_bytes() == expected
    assert (out / "sparse").stat().st_blocks * 512 < 64 << 10


def test_two_names_that_are_one_to_the_file_system(tmp_path: Path) -> None:
    """What a target without case does, made with hard links: the second name is there as soon as the first is."""
    snapshot = held((row_of(b"README", b"first"), b"first"), (row_of(b"readme", b"second"), b"second"))
    out = tmp_path / "out"
    restore(snapshot.only(b"README"), out)
    with Target(os.fsencode(out)) as target:
        plan = target.prepare(snapshot.table)
        os.link(out / "README", out / "readme")  # appears meanwhile: ours, as far as anybody can tell
        write_window(target, plan, snapshot.content)
        assert target.finish().problems == []
    assert (out / "README").read_bytes() == b"first"
    assert (out / "readme").read_bytes() == b"second"


def test_a_full_disk_or_a_bad_name_is_a_problem_of_the_file(tmp_path: Path) -> None:
    snapshot = held(
        (row_of(b"n" * 256, b"long"), b"long"),
        directory(b"o" * 256),
        (row_of(b"good", b"y"), b"y"),
        (row_of(b"o" * 256 + b"/file", b"z"), b"z"),
    )
    summary = restore(snapshot, tmp_path / "out")
    assert summary.problems == [
        (b"o" * 256, "File name too long"),
        (b"o" * 256 + b"/file", "its directory could not be restored"),
        (b"n" * 256, "File name too long"),
    ]
    assert os.listdir(tmp_path / "out") == ["good"]


@pytest.mark.root
def test_running_out_of_room_is_reported_for_each_file_and_leaves_no_halves(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    if os.system(f"mount -t tmpfs -o size=1m none {mount} 2>/dev/null"):
        pytest.skip("needs to be allowed to mount")
    try:
        big = os.urandom(700_000)
        snapshot = files(a=big, b=big, c=b"c" * 1000)
        summary = restore(snapshot, mount / "out", segment=100_000)
        assert [path for path, _ in summary.problems][:1] == [b"b"]
        assert (mount / "out" / "a").read_bytes() == big
        assert not (mount / "out" / "b").exists()
        os.system(f"mount -o remount,ro {mount}")
        assert len(restore(files(d=b"1", e=b"2"), mount / "out").problems) == 2
    finally:
        os.system(f"umount {mount}")


def test_an_order_of_rows_nobody_would_write_does_not_matter(tmp_path: Path, victim: Path) -> None:
    snapshot = held(
        (row_of(b"a/b/file", b"1"), b"1"),
        directory(b"a/b"),
        directory(b"a"),
        (row_of(b"a", b"file"), b"file"),
        (row_of(b"a/b/file", b"2"), b"2"),
        directory(b"a/b/file"),
    )
    for options in ({}, {"delete": True, "complete": (b"",)}, {"overwrite": "always"}):
        assert restore(snapshot, tmp_path / "out", **options).problems
    assert os.listdir(tmp_path / "out") == ["a"]
