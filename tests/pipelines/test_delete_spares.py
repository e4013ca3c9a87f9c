"""restore --delete takes away only what the backup would have seen, had it been there."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

import kernels
from model.entries import Paths, Stats
from tests.pipelines.helpers import Place


def test_folders_nobody_could_look_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = tmp_path / "tree"
    (tree / "sick").mkdir(parents=True)
    (tree / "sick" / "precious").write_bytes(b"not in the backup")
    place = Place(tmp_path / "repository")
    scan = kernels.scan_directory

    def failing(fd: int, path: bytes, rows: int) -> tuple[Paths, Stats]:
        if path.endswith(b"sick"):
            raise OSError(errno.EIO, "for a moment")
        return scan(fd, path, rows)

    monkeypatch.setattr(kernels, "scan_directory", failing)
    report = place.backup(tree)
    assert report.snapshot is not None and len(report.problems) == 1
    (tree / "new").write_bytes(b"came later")
    place.restore(report.snapshot, Path("/"), delete=True, paths=(os.fsencode(tree)[1:],))
    assert (tree / "sick" / "precious").exists() and not (tree / "new").exists()


@pytest.mark.root
def test_other_file_systems(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "mounted").mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "none", tree / "mounted"], check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount: run in a privileged container")
    try:
        (tree / "mounted" / "data").write_bytes(b"not in the backup")
        place = Place(tmp_path / "repository")
        report = place.backup(tree, one_file_system=True)
        assert report.snapshot is not None
        (tree / "new").write_bytes(b"came later")
        place.restore(report.snapshot, Path("/"), delete=True, paths=(os.fsencode(tree)[1:],))
        assert (tree / "mounted" / "data").exists() and not (tree / "new").exists()
    finally:
        subprocess.run(["umount", tree / "mounted"], check=True)
