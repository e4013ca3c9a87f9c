"""A host that was there before notices what a store cannot show to it any more, and what it shows instead."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from model.errors import NoKey, WrongPassword
from repository.epochs import EPOCHS_FOLDER
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.seen import check_seen, remember, seen_path
from repository.store import LocalStore
from tests.repository.samples import back_up, content_of, new_repository


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = new_repository(store=LocalStore(str(tmp_path / "repository")))
    check_seen(repository, tmp_path / "cache")
    return repository


def move_in(tmp_path: Path, encrypted: bool) -> Repository:
    """Another repository in the place of the first."""
    (tmp_path / "repository").rename(tmp_path / "elsewhere")
    return new_repository(encrypted, LocalStore(str(tmp_path / "repository")))


def test_the_same_repository_goes_on(repository: Repository, tmp_path: Path) -> None:
    path = seen_path(repository, tmp_path / "cache")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes()
    check_seen(Repository.open(repository.store, "secret"), tmp_path / "cache")
    assert path.read_bytes() == before
    repository.rotate()
    check_seen(Repository.open(repository.store, "secret"), tmp_path / "cache")
    assert path.read_bytes() != before


@pytest.mark.parametrize("encrypted", [False, True])
def test_another_one_in_its_place_is_refused_until_the_user_says_otherwise(
    repository: Repository, tmp_path: Path, encrypted: bool
) -> None:
    other = move_in(tmp_path, encrypted)
    path = seen_path(repository, tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(WrongPassword) as caught:
            check_seen(other, tmp_path / "cache")
        assert str(path) in caught.value.hint
    path.unlink()
    check_seen(other, tmp_path / "cache")


def test_who_creates_a_repository_means_it(repository: Repository, tmp_path: Path) -> None:
    other = move_in(tmp_path, False)
    remember(other, tmp_path / "cache")
    check_seen(other, tmp_path / "cache")


def test_an_epoch_that_is_hidden_stops_writing_until_it_shows_again(repository: Repository, tmp_path: Path) -> None:
    snapshot = back_up(repository, {b"data": None, b"data/file": b"before"})
    repository.rotate()
    check_seen(repository, tmp_path / "cache")
    epochs = tmp_path / "repository" / EPOCHS_FOLDER
    epochs.rename(tmp_path / "hidden")
    rolled_back = Repository.open(repository.store, "secret")
    assert rolled_back.keys.epoch == 0
    check_seen(rolled_back, tmp_path / "cache")
    assert content_of(rolled_back, snapshot, b"data/file") == b"before"
    with pytest.raises(NoKey, match="does not show"):
        rolled_back.put_object(ObjectKind.INDEX, "index/00", b"")
    (tmp_path / "hidden").rename(epochs)
    rolled_back.put_object(ObjectKind.INDEX, "index/00", b"")
    assert rolled_back.keys.epoch == 1


def test_without_a_place_for_it_nothing_is_remembered_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"")
    check_seen(new_repository(), tmp_path / "cache")


def test_a_damaged_memory_is_the_first_time(repository: Repository, tmp_path: Path) -> None:
    path = seen_path(repository, tmp_path / "cache")
    for damage in (b"", b"{}", b"[" * 70_000):
        path.write_bytes(damage)
        check_seen(repository, tmp_path / "cache")
        assert path.read_bytes() != damage


def test_a_write_only_machine_does_not_go_back_to_an_older_epoch_either(repository: Repository, tmp_path: Path) -> None:
    text = repository.issue_writer("web").encode()
    repository.rotate()
    check_seen(Repository.open(repository.store, text), tmp_path / "cache")
    (tmp_path / "repository" / EPOCHS_FOLDER).rename(tmp_path / "hidden")
    web = Repository.open(repository.store, text)
    check_seen(web, tmp_path / "cache")
    assert web.keys.epoch == 0
    with pytest.raises(NoKey, match="does not show"):
        back_up(web, {b"data": None, b"data/file": b"content"})
    (tmp_path / "hidden").rename(tmp_path / "repository" / EPOCHS_FOLDER)
    again = Repository.open(repository.store, text)
    check_seen(again, tmp_path / "cache")
    back_up(again, {b"data": None, b"data/file": b"content"})
