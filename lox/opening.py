"""Opening the repository a command works on: which one, with which password, without wasting time.

Deriving the key takes about a tenth of a second on purpose and releases the GIL; importing Arrow and the pipelines
takes longer. So the key is derived in a thread while the modules are imported.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

from lox import passwords
from lox.settings import Settings, settings_of
from model.errors import UsageError, WrongPassword

if TYPE_CHECKING:
    from repository.repository import Repository
    from repository.store import Store


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
    from repository.repository import Repository

    store = store_of(settings_of(ctx))
    found = passwords.from_environment()
    asked = found is None and Repository.is_encrypted(store)
    opened = Opening(store, passwords.ask() if asked else found)
    for name in modules:
        import_module(name)
    if meanwhile is not None:
        meanwhile(store)
    for _ in range(passwords.TRIES - 1 if asked else 0):
        try:
            return _allowed(opened.result(), only_writes)
        except WrongPassword:
            click.echo("wrong password, try again", err=True)
            opened = Opening(store, passwords.ask())
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
