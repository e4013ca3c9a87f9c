"""A `lox` without a repository of its own, whose keys cost nothing to derive."""

from __future__ import annotations

from pathlib import Path

import pytest

from repository import slots
from repository.keys import KdfParams
from tests.lox.running import Shell


@pytest.fixture
def lox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    monkeypatch.setattr(slots, "KdfParams", lambda *cost: KdfParams(*(cost or (64, 1, 1))))
    return Shell(tmp_path / "none", monkeypatch, capfd)
