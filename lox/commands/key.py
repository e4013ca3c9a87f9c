"""``lox key``: what opens a repository, epochs of its keys, and what helps when all else is lost."""

from __future__ import annotations

from pathlib import Path

import click

from lox import passwords
from lox.escape import safe
from lox.opening import Opening, open_repository, store_of
from lox.output import output_of
from lox.settings import Group, option, settings_of
from lox.units import format_time
from model.errors import UsageError
from model.exits import ExitCode

ID_SHOWN = 8


@click.group("key", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """List, add, remove, change, test and rotate keys.

    Every password, key file and recovery code opens a key slot of its own; any one of them opens the repository. New
    passwords are asked for, or taken from LOX_NEW_PASSWORD_FILE, LOX_NEW_PASSWORD_COMMAND or LOX_NEW_PASSWORD.
    """


@command.command("list")
@click.pass_context
def list_keys(ctx: click.Context, /) -> int:
    """List the key slots, and the epochs if there are several.

    A key marked '?' is not trusted: it was not made by somebody who had the newest keys, and the next epoch will not
    be sealed to it.
    """
    repository = open_repository(ctx)
    output = output_of(ctx)
    if not repository.encrypted:
        output.note("The repository is not encrypted: it has no keys.")
        return ExitCode.OK
    from lox.keys import show_keys

    problems = show_keys(output, repository)
    for problem in problems:
        output.event("problem", message=safe(str(problem)))
        output.note(f"lox: {safe(str(problem))}")
    return ExitCode.DAMAGE_FOUND if problems else ExitCode.OK


@command.command("add")
@option("--label", default="", help="A name that tells you later whose password it is, or which machine's key.")
@option(
    "--key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="No password, but a key that lox makes: the new file, readable by you only.",
)
@option("--write-only", is_flag=True, help="No password, but a key for a machine that stores backups and reads none.")
@option("--output", "path", metavar="FILE", type=click.Path(path_type=Path),
        help="With --write-only: the new file, readable by you only, into which the key goes.")  # fmt: skip
@click.pass_context
def add_key(ctx: click.Context, /, label: str, key_file: Path | None, write_only: bool, path: Path | None) -> None:
    """Add a password, a key file, or a key for a write-only machine.

    A key file is for programs: nobody can guess it, so opening it takes no time, where every try of a password takes a
    fifth of a second. Name it in LOX_PASSWORD_FILE. It opens everything, like a password.

    A machine with a write-only key makes backups that it cannot read itself: whoever takes it over gets no history.
    Copy the file to that machine and name it there with LOX_PASSWORD_FILE.
    """
    if write_only != (path is not None):
        raise UsageError("--write-only and --output FILE go together", hint="a password is asked for without them")
    if key_file is not None and write_only:
        raise UsageError("--key-file and --write-only are two kinds of keys", hint="leave out one of them")
    repository = open_repository(ctx)
    output = output_of(ctx)
    if key_file is not None:
        from lox.keys import add_key_file

        add_key_file(output, repository, label, key_file)
        return
    if path is not None:
        from lox.keys import issue_key

        issue_key(output, repository, label, path)
        return
    slot = repository.add_password(passwords.new_password(), label)
    output.event("summary", action="added", id=slot.id, label=slot.label, exit_code=0)
    output.line(f"added key {slot.id[:ID_SHOWN]}")


@command.command("remove")
@click.argument("key")
@click.pass_context
def remove_key(ctx: click.Context, /, key: str) -> None:
    """Remove a password, key file, recovery code or write-only key by its id, or the beginning of that.

    The last of those that read cannot be removed. Removing keeps nobody out who knew it and has a copy of the slot:
    'lox key rotate' keeps them from what is stored from then on, 'lox prune --reencrypt' also from what was stored
    before.
    What a write-only machine stored before its key was removed stays; what it stores afterwards does not count.
    """
    from lox.keys import remove

    remove(output_of(ctx), open_repository(ctx), key)


@command.command("passwd")
@click.pass_context
def change_password(ctx: click.Context, /) -> None:
    """Replace the password that was given by a new one.

    If others may know the old one, 'lox key rotate' should follow.
    """
    repository = open_repository(ctx)
    repository.password_slot()  # before a new password is asked for
    slot = repository.change_password(passwords.new_password())
    output = output_of(ctx)
    output.event("summary", action="changed", id=slot.id, label=slot.label, exit_code=0)
    output.line(f"password changed, its key is now {slot.id[:ID_SHOWN]}")


@command.command("rotate")
@option("--dry-run", "-n", is_flag=True, help="Show which keys would open the new epoch, and change nothing.")
@click.pass_context
def rotate(ctx: click.Context, /, dry_run: bool) -> None:
    """Begin a new epoch: what is stored from now on opens with the keys that are left, and with none known before.

    Run it after a password, or a machine that had one, fell into wrong hands, when its key is removed. Deduplication
    goes on; backups that are under way finish in the old epoch. What was stored before can still be read by whoever
    had a key then, until 'lox prune --reencrypt' has stored it anew.
    """
    from lox.keys import show_rotation

    repository = open_repository(ctx)
    show_rotation(output_of(ctx), repository, dry_run)


@command.command("test")
@option("--ask", is_flag=True, help="Ask for the password or code to test, even if the environment names one.")
@click.pass_context
def test_key(ctx: click.Context, /, ask: bool) -> int:
    """Prove that a password, recovery code or key file opens the repository, without touching any data.

    Opens the key slot, the config and the keys of every epoch. Exit code 12: it opens nothing; 15: it opens the
    repository, but not all that it should.
    """
    from lox.keys import show_test

    if ask:
        repository = Opening(store_of(settings_of(ctx)), passwords.ask("Password or recovery code to test")).result()
    else:
        repository = open_repository(ctx, only_writes=True)
    return show_test(output_of(ctx), repository)


@command.command("recovery-kit")
@option("--output", "path", metavar="FILE", type=click.Path(path_type=Path),
        help="Write it to a new file that only you can read, instead of showing it.")  # fmt: skip
@click.pass_context
def recovery_kit(ctx: click.Context, /, path: Path | None) -> None:
    """Make a sheet to print: a new recovery code, and all it takes to restore with it.

    Recovery codes made before stay good; 'lox key list' shows them, 'lox key remove' removes them. Test the sheet with
    'lox key test --ask' once in a while.
    """
    from lox.private_files import private_file, write_all
    from lox.recovery_kit import make_kit

    repository = open_repository(ctx)
    output = output_of(ctx)
    with private_file(path) as file:
        kit = make_kit(repository)
        if file is not None:
            write_all(file, kit.text.encode())
    shown = None if path is not None else kit.code
    where = str(path.absolute()) if path is not None else None
    output.event("summary", action="kit", id=kit.slot.id, file=where, recovery_code=shown, exit_code=0)
    if path is None:
        output.line(kit.text)
    else:
        output.line(f"wrote {safe(str(path))} with a new recovery code, key {kit.slot.id[:ID_SHOWN]}")
        output.note("Print it, keep the paper away from this machine, and delete the file.")
    output.note(f"Made {format_time(kit.slot.created)}; lox key test --ask tells whether what you wrote down opens.")


@command.command("export")
@option("--output", "path", metavar="FILE", required=True, type=click.Path(path_type=Path),
        help="The new file, readable by you only.")  # fmt: skip
@click.pass_context
def export_keys(ctx: click.Context, /, path: Path) -> None:
    """Copy the key slots, epochs and the config into a file, to be kept elsewhere.

    It opens nothing without a password or recovery code. Should the store lose its folder keys/, 'lox key import' puts
    it back; without a copy all backups would be lost. Make a new one after every change of keys.
    """
    from lox.private_files import private_file, write_all
    from repository.key_copy import export_keys

    repository = open_repository(ctx)
    output = output_of(ctx)
    with private_file(path) as file:
        assert file is not None
        data = export_keys(repository.store, repository.id)
        write_all(file, data)
    output.event("summary", action="exported", file=str(path.absolute()), bytes=len(data), exit_code=0)
    output.line(f"wrote {safe(str(path))} with the keys of repository {repository.id.hex()[:8]}, {len(data)} bytes")


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_context
def import_keys(ctx: click.Context, /, file: Path) -> None:
    """Put back what the store lost of its keys, from a FILE made by 'lox key export'.

    What is there stays as it is. Keys that were removed since the file was made come back: see 'lox key list'.
    """
    from repository.key_copy import COPY_MAX, import_keys

    try:
        with file.open("rb") as source:
            data = source.read(COPY_MAX + 1)
    except OSError as error:
        raise UsageError("cannot read the file", subject=str(file), why=(error.strerror or "").lower()) from error
    names = import_keys(store_of(settings_of(ctx)), data)
    output = output_of(ctx)
    output.event("summary", action="imported", objects=names, exit_code=0)
    output.lines(f"put back {safe(name)}" for name in names)
    output.note("Nothing was missing." if not names else "'lox key test' tells whether a password opens it.")
