"""Private directories and secrets."""

from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path

import pytest

from model.errors import PlanError, RunFailed, UsageError
from runtime import private
from runtime.executors import choose
from runtime.private import Secret, private_directory


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(private, "_base", lambda: str(tmp_path))
    return tmp_path


def test_a_private_directory_is_private_and_goes_away(base: Path) -> None:
    with private_directory() as directory:
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        (Path(directory) / "file").write_text("x")
    assert list(base.iterdir()) == []


def test_what_dead_processes_left_is_removed(base: Path) -> None:
    for name in ("lox-4194304-dead", f"lox-{os.getpid()}-mine", "lox-1-somebodys", "lox-other", "unrelated"):
        (base / name).mkdir()
        (base / name / "file").write_text("x")
    (base / "lox-4194303-link").symlink_to(base / "unrelated")
    with private_directory():
        pass
    left = {path.name for path in base.iterdir()}
    assert left == {f"lox-{os.getpid()}-mine", "lox-1-somebodys", "lox-other", "unrelated", "lox-4194303-link"}
    assert (base / "unrelated" / "file").exists()


def test_the_usual_place_is_short_enough_for_sockets() -> None:
    with private_directory() as directory:
        assert len(os.fsencode(directory)) <= private.PATH_MAX


def test_directories_that_others_can_change_are_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    assert not private._is_trustworthy(str(open_to_all))
    open_to_all.chmod(0o1777)
    assert private._is_trustworthy(str(open_to_all))
    monkeypatch.setattr(private, "FREE_MIN", 1 << 60)
    with pytest.raises(RunFailed, match="no place"):
        private._base()


def test_a_secret_pickles_as_a_path(tmp_path: Path) -> None:
    secret = Secret(b"xyzzy")
    with pytest.raises(AssertionError):
        pickle.dumps(secret)
    data = pickle.dumps(secret.store(str(tmp_path)))
    assert b"xyzzy" not in data
    assert "xyzzy" not in repr(secret)
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert pickle.loads(data).value == b"xyzzy"


def test_auto_is_threads_and_says_why() -> None:
    name, reason = choose("auto")
    assert name == "threads"
    assert "one host" in reason


def test_unknown_executors_are_refused() -> None:
    with pytest.raises(UsageError, match="gpu") as caught:
        choose("gpu")
    assert "threads" in caught.value.hint


def test_ray_is_asked_for_but_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PlanError, match="needs Ray"):
        choose("ray")
