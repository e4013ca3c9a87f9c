"""Link targets, extended attributes, ACLs, capabilities and inode flags come along, whoever the entry is."""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from model.batches import Blocks
from model.entries import INODE_FLAGS
from sources.files import attributes
from tests.sources.harness import as_nobody, contents, problems, public_directory, read, scan

SET_FLAGS = 0x40006602 | struct.calcsize("l") << 16  # FS_IOC_SETFLAGS
NODUMP, NOATIME = 0x40, 0x80
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep


def only(root: Path) -> Blocks:
    (block,) = read(root, scan(root)[0])
    return block


def xattrs_of(block: Blocks) -> dict[bytes, list[tuple[bytes, bytes]]]:
    fresh = block.listing.fresh
    return {fresh.paths[row]: pairs for row, pairs in fresh.xattrs.items()}


def needs_user_xattrs(path: Path) -> None:
    try:
        os.setxattr(path, b"user.probe", b"")
        os.removexattr(path, b"user.probe")
    except OSError:
        pytest.skip("this file system has no user.* attributes: set TMPDIR to one that has")


def test_targets_are_bytes_and_never_followed(tmp_path: Path) -> None:
    os.symlink(b"no\xffwhere\n", os.fsencode(tmp_path) + b"/a")
    os.symlink("/etc/passwd", tmp_path / "b")
    os.symlink("b" * 4000, tmp_path / "c")
    block = only(tmp_path)
    assert block.listing.fresh.targets == {0: b"no\xffwhere\n", 1: b"/etc/passwd", 2: b"b" * 4000}
    assert contents([block]) == {b"a": b"", b"b": b"", b"c": b""}


def test_extended_attributes_of_files_and_directories(tmp_path: Path) -> None:
    needs_user_xattrs(tmp_path)
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "plain").touch()
    for name in ("dir", "file"):
        os.setxattr(tmp_path / name, b"user.b\xff", b"\0\xff binary")
        os.setxattr(tmp_path / name, b"user.a", b"")
    both = [(b"user.a", b""), (b"user.b\xff", b"\0\xff binary")]
    assert xattrs_of(only(tmp_path)) == {b"dir": both, b"file": both}


def test_attributes_of_sparse_and_of_large_files(tmp_path: Path) -> None:
    needs_user_xattrs(tmp_path)
    for name, size in (("sparse", 100_000), ("void", 1 << 40)):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, size)
        os.setxattr(tmp_path / name, b"user.x", name.encode())
    blocks = read(tmp_path, scan(tmp_path)[0])
    found = {path: pairs for block in blocks for path, pairs in xattrs_of(block).items()}
    assert found == {b"sparse": [(b"user.x", b"sparse")], b"void": [(b"user.x", b"void")]}


@pytest.mark.root
def test_links_and_devices_have_attributes_of_their_own(tmp_path: Path) -> None:
    os.symlink("nothing", tmp_path / "link")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "fifo"):
        os.setxattr(tmp_path / name, b"trusted.x", name.encode(), follow_symlinks=False)
    block = only(tmp_path)
    assert xattrs_of(block) == {b"link": [(b"trusted.x", b"link")], b"fifo": [(b"trusted.x", b"fifo")]}
    assert block.listing.fresh.targets == {1: b"nothing"}


@pytest.mark.root
def test_capabilities(tmp_path: Path) -> None:
    (tmp_path / "ping").touch()
    os.setxattr(tmp_path / "ping", b"security.capability", CAPABILITY)
    assert xattrs_of(only(tmp_path)) == {b"ping": [(b"security.capability", CAPABILITY)]}


def test_access_control_lists(tmp_path: Path) -> None:
    if shutil.which("setfacl") is None:
        pytest.skip("needs setfacl: apt-get install acl")
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    try:
        subprocess.run(["setfacl", "-m", "u:65534:r", tmp_path / "file"], check=True, capture_output=True)
    except subprocess.CalledProcessError:
        pytest.skip("this file system has no ACLs: set TMPDIR to one that has")
    subprocess.run(["setfacl", "-d", "-m", "u:65534:rx", tmp_path / "dir"], check=True)
    found = {path: [name for name, _ in pairs] for path, pairs in xattrs_of(only(tmp_path)).items()}
    assert found == {b"dir": [b"system.posix_acl_default"], b"file": [b"system.posix_acl_access"]}


def test_inode_flags(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    for name in ("file", "hole"):
        (tmp_path / name).touch()
    os.truncate(tmp_path / "hole", 1 << 20)
    try:
        for name in ("dir", "file", "hole"):
            fd = os.open(tmp_path / name, os.O_RDONLY)
            fcntl.ioctl(fd, SET_FLAGS, struct.pack("l", NODUMP | NOATIME))
            os.close(fd)
    except OSError:
        pytest.skip("this file system has no inode flags: set TMPDIR to one that has")
    flags = only(tmp_path).listing.fresh.stat["flags"] & INODE_FLAGS
    assert flags.tolist() == [NODUMP | NOATIME] * 3


def test_a_link_in_a_directory_nobody_may_search() -> None:
    with public_directory() as top:
        os.mkdir(f"{top}/d")
        os.symlink("x", f"{top}/d/link")
        listings, _ = scan(top)
        os.chmod(f"{top}/d", 0o600)
        trouble = as_nobody(lambda: problems(read(top, listings)))
    assert trouble == {b"d": "permission denied", b"d/link": "permission denied"}


def test_an_entry_that_vanishes_before_its_attributes_are_read(tmp_path: Path) -> None:
    os.symlink("x", tmp_path / "link")
    (tmp_path / "dir").mkdir()
    os.mkfifo(tmp_path / "fifo")
    listings, _ = scan(tmp_path)
    (tmp_path / "link").unlink()
    (tmp_path / "dir").rmdir()
    (tmp_path / "fifo").unlink()
    assert problems(read(tmp_path, listings)) == dict.fromkeys([b"dir", b"fifo", b"link"], "vanished while reading")


def test_attributes_without_end_are_a_problem_of_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "XATTRS_MAX", 100)
    (tmp_path / "file").write_bytes(b"")
    for number in range(9):
        os.setxattr(tmp_path / "file", f"user.{number}", bytes(20))
    found, problem = attributes.read_xattrs(os.fsencode(tmp_path / "file"))
    assert len(found) == 3 and "extended attributes" in problem
