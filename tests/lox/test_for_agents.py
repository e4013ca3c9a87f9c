"""What agents want of lox besides: archives of several paths, and restores without recorded permissions."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from model.exits import ExitCode
from tests.lox.running import PASSWORD, ROOT, Shell


def test_several_paths_come_in_one_archive(shell: Shell, tmp_path: Path) -> None:
    root = tmp_path / "several"
    for name in ("a/x", "a/y/z", "b", "left"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name * 1000)
    os.symlink("b", root / "a" / "link")
    (root / "b").chmod(0o750)
    shell("backup", root).ok()
    environment = {**os.environ, "LOX_REPOSITORY": str(shell.repository), "LOX_PASSWORD": PASSWORD}
    wanted = [str(root / name) for name in ("a/y", "b", "a")]
    assert "archive" in shell("dump", "latest", *wanted).ok(ExitCode.USAGE).err
    for kind in ("tar", "zip"):
        command = [sys.executable, "-m", "lox", "dump", "latest", *wanted, "--archive", kind]
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT, check=True)
        if kind == "tar":
            with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
                names = [name.partition("several/")[2] for name in tar.getnames()]
        else:
            with zipfile.ZipFile(io.BytesIO(done.stdout)) as archive:
                assert archive.testzip() is None
                members = {info.filename.partition("several/")[2]: info for info in archive.infolist()}
                assert archive.read(members["a/y/z"]).decode() == "a/y/z" * 1000
                assert archive.read(members["a/link"]) == b"b"
            assert members["b"].external_attr >> 16 == 0o100750
            names = [name.rstrip("/") for name in members]
        assert sorted(names) == ["a", "a/link", "a/x", "a/y", "a/y/z", "b"]


@pytest.mark.root
def test_without_permissions_files_are_as_if_one_had_made_them(shell: Shell, tmp_path: Path) -> None:
    root, target = tmp_path / "owned", tmp_path / "target"
    (root / "sub").mkdir(parents=True)
    for name in ("tool", "sub/secret", "sub/there"):
        (root / name).write_text(name)
        os.chown(root / name, 1234, 1234)
    (root / "tool").chmod(0o6755)
    (root / "sub/secret").chmod(0o600)
    os.chown(root / "sub", 1234, 1234)
    shell("backup", root).ok()
    there = target / str(root)[1:] / "sub" / "there"
    there.parent.mkdir(parents=True)
    there.write_text("sub/there")
    os.utime(there, ns=(1, (root / "sub/there").stat().st_mtime_ns))
    os.chown(there.parent, 4321, 4321)
    there.parent.chmod(0o711)
    os.chown(there, 4321, 4321)
    shell("restore", "latest", "--target", target, "--no-permissions").ok()
    found = {name: (target / str(root)[1:] / name).stat() for name in ("tool", "sub/secret", "sub/there", "sub")}
    assert [(one.st_uid, one.st_mode & 0o7777) for one in found.values()] == [
        (0, 0o755), (0, 0o600), (4321, 0o644), (4321, 0o711),
    ]  # fmt: skip
    shell("restore", "latest", "--target", target).ok()
    assert (target / str(root)[1:] / "tool").stat().st_mode & 0o7777 == 0o6755
    assert there.parent.stat().st_uid == 1234
