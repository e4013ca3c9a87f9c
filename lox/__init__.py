"""LOX Backup: the front door.

    import lox
    tables = lox.open("/srv/backup", password="...")
    tables.snapshots().to_pandas()

The command line is ``lox`` (`lox.__main__`). Importing this package imports nothing else of the program, so that a
script pays only for what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lox.tables import Tables

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(url: str, password: str | None = None) -> Tables:
    """The repository at `url` (a path, ``s3://``, ``sftp://``, ...) as tables.

    `password` may be None for a repository made with ``--encryption none``; no prompt and no environment variable is
    consulted. Raises `model.errors.NoRepository`, `WrongPassword`, `NewerFormat`, `Damaged` or a `StoreError`.
    """
    from lox.tables import Tables
    from repository.cache_dir import default_cache_dir
    from repository.repository import Repository
    from repository.store import open_store
    from repository.tables.view import View

    return Tables(View(Repository.open(open_store(url), password), default_cache_dir()))
