"""A shell with a repository for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from repository.repository import Repository
from tests.lox.running import PASSWORD, Shell


@pytest.fixture(autouse=True)
def _cheap_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key derivation that costs nothing; what it costs in earnest is the business of the repository's tests."""
    from repository import slots
    from repository.keys import KdfParams

    monkeypatch.setattr(slots, "KdfParams", lambda *cost: KdfParams(*(cost or (64, 1, 1))))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    """A shell whose repository does not exist yet."""
    return Shell(tmp_path / "repository", monkeypatch, capfd)


@pytest.fixture
def shell(empty: Shell) -> Shell:
    """A shell with a repository."""
    from repository.store import LocalStore

    Repository.init(LocalStore(str(empty.repository)), PASSWORD)
    return empty
