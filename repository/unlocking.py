"""Finding the key slot that a secret opens."""

from __future__ import annotations

from dataclasses import replace

from model.errors import Damaged, LoxError, WrongPassword
from repository.key_file import KeyFile
from repository.keys import parse_recovery_code
from repository.rereads import Rereads
from repository.slots import FOLDER, KeySlot, Secret, SlotKind, SlotListing, Unlocked, kind_of, read_slots
from repository.store import Store

_CALLED = {SlotKind.PASSWORD: "password", SlotKind.RECOVERY: "recovery code", SlotKind.KEY_FILE: "key file"}


def unlock(store: Store, repo_id: bytes, text: str, rereads: Rereads | None = None) -> Unlocked:
    """What the slot gives that a password, recovery code or key file opens, as it was typed or stands in a file.

    Raises WrongPassword if readable slots exist and none opens, Damaged or NewerFormat if that may be because a slot
    could not be read and there is no other; ConfigError or NewerFormat for a key file that is not whole or not known.
    """
    secret = _secret_in(text)
    if isinstance(secret, KeyFile) and secret.repo_id != repo_id:
        why = f"it opens {secret.repo_id.hex()[:8]}, this is {repo_id.hex()[:8]}"
        raise WrongPassword("the key file is of another repository", subject=store.url, why=why)
    listing, kind = read_slots(store, repo_id, rereads), kind_of(secret)
    # The cheapest first: a slot that somebody put there to cost hours is tried only where no other opens.
    candidates = sorted((slot for slot in listing.slots if slot.kind is kind), key=lambda slot: slot.cost)
    tampered: list[LoxError] = []
    for slot in candidates:
        try:
            unlocked = slot.open(secret)
        except Damaged as problem:
            tampered.append(problem)
            continue
        if unlocked is not None:
            return replace(unlocked, slots=listing.slots)
    raise _refusal(listing, kind, candidates, tampered)


def _secret_in(text: str) -> Secret:
    key = KeyFile.parse(text)
    if key is not None:
        return key
    code = parse_recovery_code(text)
    return text if code is None else code


def _refusal(listing: SlotListing, kind: SlotKind, candidates: list[KeySlot], tampered: list[LoxError]) -> LoxError:
    problems = [*tampered, *listing.problems]
    if problems and (tampered or not candidates):
        return problems[0]
    if not listing.slots:
        return Damaged("the repository has no key slot", subject=FOLDER, hint="restore the folder keys/ from a copy")
    why = f"{listing.foreign} more could not be read: they are of another repository" if listing.foreign else ""
    if problems:
        why = f"{len(problems)} more could not be read, the first: {problems[0]}"
    hint = "lox also takes the recovery code printed by lox init as password"
    if kind is SlotKind.KEY_FILE:
        why, hint = why or "it was removed, or the file was changed", "lox key list, with another key, shows those left"
    return WrongPassword(f"no key slot opens with this {_CALLED[kind]}", why=why, hint=hint)
