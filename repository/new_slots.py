"""Making key slots of a repository that is open, while others may rotate its keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from model.errors import RepositoryError
from repository.key_file import KeyFile
from repository.keyring import Epoch
from repository.keys import KdfParams
from repository.slots import Unlocked, create_key_file_slot, create_password_slot, create_recovery_slot

if TYPE_CHECKING:
    from repository.repository import Repository


def add_password_slot(repository: Repository, password: str, label: str, kdf: KdfParams | None) -> Unlocked:
    """A further password. Raises as `_in_newest_epoch`, UsageError for what is no password."""
    store, repo_id = repository.store, repository.id
    return _in_newest_epoch(repository, lambda epoch: create_password_slot(store, repo_id, epoch, password, label, kdf))


def add_key_file_slot(repository: Repository, key: KeyFile) -> Unlocked:
    """A further key file. Raises as `_in_newest_epoch`."""
    return _in_newest_epoch(repository, lambda epoch: create_key_file_slot(repository.store, repository.id, epoch, key))


def add_recovery_slot(repository: Repository, label: str) -> tuple[Unlocked, str]:
    """A further recovery code, and that code. Raises as `_in_newest_epoch`."""
    codes: list[str] = []

    def create(epoch: Epoch) -> Unlocked:
        unlocked, code = create_recovery_slot(repository.store, repository.id, epoch, label)
        codes.append(code)
        return unlocked

    return _in_newest_epoch(repository, create), codes[-1]


def _in_newest_epoch(repository: Repository, create: Callable[[Epoch], Unlocked]) -> Unlocked:
    """A new slot that opens all epochs: one that began while the slot was made is not sealed to it.

    Raises RepositoryError if epochs begin all the time, NoKey, StoreError.
    """
    from repository.rotation import TRIES  # not needed by who only opens a repository

    for _ in range(TRIES):
        repository.reload_keys()
        made = create(repository.keys.sealing())
        repository.reload_keys()
        if repository.keys.sealing().name == made.slot.epoch:
            return made
        repository.store.delete(made.slot.name)
    raise RepositoryError("others change the keys all the time", hint="try again when they are done")
