"""Notes and objects in the trash that cannot be read: they hold no data, and yet somebody should know.

A note that nobody can read protects its snapshot, a forgotten snapshot that nobody can read cannot be brought back.
"""

from __future__ import annotations

from collections.abc import Callable

from model.errors import Damaged, LoxError, Missing, NewerFormat, StoreError
from repository.annotations import NOTES_PREFIX, Note
from repository.repository import Repository
from repository.seal import ObjectKind
from repository.trash import load_trash


def tell_unreadable(repository: Repository, tell: Callable[[str, LoxError], object]) -> None:
    """Reads all notes and all the trash; `tell` is told the name of what cannot be read, and why. Raises nothing."""
    try:
        for name, _ in repository.store.list(NOTES_PREFIX):
            try:
                Note.decode(name, repository.get_object(ObjectKind.MARK, name))
            except Missing:  # its snapshot was purged since it was listed
                continue
            except (Damaged, NewerFormat) as error:
                tell(name, error)
        load_trash(repository, tell)
    except StoreError as error:
        tell(error.subject, error)
