"""``lox key list|add|remove|passwd``: the passwords that open a repository."""

from __future__ import annotations

import click

from lox import passwords
from lox.escape import safe
from lox.opening import open_repository
from lox.output import output_of, table
from lox.settings import Group, option
from lox.units import format_time, rfc3339
from model.exits import ExitCode

ID_SHOWN = 8


@click.group("key", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """List, add, remove and change passwords.

    Every password, and the recovery code, opens a key slot of its own; any one of them opens the repository. New
    passwords are asked for, or taken from LOX_NEW_PASSWORD_FILE, LOX_NEW_PASSWORD_COMMAND or LOX_NEW_PASSWORD.
    """


@command.command("list")
@click.pass_context
def list_keys(ctx: click.Context, /) -> int:
    """List the key slots."""
    repository = open_repository(ctx)
    output = output_of(ctx)
    listing = repository.list_keys()
    slots = listing.slots
    current = repository.slot.id if repository.slot is not None else None
    rows: list[dict[str, object]] = [
        {
            "id": slot.id,
            "kind": slot.kind.value,
            "label": slot.label,
            "created": rfc3339(slot.created),
            "current": slot.id == current,
        }
        for slot in slots
    ]
    output.events("key", rows)
    texts = []
    for slot in slots:
        mark = "*" if slot.id == current else ""
        texts.append((mark, slot.id[:ID_SHOWN], slot.kind.value, format_time(slot.created), safe(slot.label)))
    output.lines(table(("", "KEY", "KIND", "CREATED", "LABEL"), texts))
    if not repository.encrypted:
        output.note("The repository is not encrypted: it has no keys.")
    for problem in listing.problems:
        output.event("problem", message=safe(str(problem)))
        output.note(f"lox: {safe(str(problem))}")
    return ExitCode.DAMAGE_FOUND if listing.problems else ExitCode.OK


@command.command("add")
@option("--label", default="", help="A name that tells you later whose password it is.")
@click.pass_context
def add_key(ctx: click.Context, /, label: str) -> None:
    """Add a password."""
    repository = open_repository(ctx)
    slot = repository.add_password(passwords.new_password(), label)
    output = output_of(ctx)
    output.event("summary", action="added", id=slot.id, label=slot.label, exit_code=0)
    output.line(f"added key {slot.id[:ID_SHOWN]}")


@command.command("remove")
@click.argument("key")
@click.pass_context
def remove_key(ctx: click.Context, /, key: str) -> None:
    """Remove a password or recovery code by the id of its slot, or the beginning of that.

    The last one cannot be removed. Whoever knew the password and kept a copy of the slot can still open the
    repository with it.
    """
    repository = open_repository(ctx)
    slot = repository.remove_key(key)
    output = output_of(ctx)
    output.event("summary", action="removed", id=slot.id, label=slot.label, exit_code=0)
    output.line(f"removed key {slot.id[:ID_SHOWN]}")


@command.command("passwd")
@click.pass_context
def change_password(ctx: click.Context, /) -> None:
    """Replace the password that was given by a new one."""
    repository = open_repository(ctx)
    slot = repository.change_password(passwords.new_password())
    output = output_of(ctx)
    output.event("summary", action="changed", id=slot.id, label=slot.label, exit_code=0)
    output.line(f"password changed, its key is now {slot.id[:ID_SHOWN]}")
