"""What ``lox key`` shows: slots, epochs, rotations."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lox.escape import safe
from lox.output import Output, table
from lox.private_files import KEY_FILE_NOTE, private_file, write_key
from lox.units import format_time, rfc3339
from model.errors import Damaged, LoxError, NewerFormat
from model.exits import ExitCode
from repository.epochs import EpochDocument, list_epochs, load_epoch
from repository.key_file import KeyFile
from repository.rotation import trusted_slots
from repository.writers import find_writer, load_writers

if TYPE_CHECKING:
    from repository.repository import Repository
    from repository.slots import KeySlot

ID_SHOWN = 8


def show_keys(output: Output, repository: Repository) -> list[LoxError]:
    """Key slots and later epochs of an encrypted repository; what is wrong with them."""
    listing, found = repository.list_keys(), repository.read_epochs()
    trusted, _ = trusted_slots(listing.slots, found.ring, found.newest)
    current = repository.slot.id if repository.slot is not None else None
    output.events("key", [_slot_row(slot, slot.id == current, slot in trusted) for slot in listing.slots])
    texts = []
    for slot in listing.slots:
        mark = "*" if slot.id == current else "" if slot in trusted else "?"
        texts.append((mark, slot.id[:ID_SHOWN], slot.kind.value, format_time(slot.created), safe(slot.label)))
    output.lines(table(("", "KEY", "KIND", "CREATED", "LABEL"), texts))
    problems = [*listing.problems, *found.problems]
    documents = _documents(repository, problems)
    if documents:
        _show_epochs(output, documents, found.ring.epoch, {slot.id: slot for slot in listing.slots})
    _show_writers(output, repository, problems)
    if found.ring.doubt and not found.problems:
        problems.append(Damaged("it is in doubt which keys are the newest", why=found.ring.doubt))
    return problems


def _slot_row(slot: KeySlot, current: bool, trusted: bool) -> dict[str, object]:
    return {
        "id": slot.id,
        "kind": slot.kind.value,
        "label": slot.label,
        "created": rfc3339(slot.created),
        "current": current,
        "trusted": trusted,
    }


def _documents(repository: Repository, problems: list[LoxError]) -> list[EpochDocument]:
    told = {problem.subject for problem in problems}
    documents = []
    for name in list_epochs(repository.store):
        try:
            documents.append(load_epoch(repository.store, name, repository.id))
        except (Damaged, NewerFormat) as problem:
            if problem.subject not in told:
                problems.append(problem)
    return documents


def _show_epochs(output: Output, documents: Iterable[EpochDocument], newest: int, slots: dict[str, KeySlot]) -> None:
    texts = []
    for document in documents:
        recipients = [one.slot for one in document.recipients]
        output.event(
            "epoch",
            number=document.number,
            id=document.id.hex(),
            began=rfc3339(document.created),
            newest=document.number == newest,
            keys=recipients,
        )
        removed = sum(slot not in slots for slot in recipients)
        sealed = f"{len(recipients)} keys" + (f", {removed} of them removed since" if removed else "")
        mark = "*" if document.number == newest else ""
        texts.append((mark, str(document.number), format_time(document.created), sealed))
    output.line()
    output.lines(table(("", "EPOCH", "BEGAN", "SEALED TO"), texts))


def _show_writers(output: Output, repository: Repository, problems: list[LoxError]) -> None:
    writers = load_writers(repository, problems.append)
    texts = []
    for writer in writers:
        revoked = None if writer.revoked is None else rfc3339(writer.revoked)
        output.event("writer", id=writer.id.hex(), label=writer.label, created=rfc3339(writer.created), revoked=revoked)
        state = "writes" if writer.revoked is None else f"removed {format_time(writer.revoked)}"
        texts.append((writer.id.hex()[:ID_SHOWN], format_time(writer.created), state, safe(writer.label)))
    if writers:
        output.line()
        output.lines(table(("WRITE-ONLY", "ISSUED", "STATE", "LABEL"), texts))


def add_key_file(output: Output, repository: Repository, label: str, path: Path) -> None:
    """Writes a new key into a new private file and adds its slot. Raises UsageError, NoKey, StoreError."""
    with private_file(path) as file:
        assert file is not None
        key = KeyFile.make(repository.id, label)
        write_key(file, key.encode())
        slot = repository.add_key_file(key)
    where = str(path.absolute())
    output.event("summary", action="added", id=slot.id, label=slot.label, file=where, exit_code=0)
    output.line(f"wrote {safe(str(path))} with key {slot.id[:ID_SHOWN]}")
    output.note(KEY_FILE_NOTE)


def issue_key(output: Output, repository: Repository, label: str, path: Path) -> None:
    """Writes a new write-only key into a new private file. Raises UsageError, NoKey, StoreError."""
    with private_file(path) as file:
        assert file is not None
        key = repository.issue_writer(label)
        write_key(file, key.encode())
    output.event("summary", action="issued", id=key.keys.id.hex(), label=label, file=str(path.absolute()), exit_code=0)
    output.line(f"wrote {safe(str(path))} with write-only key {key.keys.id.hex()[:ID_SHOWN]}")
    output.note("Move it to the machine it is for, and name it there with LOX_PASSWORD_FILE.")


def remove(output: Output, repository: Repository, prefix: str) -> None:
    """Removes a key slot or a write-only key. Raises NotFound, UsageError, StoreError."""
    writers = repository.list_writers() if repository.encrypted else []
    if (writer := find_writer(writers, prefix)) is not None:
        count = repository.revoke_writer(writer)
        output.event("summary", action="removed", id=writer.id.hex(), label=writer.label, objects=count, exit_code=0)
        output.line(f"removed write-only key {writer.id.hex()[:ID_SHOWN]}: what it stores from now on does not count")
        output.note(f"{count} objects that it stored before still do: look whether its last snapshots are genuine.")
        return
    slot = repository.remove_key(prefix)
    output.event("summary", action="removed", id=slot.id, label=slot.label, exit_code=0)
    output.line(f"removed key {slot.id[:ID_SHOWN]}")
    output.note(
        "Whoever knew it and kept a copy of its slot can still open the repository. 'lox key rotate' keeps new\n"
        "backups from them, 'lox prune --reencrypt' afterwards the old ones."
    )


def show_rotation(output: Output, repository: Repository, dry_run: bool) -> None:
    """Begins a new epoch, or tells what it would be. Raises as `Repository.rotate`, UsageError without encryption."""
    if dry_run:
        listing, found = repository.list_keys(), repository.read_epochs()
        slots, strange = trusted_slots(listing.slots, found.ring, found.newest)
        before, epoch = found.ring.epoch, found.ring.epoch + 1
    else:
        rotation = repository.rotate()
        before, epoch, slots, strange = rotation.before, rotation.epoch, rotation.slots, rotation.strange
    output.event(
        "summary",
        action="rotated",
        dry_run=dry_run,
        epoch=epoch,
        before=before,
        keys=[slot.id for slot in slots],
        left_out=[slot.id for slot in strange],
        exit_code=0,
    )
    verb = "would begin" if dry_run else "began"
    output.line(f"{verb} epoch {epoch}: what is stored from now on opens with these keys and no others")
    output.lines(_names(slots))
    if strange:
        output.note("Left out, because nobody with the newest keys made them ('lox key remove' removes them):")
        for line in _names(strange):
            output.note(line)
    output.note(
        f"Whoever had a key before can still read what was stored up to epoch {before}, until it is stored anew:\n"
        "lox prune --reencrypt"
    )


def _names(slots: Iterable[KeySlot]) -> list[str]:
    return [f"  {slot.id[:ID_SHOWN]}  {slot.kind.value}  {safe(slot.label)}".rstrip() for slot in slots]


def show_test(output: Output, repository: Repository) -> int:
    """What the key at hand opens; the exit code. Raises UsageError without encryption, StoreError."""
    if repository.write_only:
        output.event("summary", action="tested", repository=repository.id.hex(), id=repository.writer, exit_code=0)
        output.line(f"write-only key {repository.writer[:ID_SHOWN]} stores backups in {repository.id.hex()[:8]}")
        return ExitCode.OK
    found = repository.read_epochs()
    slot = repository.slot
    assert slot is not None
    trusted, _ = trusted_slots(repository.list_keys().slots, found.ring, found.newest)
    code = ExitCode.DAMAGE_FOUND if found.ring.doubt or slot not in trusted else ExitCode.OK
    output.event(
        "summary",
        action="tested",
        repository=repository.id.hex(),
        id=slot.id,
        kind=slot.kind.value,
        label=slot.label,
        epochs=[epoch.number for epoch in found.ring.epochs],
        doubt=safe(found.ring.doubt),
        trusted=slot in trusted,
        exit_code=code,
    )
    count = len(found.ring.epochs)
    what = "its only epoch" if count == 1 else f"{count} epochs"
    label = f" ({safe(slot.label)})" if slot.label else ""
    output.line(f"{slot.kind.value} key {slot.id[:ID_SHOWN]}{label} opens repository {repository.id.hex()[:8]}, {what}")
    if found.ring.doubt:
        output.note(f"lox: not all of it: {safe(found.ring.doubt)}")
        output.note("lox: 'lox key list' with another key tells more; if this one was left out, add it again")
    elif slot not in trusted:
        output.note("lox: the next epoch will not be sealed to this key: add it again with 'lox key add'")
    return code
