"""Opening the repository a command works on: which one, with which password, without wasting time.

Deriving the key takes about a tenth of a second on purpose and releases the GIL; importing Arrow and the pipelines
takes longer. So the key is derived in a thread while the modules are imported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from lox import passwords
from lox.escape import safe
from lox.output import Output, output_of
from lox.settings import Settings, option, settings_of, stacked
from lox.units import plural
from model.errors import UsageError, WrongPassword

if TYPE_CHECKING:
    from repository.repository import Repository
    from repository.store import Store

FROM_SECTION = "The repository to copy from"


def store_of(settings: Settings) -> Store:
    """The store that --repo or LOX_REPOSITORY names. Raises UsageError if neither does."""
    from repository.store import open_store

    if not settings.repo:
        raise UsageError("no repository named", hint="use --repo URL or set LOX_REPOSITORY")
    return open_store(settings.repo)


def open_repository(
    ctx: click.Context,
    modules: Sequence[str] = (),
    meanwhile: Callable[[Store], None] | None = None,
    only_writes: bool = False,
) -> Repository:
    """Opens the repository of this command line; imports `modules` and calls `meanwhile` while the key is derived.

    The key of a write-only machine is refused with WrongPassword unless the command `only_writes`.

    Asks for a password only if the repository exists, needs one, and the environment has none; a wrong one typed on
    a terminal may be corrected. A password in the environment is always used, so that a repository without
    encryption put in the place of ours is refused.
    """
    found, store = passwords.from_environment(), store_of(settings_of(ctx))
    repository = _opened(store, found, passwords.CURRENT, "Password", modules, meanwhile, only_writes)
    tell_rereads_of(ctx, repository)
    return repository


def open_store_with_key(store: Store) -> Repository:
    """Opens the repository in `store` with the ordinary password."""
    return _opened(store, passwords.from_environment(), passwords.CURRENT, "Password")


def tell_rereads_of(ctx: click.Context, repository: Repository) -> None:
    """What of reading went wrong, and was made good, when this command is over, whatever came of it."""
    output = output_of(ctx, needed=False)

    def tell() -> None:
        tell_rereads(output, repository.store.url, repository.rereads.count)
        for name, why in repository.rereads.damaged.items():
            text = f"{name} is damaged, other packs had what was wanted of it: {why}; run lox check --read-data"
            output.event("warning", message=safe(text))
            output.note(f"lox: {safe(text)}")

    ctx.call_on_close(tell)


def tell_rereads(output: Output, url: str, count: int) -> None:
    """Tells, at the end of a command, of what was read wrong once and right then."""
    if count:
        output.event("reread", url=url, count=count)
        output.note(
            f"lox: {plural(count, 'read')} from {safe(url)} came wrong, and right when repeated: "
            "the store, the network or the memory of this host corrupts what passes through"
        )


def other_options(function: Callable[..., Any]) -> Any:
    """Adds where the password of the other repository of a command comes from; see `open_other`."""
    return stacked(
        option("--from-password-file", metavar="FILE", section=FROM_SECTION,
               help="Its password is the first line of this file. [env: LOX_FROM_PASSWORD_FILE]"),
        option("--from-password-command", metavar="COMMAND", section=FROM_SECTION,
               help="Its password is what this command prints. [env: LOX_FROM_PASSWORD_COMMAND]"),
    )(function)  # fmt: skip


def open_other(url: str, password_file: str | None, password_command: str | None) -> Repository:
    """Opens the repository that is not that of --repo. Asks for its password if it must."""
    from repository.store import open_store

    found = passwords.from_options(password_file, password_command, passwords.FROM)
    return _opened(open_store(url), found, passwords.FROM, f"Password of {safe(url)}")


def _opened(
    store: Store,
    found: str | None,
    prefix: str,
    question: str,
    modules: Sequence[str] = (),
    meanwhile: Callable[[Store], None] | None = None,
    only_writes: bool = False,
) -> Repository:
    from repository.repository import Repository

    asked = found is None and Repository.is_encrypted(store)
    opened = Opening(store, passwords.ask(question, prefix=prefix) if asked else found)
    for name in modules:
        import_module(name)
    if meanwhile is not None:
        meanwhile(store)
    for _ in range(passwords.TRIES - 1 if asked else 0):
        try:
            return _allowed(opened.result(), only_writes)
        except WrongPassword:
            click.echo("wrong password, try again", err=True)
            opened = Opening(store, passwords.ask(question, prefix=prefix))
    return _allowed(opened.result(), only_writes)


def _allowed(repository: Repository, only_writes: bool) -> Repository:
    if repository.write_only and not only_writes:
        from repository.keyring import only_writes as refusal

        raise refusal(repository.store.url)
    from repository.cache_dir import default_cache_dir
    from repository.seen import check_seen

    check_seen(repository, default_cache_dir())
    return repository


class Opening:
    """A repository being opened in a thread of its own."""

    def __init__(self, store: Store, password: str | None) -> None:
        # Imported before the thread starts: two threads importing at once can see half-made modules.
        from repository.repository import Repository

        self._opener = Repository
        self._store = store
        self._password = password
        self._repository: Repository | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._open, name="open-repository", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        try:
            self._repository = self._opener.open(self._store, self._password)
        except BaseException as error:
            self._error = error

    def result(self) -> Repository:
        """The repository once it is open; raises what opening raised."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._repository is not None
        return self._repository
