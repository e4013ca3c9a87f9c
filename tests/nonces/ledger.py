"""No key encrypts twice with one nonce: every AES-GCM encryption of a whole test run is written down and compared.

`install` puts a recorder in the place of `AESGCM` of `cryptography`, in this process; `sitecustomize.py` beside this
file does it in every Python process that inherits PYTHONPATH, if `NONCE_LEDGER` names a folder. Each process appends
16 bytes for each encryption, a hash of key and nonce, to a file of its own, at once: a process that is killed has
told. At the end of the session `repeated` reads all files. Standard library only, and nothing is imported before
the program itself imports `cryptography`.
"""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "NONCE_LEDGER"
MODULE = "cryptography.hazmat.primitives.ciphers.aead"
RECORD = 16  # bytes of one encryption

_file: tuple[int, str, int] | None = None  # process, folder, descriptor


def record(key: bytes, nonce: bytes) -> None:
    """Write down that `key` is about to encrypt with `nonce`."""
    global _file
    folder = os.environ.get(VARIABLE)
    if not folder:
        return
    if _file is None or _file[:2] != (os.getpid(), folder):  # a fork writes into a file of its own
        name = os.path.join(folder, f"{os.getpid()}-{os.urandom(4).hex()}")
        try:
            _file = os.getpid(), folder, os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:  # a process of another user, or one that outlives the run
            return
    try:
        os.write(_file[2], hashlib.blake2b(bytes(key) + bytes(nonce), digest_size=RECORD).digest())
    except OSError:  # somebody closed all descriptors, as daemons do
        _file = None


def recording(real: Any) -> type:
    """A class that does what the AESGCM `real` does, and writes encryptions down."""

    class AESGCM:
        __slots__ = ("_key", "_real")
        generate_key = staticmethod(real.generate_key)

        def __init__(self, key: bytes) -> None:
            self._real = real(key)
            self._key = bytes(key)

        def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
            record(self._key, nonce)
            sealed: bytes = self._real.encrypt(nonce, data, associated_data)
            return sealed

        def encrypt_into(self, nonce: bytes, data: bytes, associated_data: bytes | None, buf: memoryview) -> int:
            record(self._key, nonce)
            length: int = self._real.encrypt_into(nonce, data, associated_data, buf)
            return length

        def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes:
            plain: bytes = self._real.decrypt(nonce, data, associated_data)
            return plain

        def decrypt_into(self, nonce: bytes, data: bytes, associated_data: bytes | None, buf: memoryview) -> int:
            length: int = self._real.decrypt_into(nonce, data, associated_data, buf)
            return length

        def __reduce__(self) -> str:
            raise TypeError("cannot pickle 'AESGCM' object")

    return AESGCM


class _Importer(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Changes the module once it is imported, and has no part in any other import."""

    def __init__(self) -> None:
        self._real: ModuleSpec | None = None

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != MODULE:
            return None
        sys.meta_path.remove(self)  # once, and not when we ask the others
        self._real = importlib.util.find_spec(name)
        return None if self._real is None else importlib.util.spec_from_loader(name, self, origin=self._real.origin)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        assert self._real is not None and self._real.loader is not None
        return self._real.loader.create_module(self._real)

    def exec_module(self, module: ModuleType) -> None:
        assert self._real is not None and self._real.loader is not None
        self._real.loader.exec_module(module)
        _change(module)


def install() -> None:
    """Record all AES-GCM encryptions of this process from now on."""
    if MODULE in sys.modules:
        _change(sys.modules[MODULE])
    elif not any(isinstance(finder, _Importer) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Importer())


def _change(module: ModuleType) -> None:
    if not hasattr(module.AESGCM, "_real"):
        module.AESGCM = recording(module.AESGCM)  # type: ignore[attr-defined]


def repeated(folder: Path) -> tuple[int, int, int]:
    """Processes, encryptions, and how many of these repeated a key with a nonce."""
    seen: set[bytes] = set()
    files = total = 0
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        files += 1
        for at in range(0, len(data) - len(data) % RECORD, RECORD):
            total += 1
            seen.add(data[at : at + RECORD])
    return files, total, total - len(seen)
