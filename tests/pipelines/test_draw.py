"""A sample is bounded, drawn from all over the source, and drawing it leaves no trace there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.errors import UsageError
from pipelines.draw import Pages, draw

KIB = 1 << 10


def tree(root: Path, folders: int, files: int, size: int) -> bytes:
    for folder in range(folders):
        place = root / f"d{folder:03d}" / "deep"
        place.mkdir(parents=True)
        for file in range(files):
            (place / f"f{file}").write_bytes(bytes([folder % 251]) * size)
    return os.fsencode(root)


def test_a_small_source_is_taken_as_a_whole(tmp_path: Path) -> None:
    source = tree(tmp_path, 3, 4, 1000)
    sample = draw(source, 1 << 20)
    assert (sample.paths, sample.whole, sample.files, sample.size) == ((source,), True, 12, 12_000)


def test_of_a_large_source_some_folders_from_all_over_it(tmp_path: Path) -> None:
    source = tree(tmp_path, 100, 10, KIB)
    sample = draw(source, 200 * KIB)
    assert 150 * KIB < sample.size <= 200 * KIB and not sample.whole
    numbers = sorted(int(Path(os.fsdecode(path)).relative_to(tmp_path).parts[0][1:]) for path in sample.paths)
    assert numbers[0] < 30 and numbers[-1] > 70


def test_files_are_bounded_as_well(tmp_path: Path) -> None:
    sample = draw(tree(tmp_path, 20, 10, 10), 1 << 20, files=55)
    assert 30 <= sample.files <= 55


def test_one_long_file_is_cut(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    (tmp_path / "note").write_bytes(b"x")
    sample = draw(os.fsencode(tmp_path), 100 * KIB)
    assert sample.cut and sample.size == 100 * KIB and sample.paths == (os.fsencode(tmp_path / "image"),)


def test_nothing_to_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="nothing to read"):
        draw(os.fsencode(tmp_path))


def test_access_times_stay(tmp_path: Path) -> None:
    source = tree(tmp_path, 2, 2, 10)
    paths = [tmp_path, *tmp_path.rglob("*")]
    for path in paths:
        os.utime(path, ns=(10**18, os.lstat(path).st_mtime_ns))  # long ago: whoever reads without care moves it
    before = {path: os.lstat(path).st_atime_ns for path in paths}
    sample = draw(source, 25)  # which has to look into everything
    Pages(sample).forget()
    assert {path: os.lstat(path).st_atime_ns for path in paths} == before
