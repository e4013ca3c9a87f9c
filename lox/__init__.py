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
    from os import PathLike

    from lox.tables import Tables

__version__ = "0.1.0"
__all__ = ["__version__", "open"]


def open(url: str, password: str | None = None, *, key_file: str | PathLike[str] | None = None) -> Tables:
    """The repository at `url` (a path, ``s3://``, ``sftp://``, ...) as tables.

    `key_file` names a file that ``lox key add --key-file`` made, or one whose first line is the password. Without it
    `password` may be None for a repository made with ``--encryption none``; no prompt and no environment variable is
    consulted. Raises `model.errors.NoRepository`, `WrongPassword`, `NewerFormat`, `Damaged` or a `StoreError`;
    UsageError if both are given, ConfigError for a key file that others may read or that is not whole.
    """
    from lox.passwords import from_file
    from lox.tables import Tables
    from model.errors import UsageError
    from repository.cache_dir import default_cache_dir
    from repository.repository import Repository
    from repository.store import open_store
    from repository.tables.view import View

    if key_file is not None:
        if password is not None:
            raise UsageError("a password and a key file are given", hint="leave out one of them")
        password = from_file(str(key_file), "key_file")
    return Tables(View(Repository.open(open_store(url), password), default_cache_dir()))
