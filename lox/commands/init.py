"""``lox init``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lox import passwords
from lox.engine import named, profile_options
from lox.opening import open_other, other_options, store_of
from lox.output import Output, output_of
from lox.private_files import private_file, write_key
from lox.settings import command as command_of
from lox.settings import option, settings_of
from model.chunking import KIB, ChunkerParams
from model.errors import Damaged, NoRepository, StoreError, UsageError

if TYPE_CHECKING:
    from repository.key_file import KeyFile
    from repository.store import Store

AVERAGES = {"64KiB": 64 * KIB, "128KiB": 128 * KIB, "256KiB": 256 * KIB}
CHUNKER_SECTION = "Chunker options (fixed once the repository exists)"


@command_of("init")
@option(
    "--encryption",
    type=click.Choice(["aes-256-gcm", "none"]),
    default="aes-256-gcm",
    show_default=True,
    help="How everything stored is encrypted, on this host, before it is stored.",
)
@option(
    "--key-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="No password, but a key that lox makes: the new file, readable by you only.",
)
@option(
    "--chunk-average",
    type=click.Choice(list(AVERAGES), case_sensitive=False),
    section=CHUNKER_SECTION,
    help=f"Average length of a chunk. [default: {ChunkerParams().average // KIB}KiB]",
)
@option(
    "--chunker",
    type=click.Choice(["gear", "fixed"]),
    section=CHUNKER_SECTION,
    help="gear: cut by content; fixed: equal lengths, for disk images. [default: gear]",
)
@option(
    "--copy-chunker-from",
    metavar="URL",
    section=CHUNKER_SECTION,
    help="Cut and name chunks as the repository there does: copies from one to the other need not decompress anything.",
)
@other_options
@profile_options
@click.pass_context
def command(
    ctx: click.Context, /, encryption: str, key_file: Path | None, chunk_average: str | None, chunker: str | None,
    copy_chunker_from: str | None, from_password_file: str | None, from_password_command: str | None,
    profile: str | None, sets: tuple[str, ...],
) -> None:  # fmt: skip
    """Create a repository.

    Asks for a password (or takes it from the environment, see 'lox help environment') and prints a recovery code
    once: it opens the repository if the password is lost. Without either, nobody can read the backups. With --key-file
    it makes a file that takes the place of a password, for programs: name it in LOX_PASSWORD_FILE from then on.
    """
    from repository.cache_dir import default_cache_dir
    from repository.repository import Repository
    from repository.reserve import hold_reserve
    from repository.seen import remember

    output = output_of(ctx)
    if copy_chunker_from and (chunk_average or chunker):
        raise UsageError("--copy-chunker-from says all about chunks", hint="leave out --chunk-average and --chunker")
    params = _params(profile, sets, chunker, chunk_average)
    store = store_of(settings_of(ctx))
    _refuse_existing(store)
    related = open_other(copy_chunker_from, from_password_file, from_password_command) if copy_chunker_from else None
    password = _password(encryption, key_file)
    _probe(output, store)
    with private_file(key_file) as file:
        secret = password if file is None else _written_key(file)
        repository, recovery = Repository.init(store, secret, params, encryption, related=related)
    remember(repository, default_cache_dir())
    hold_reserve(store)
    output.event(
        "summary",
        repository=repository.id.hex(),
        url=store.url,
        encryption=encryption,
        chunk_average=repository.chunker.average,
        recovery_code=recovery,
        key_file=None if key_file is None else str(key_file.absolute()),
        exit_code=0,
    )
    _tell(output, store.url, repository.id.hex(), recovery, key_file)


def _params(profile: str | None, sets: tuple[str, ...], chunker: str | None, average: str | None) -> ChunkerParams:
    """How the repository is to cut: as the profile says, but for what the options say."""
    from pipelines import profile_keys as keys
    from pipelines.profile import chunker_of, load

    options: dict[str, tuple[Any, str]] = {}
    if chunker is not None:
        options[keys.CHUNKER.path] = chunker, "--chunker"
    if average is not None:
        options[keys.AVERAGE.path] = AVERAGES[average], "--chunk-average"
    return chunker_of(load(named(None, profile), sets, options))


def _refuse_existing(store: Store) -> None:
    """Tells before the password is asked for; `Repository.init` makes sure again."""
    from repository.repository import Repository

    try:
        Repository.is_encrypted(store)
    except (NoRepository, Damaged):  # what an interrupted init left looks damaged, and may be completed
        return
    raise UsageError("there is a repository here already", subject=store.url)


def _probe(output: Output, store: Store) -> None:
    """Finds out what a remote store does before anything is entrusted to it. Raises StoreError if it will not do."""
    from repository.store import is_remote

    if not is_remote(store):
        return
    from lox.escape import safe
    from repository.store.probe import DELETED, probe

    report = probe(store, full=False)
    output.event("store", **{finding.name.replace(" ", "_"): finding.good for finding in report.findings})
    if not report.usable:
        why = "; ".join(f"{each.name}: {each.text}" for each in report.findings if each.needed and not each.good)
        raise StoreError("a repository cannot live here", subject=store.url, why=why, hint="see lox store probe")
    for finding in report.findings:
        if finding.good is False or finding.name == DELETED:
            output.note(f"note: {finding.name}: {safe(finding.text)}")
    if report.left_behind:
        output.note(f"note: these objects cannot be deleted and may stay: {safe(', '.join(report.left_behind))}")


def _written_key(file: int) -> KeyFile:
    """A key file for a repository that is to be made: it is on the disk before the repository needs it."""
    from repository.key_file import KeyFile
    from repository.keys import REPO_ID_SIZE

    key = KeyFile.make(os.urandom(REPO_ID_SIZE), "key file of init")
    write_key(file, key.encode())
    return key


def _password(encryption: str, key_file: Path | None) -> str | None:
    if key_file is not None:
        if encryption == "none":
            raise UsageError("a key file is for encryption", hint="leave out --key-file or --encryption none")
        return None  # the environment may name the very file that is to be made
    found = passwords.from_environment()
    if encryption != "none":
        return found or passwords.ask_new("Password for the new repository", prefix=passwords.CURRENT)
    if found is not None:
        raise UsageError(
            "a password is set in the environment, but the repository is to have none",
            hint="unset LOX_PASSWORD_FILE, LOX_PASSWORD_COMMAND and LOX_PASSWORD, or leave out --encryption none",
        )
    return None


def _tell(output: Output, url: str, repository_id: str, recovery: str | None, key_file: Path | None) -> None:
    from lox.escape import safe

    output.line(f"created repository {repository_id[:8]} at {safe(url)}")
    if key_file is not None:
        output.line(f"wrote {safe(str(key_file))}, the key that opens it: name it in LOX_PASSWORD_FILE")
    if recovery is None:
        output.line("It is not encrypted: whoever can read the folder can read the backups.")
        return
    output.line()
    output.line("Recovery code, shown only now. Keep it away from this machine, on paper for example:")
    output.line()
    output.line(f"    {recovery}")
    output.line()
    lost = "password" if key_file is None else "key file"
    output.line(f"It works wherever a password is asked for. If {lost} and code are lost, the backups are lost.")
