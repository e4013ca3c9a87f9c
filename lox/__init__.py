"""LOX Backup: the front door.

    import lox
    repository = lox.open("/srv/backup", password="...")

The command line is ``lox`` (`lox.__main__`). Importing this package imports nothing else of the program, so that a
script pays only for what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repository.repository import Repository

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(url: str, password: str | None = None) -> Repository:
    """The repository at `url` (a path or ``file://``), ready to read from and write to.

    `password` may be None for a repository made with ``--encryption none``; no prompt and no environment variable is
    consulted. Raises `model.errors.NoRepository`, `WrongPassword`, `NewerFormat`, `Damaged` or a `StoreError`.
    """
    from repository.repository import Repository
    from repository.store import open_store

    return Repository.open(open_store(url), password)
