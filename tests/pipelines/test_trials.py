"""A trial is a real backup, and nothing is left of it wherever its repository was."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from model.errors import Interrupted, UsageError
from pipelines.backup import BackupRequest
from pipelines.draw import Sample, draw
from pipelines.options import EngineOptions
from pipelines.trials import trial_ground

MIB = 1 << 20
INLINE = EngineOptions(executor="inline", lanes=1)


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(10):
        (folder / f"f{number}").write_bytes(os.urandom(50_000))
    return draw(os.fsencode(folder))


def test_nothing_is_left_in_a_folder(sample: Sample, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    before = dict(os.environ)
    with trial_ground(str(work)) as ground:
        trial = ground.run(sample, BackupRequest(sample.paths), INLINE)
        assert trial.read == trial.new == sample.size == 500_000
        assert trial.stored > trial.read and trial.trace.wall > 0, "random bytes do not get smaller"
    assert list(work.iterdir()) == [] and dict(os.environ) == before


def test_nothing_is_left_in_a_remote_store(sample: Sample) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    with trial_ground("memory://trials/here") as ground:
        assert ground.run(sample, BackupRequest(sample.paths), INLINE).read == sample.size
    assert list(MemoryFileSystem().find("/trials")) == []


def test_a_long_file_is_read_as_far_as_asked(tmp_path: Path) -> None:
    line = b"a line of a long file, %d of them\n"
    (tmp_path / "long").write_bytes(b"".join(line % number for number in range(900_000)))
    sample = draw(os.fsencode(tmp_path), 8 * MIB)
    assert sample.cut
    with trial_ground(None) as ground:
        trial = ground.run(sample, BackupRequest(sample.paths, level=12), INLINE)
    assert 8 * MIB <= trial.read < sum(path.stat().st_size for path in tmp_path.iterdir())
    assert 0 < trial.stored < trial.read / 2


def test_the_user_may_stop_it(sample: Sample, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with trial_ground(str(tmp_path), stop) as ground, pytest.raises(Interrupted):
        ground.run(sample, BackupRequest(sample.paths), INLINE)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"), trial_ground(str(tmp_path / "nowhere")):
        pass
