"""What was promised to whoever did something to a repository, as questions that a repository answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model.errors import WrongPassword
from repository.annotations import Annotation, load_annotations
from repository.repository import Repository
from repository.snapshot import load_all
from repository.store import Store
from repository.trash import load_trash


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that holds of every state of the log from operation `begin` up to `end` (None: for ever)."""

    what: str
    holds: Callable[[Repository], bool]
    begin: int
    end: int | None = None


def notes_of(repository: Repository, snapshot_id: str) -> Annotation:
    """What the notes of a snapshot say, wherever the snapshot is: in its place, in the trash, or on its way."""
    everywhere = [*load_all(repository), *(trashed.snapshot for trashed in load_trash(repository))]
    snapshot = next(one for one in everywhere if one.id == snapshot_id)
    return load_annotations(repository, snapshot_id).of(snapshot)


def either(repository: Repository, *secrets: str) -> bool:
    """Whether one of these opens the store."""
    return any(opens(repository.store, secret) for secret in secrets)


def opens(store: Store, secret: str) -> bool:
    """Whether `secret` opens the repository in `store`."""
    try:
        Repository.open(store, secret)
    except WrongPassword:
        return False
    return True
