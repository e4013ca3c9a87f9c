"""Beginning a new epoch: what is stored from then on does not open with the keys that were known before.

The new key is sealed to the key slots that are there and are ours. Every step stands alone: until the document of the
epoch is in the store nothing has changed, from then on all is done. Then the slots and epochs are read once more; if
others changed them meanwhile, a further epoch follows.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from model.errors import NoKey, RepositoryError, UsageError
from repository.epoch_twins import complete_twins
from repository.epochs import EPOCHS_FOLDER, EpochDocument, EpochsFound, read_epochs
from repository.keyring import EPOCHS_MAX, KeyRing
from repository.slots import KeySlot, Unlocked, read_slots
from repository.store import Store

TRIES = 8


@dataclass(frozen=True, slots=True)
class Rotation:
    """A new epoch: `slots` open it, `strange` were not made by somebody who could open the repository, or were left
    out by an epoch that this one follows on."""

    before: int
    epoch: int
    slots: tuple[KeySlot, ...]
    strange: tuple[KeySlot, ...]


def trusted_slots(
    slots: Sequence[KeySlot], ring: KeyRing, newest: Sequence[EpochDocument]
) -> tuple[tuple[KeySlot, ...], tuple[KeySlot, ...]]:
    """The slots that an epoch after `newest` is sealed to, and the others.

    Old keys are worth nothing here: a slot counts if it was made in the newest epoch, or if that epoch was sealed to
    it. Where several epochs do not know of each other it must count in each of them.
    """
    known = {epoch.name: epoch for epoch in ring.epochs}

    def made_in(slot: KeySlot, name: str) -> bool:
        return name in known and slot.made_in(known[name])

    def counts(slot: KeySlot) -> bool:
        if not newest:
            return made_in(slot, ring.epochs[0].name)
        return all(
            made_in(slot, document.name.removeprefix(EPOCHS_FOLDER))
            or (
                made_in(slot, slot.epoch)
                and any((one.slot, one.public) == (slot.id, slot.public) for one in document.recipients)
            )
            for document in newest
        )

    trusted = tuple(slot for slot in slots if counts(slot))
    return trusted, tuple(slot for slot in slots if slot not in trusted)


def rotate(
    store: Store, repo_id: bytes, unlocked: Unlocked, writers: Callable[[], Iterable[bytes]] = tuple
) -> Rotation:
    """Begin a new epoch that all key slots which are there open, and no key that was known before.

    It is announced to the write-only machines whose ids `writers` gives.

    Raises NoKey if an epoch does not open with the slot at hand, UsageError if there can be no more epochs, StoreError.
    """
    found = _read(store, repo_id, unlocked)
    before, begun = found.ring.epoch, False
    for turn in range(TRIES):
        listing = read_slots(store, repo_id)
        if listing.problems:
            raise listing.problems[0]
        slots, strange = trusted_slots(listing.slots, found.ring, found.newest)
        if begun and _settled(found, slots):
            complete_twins(store, repo_id)
            return Rotation(before, found.ring.epoch, slots, strange)
        if unlocked.slot not in slots:
            raise NoKey("the key at hand is not one of the repository's any more", subject=unlocked.slot.name)
        if len(found.ring.epochs) >= EPOCHS_MAX:
            raise UsageError("the repository has as many epochs as it can", subject=str(EPOCHS_MAX))
        document, _ = EpochDocument.make(found.ring, slots, time.time_ns(), writers())
        document.store(store)
        begun, found = True, _read(store, repo_id, unlocked)
        if len(found.newest) > 1:  # somebody does the same at the same time: one of us waits long enough for the other
            time.sleep(secrets.randbelow(100 << turn) / 1000)
            found = _read(store, repo_id, unlocked)
    raise RepositoryError("others change the keys all the time", hint="run lox key rotate again when they are done")


def _settled(found: EpochsFound, slots: Sequence[KeySlot]) -> bool:
    """Whether one epoch follows on all others, and opens with exactly these slots."""
    if len(found.newest) != 1:
        return False
    (newest,) = found.newest
    made = {slot.id for slot in slots if slot.epoch == newest.name.removeprefix(EPOCHS_FOLDER)}
    sealed = {one.slot for one in newest.recipients}
    return sealed <= {slot.id for slot in slots} and {slot.id for slot in slots} <= sealed | made


def _read(store: Store, repo_id: bytes, unlocked: Unlocked) -> EpochsFound:
    found = read_epochs(store, repo_id, unlocked)
    if found.problems:
        problem = found.problems[0]
        hint = f"try another key; if none opens it, somebody put it there: delete the object {problem.subject}"
        raise NoKey("cannot follow on an epoch that does not open", why=str(problem), hint=hint)
    return found
