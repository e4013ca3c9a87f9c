"""The two places of each epoch's document: is it in both, and how the one is made good from the other.

They are the one thing whose loss costs an epoch. Losing one of the two costs nothing yet, so that is the time to mend.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from model.errors import Damaged, Exists, LoxError, Missing, NewerFormat
from repository.epochs import COPY, EPOCH_MAX, EPOCHS_FOLDER, EpochDocument, list_epochs
from repository.store import Store

HINT = "lox repair --apply writes it anew from its twin"


class _NotThere(Damaged):
    """A document that is not in its place."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A document that is damaged or missing in one place, `name`, and sound in the other, `sound`."""

    name: str
    sound: str
    trouble: LoxError


def check_epochs(store: Store) -> tuple[list[LoxError], list[LoxError]]:
    """What is wrong with documents of epochs, in either place, as far as it can be told without a key; and the ones
    that are missing beside a sound one: so a rotation leaves them that was interrupted, and the next one writes them.

    Raises StoreError, Damaged if there are too many.
    """
    problems: list[LoxError] = []
    alone: list[LoxError] = []
    for name in list_epochs(store):
        examined = _examined(store, name)
        for trouble in filter(None, examined.values()):
            missing = isinstance(trouble, _NotThere) and None in examined.values()
            (alone if missing else problems).append(trouble)
    return problems, alone


def bad_twins(store: Store, repo_id: bytes) -> list[Twin]:
    """Documents that can be made good. Raises StoreError, NewerFormat: what is newer than we are is none of them."""
    twins: list[Twin] = []
    for name in list_epochs(store):
        examined = _examined(store, name)
        sound = [place for place, trouble in examined.items() if trouble is None]
        for place, trouble in examined.items():
            if isinstance(trouble, NewerFormat):
                raise trouble
            if trouble is not None and sound and _load(store, sound[0]).repo_id == repo_id:
                twins.append(Twin(place, sound[0], trouble))
    return twins


def mend_twin(store: Store, twin: Twin, quarantine: str) -> None:
    """Write the document anew from the sound place; what was there before goes below `quarantine`.

    Interrupted anywhere, the sound place has it. Raises StoreError, Damaged if the other place is not sound any more.
    """
    data = _load(store, twin.sound).encode()
    try:
        bad = store.get(twin.name, 0, EPOCH_MAX + 1)
    except Missing:
        with suppress(Exists):  # the rotation that had not come to it, or another
            store.put(twin.name, [data])
        return
    if bad == data:  # it was read wrong before
        return
    aside = f"{quarantine}{twin.name}"
    try:
        store.put(aside, [bad])
    except Exists:
        store.put(f"{aside}-{os.urandom(4).hex()}", [bad])
    store.delete(twin.name)
    store.put(twin.name, [data])


def complete_twins(store: Store, repo_id: bytes) -> None:
    """Store documents anew that are in one of their places only: a rotation was interrupted. Raises as `bad_twins`."""
    for twin in bad_twins(store, repo_id):
        if not store.exists(twin.name):
            mend_twin(store, twin, "")


def _examined(store: Store, name: str) -> dict[str, LoxError | None]:
    """What is wrong in each of the two places of an epoch."""
    places = (EPOCHS_FOLDER + name, EPOCHS_FOLDER + name + COPY)
    found = {place: _trouble(store, place) for place in places}
    if None in found.values():  # a rotation under way puts one after the other: what was missing may have come
        found = {place: trouble and _trouble(store, place) for place, trouble in found.items()}
    hint = HINT if None in found.values() else "bring it back from a mirror"
    for trouble in found.values():
        if trouble is not None:
            trouble.hint = hint
    return found


def _trouble(store: Store, place: str) -> LoxError | None:
    try:
        _load(store, place)
    except Missing:
        return _NotThere("one of the two documents of an epoch is missing", subject=place)
    except (Damaged, NewerFormat) as error:
        return type(error)(error.what, subject=place, why=error.why)
    return None


def _load(store: Store, place: str) -> EpochDocument:
    name = place.removeprefix(EPOCHS_FOLDER).removesuffix(COPY)
    return EpochDocument.decode(name, store.get(place, 0, EPOCH_MAX + 1))
