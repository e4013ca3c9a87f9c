"""What several lanes cost more than one is measured in real backups; small samples tell nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.backup import BackupRequest
from pipelines.crowding import TIMES_MAX, compare
from pipelines.draw import MIB, make_up
from pipelines.rates import Crowding
from pipelines.trials import trial_ground


@pytest.mark.parametrize("size", [MIB // 4, pytest.param(17 * MIB, marks=pytest.mark.slow)])
def test_costs_are_of_a_size_that_can_be(tmp_path: Path, size: int) -> None:
    """Whatever else the machine does: nobody is told that a byte takes a second."""
    (tmp_path / "files").mkdir()
    sample = make_up(str(tmp_path / "files"), size)
    with trial_ground(str(tmp_path)) as ground:
        found = compare(ground, sample, BackupRequest(sample.paths, mode="full"))
    assert 1.0 <= found.crowding.one <= found.crowding.several <= TIMES_MAX
    assert 0.0 <= found.fetching < 1e-6 and 0.0 <= found.waiting < 1e-3 and 0.0 <= found.crowding.queueing < 1e-3
    assert size > MIB or (found.crowding, found.fetching) == (Crowding(), 0.0)
    assert [path.name for path in tmp_path.iterdir()] == ["files"], "nothing is left"
