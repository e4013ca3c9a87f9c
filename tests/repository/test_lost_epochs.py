"""Documents of epochs that are lost or damaged: noticed before anything is written, and mended from their twins."""

from __future__ import annotations

import pytest

from model.errors import Damaged, LoxError, NoKey
from repository.check import check
from repository.epochs import COPY, EPOCHS_FOLDER, list_epochs
from repository.repair import QUARANTINE, repair
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.snapshot import load_all
from repository.store import MemoryStore, Store
from repository.store.wrappers import Fault, FaultyStore
from tests.repository.samples import CHEAP, back_up, new_repository

TREE = {b"data": None, b"data/file": b"content" * 50}


@pytest.fixture
def repository() -> Repository:
    return new_repository()


def lose_epochs(store: Store) -> dict[str, bytes]:
    """All documents of epochs; they are in the store no more."""
    lost = {name: store.get(name) for name, _ in list(store.list(EPOCHS_FOLDER))}
    for name in lost:
        store.delete(name)
    return lost


def damage(store: Store, name: str) -> None:
    data = bytearray(store.get(name))
    data[40] ^= 1
    store.delete(name)
    store.put(name, [bytes(data)])


def test_a_key_made_in_an_epoch_that_has_no_document_tells(repository: Repository) -> None:
    """A host that has never been here: what it knows is what the store shows."""
    store = repository.store
    repository.rotate()
    added = repository.add_password("second", kdf=CHEAP)
    lost = lose_epochs(store)
    fresh = Repository.open(store, "secret")
    assert fresh.keys.epoch == 0
    with pytest.raises(NoKey) as caught:
        fresh.put_object(ObjectKind.MARK, "notes/x", b"x")
    assert added.id[:8] in str(caught.value)
    with pytest.raises(NoKey):
        fresh.rotate()
    assert any(added.id[:8] in finding.what for finding in check(fresh).findings)
    for name, data in lost.items():
        store.put(name, [data])
    fresh.put_object(ObjectKind.MARK, "notes/x", b"x"), "as soon as it is back"


def test_if_it_is_lost_for_good_the_key_goes_and_work_goes_on(repository: Repository) -> None:
    store = repository.store
    repository.rotate()
    added = repository.add_password("second", kdf=CHEAP)
    lose_epochs(store)
    Repository.open(store, "secret").remove_key(added.id)
    back_up(Repository.open(store, "secret"), TREE)


@pytest.mark.parametrize("what", ["index", "snapshots"])
def test_an_object_of_an_epoch_that_has_no_document_tells(repository: Repository, what: str) -> None:
    """No key was made since: what was stored in the epoch shows that there was one."""
    store = repository.store
    repository.rotate()
    back_up(repository, TREE)
    lose_epochs(store)
    fresh = Repository.open(store, "secret")
    (name,) = [name for name, _ in store.list(f"{what}/")]
    with pytest.raises(Damaged, match="never was"):
        fresh.get_object(ObjectKind.INDEX if what == "index" else ObjectKind.SNAPSHOT, name)
    with pytest.raises(NoKey, match="epoch 1 was seen"):
        fresh.put_object(ObjectKind.MARK, "notes/x", b"x")


@pytest.mark.parametrize("place", ["", COPY])
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_one_of_the_two_is_found_and_mended_from_the_other(repository: Repository, place: str, how: str) -> None:
    store = repository.store
    repository.rotate()
    back_up(repository, TREE)
    (epoch,) = list_epochs(store)
    name = EPOCHS_FOLDER + epoch + place
    before = store.get(name)
    if how == "damaged":
        damage(store, name)
    else:
        store.delete(name)
    fresh = Repository.open(store, "secret")
    report = check(fresh)
    if how == "damaged":
        assert [finding.subject for finding in report.findings] == [name]
    else:  # as an interrupted rotation leaves it: nothing is lost
        assert report.findings == [] and len(report.notes) == 1 and name in report.notes[0]
    plan = repair(fresh)
    assert [twin.name for twin in plan.twins] == [name] and not plan.nothing_to_do
    assert repair(fresh, apply=True).applied
    assert store.get(name) == before
    assert store.exists(QUARANTINE + name) == (how == "damaged")
    mended = check(fresh)
    assert mended.findings == [] and mended.notes == [] and repair(fresh).nothing_to_do


def test_mending_is_interrupted_anywhere(repository: Repository) -> None:
    repository.rotate()
    back_up(repository, TREE)
    (epoch,) = list_epochs(repository.store)
    name = EPOCHS_FOLDER + epoch
    places = 0
    for verb in ("put", "delete"):
        for late in (False, True):
            for prefix in (name, QUARANTINE):
                store = MemoryStore()
                for each, _ in repository.store.list():
                    store.put(each, [repository.store.get(each)])
                damage(store, name)
                fault = Fault(verb, prefix, LoxError("cut off"), late=late, times=1)
                mending = Repository.open(FaultyStore(store, [fault]), "secret")
                try:
                    repair(mending, apply=True)
                except LoxError:
                    places += 1
                assert len(load_all(Repository.open(store, "secret"))) == 1
                repair(Repository.open(store, "secret"), apply=True)
                assert check(Repository.open(store, "secret")).findings == []
    assert places >= 5


def test_both_lost_is_told_and_not_mended(repository: Repository) -> None:
    repository.rotate()
    (epoch,) = list_epochs(repository.store)
    for place in ("", COPY):
        damage(repository.store, EPOCHS_FOLDER + epoch + place)
    fresh = Repository.open(repository.store, "secret")
    findings = check(fresh).findings
    assert {EPOCHS_FOLDER + epoch, EPOCHS_FOLDER + epoch + COPY} <= {finding.subject for finding in findings}
    assert repair(fresh).twins == []
