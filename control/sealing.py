"""Secrets that the server has to say to others: sealed in the database under a key that lies beside it.

``secrets.key`` in the data folder holds 32 random bytes (0600). Whoever copies the database alone can read none of
them; a server that lost the key says so where a secret is needed, and takes it anew.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from model.errors import ConfigError

FILE = "secrets.key"
_KEY, _NONCE = 32, 12


class Sealer:
    """Seals JSON with AES-256-GCM. `about` binds a secret to what it belongs to: moved elsewhere it does not open."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / FILE
        self._cipher: AESGCM | None = None

    def seal(self, about: bytes, secret: dict[str, Any]) -> bytes:
        """`secret` as it is kept. Raises ConfigError if there can be no key."""
        nonce = os.urandom(_NONCE)
        return nonce + self._with_key(make=True).encrypt(nonce, json.dumps(secret).encode(), about)

    def open(self, about: bytes, sealed: bytes) -> dict[str, Any]:
        """The secret. Raises ConfigError if the key is another one, or the bytes were changed."""
        try:
            opened = self._with_key(make=False).decrypt(sealed[:_NONCE], sealed[_NONCE:], about)
        except (InvalidTag, ValueError):
            raise ConfigError(
                "a stored secret cannot be opened", subject=str(self._path), why="it was sealed with another key",
                hint="bring back the key that was kept with the copy of the database, or give the secret again",
            ) from None  # fmt: skip
        found = json.loads(opened)
        assert isinstance(found, dict)
        return found

    def _with_key(self, make: bool) -> AESGCM:
        if self._cipher is None:
            try:
                if make and not self._path.exists():
                    _make(self._path)
                self._cipher = AESGCM(_key(self._path))
            except (OSError, ValueError) as error:
                why = (getattr(error, "strerror", None) or str(error)).lower()
                raise ConfigError("cannot use the server's key", subject=str(self._path), why=why) from error
        return self._cipher


def _key(path: Path) -> bytes:
    """The key of the file. Raises OSError, ValueError."""
    key = path.read_bytes()
    if len(key) != _KEY:
        raise ValueError(f"it has {len(key)} bytes, not {_KEY}")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(os.urandom(_KEY))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # of two processes that begin at once one wins
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
