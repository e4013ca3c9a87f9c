"""The files the installer downloads: wheels of one folder, and a signed list of them.

``manifest.txt`` names each wheel with its size and SHA-256, ``manifest.sig`` is its Ed25519 signature. The public key
is part of the script, so that a mirror, or whoever can write into the folder, cannot put in other files.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from model.errors import ConfigError

MANIFEST = "manifest.txt"
SIGNATURE = "manifest.sig"
HEAD = "lox-agent-files 1"
WHEEL = re.compile(r"[A-Za-z0-9_.+]+(-[A-Za-z0-9_.+]+){4,5}\.whl")
MANIFEST_MAX = 1 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder of wheels offers: the version of the agent, and the SHA-256 and size of each file."""

    version: str
    files: dict[str, tuple[str, int]]

    def text(self) -> str:
        """As it is signed."""
        lines = [HEAD, f"version {self.version}"]
        lines += [f"file {digest} {size} {name}" for name, (digest, size) in sorted(self.files.items())]
        return "\n".join(lines) + "\n"


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The key of the file at `path`, made (0600) if there is none. Raises OSError, ConfigError."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _new_key(path)
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise ConfigError("cannot read the key of the installer", subject=str(path), why=str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("cannot read the key of the installer", subject=str(path), why="it is no Ed25519 key")
    return key


def _new_key(path: Path) -> Ed25519PrivateKey:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # of two processes that begin at once one wins
    except FileExistsError:
        return signing_key(path)
    finally:
        temporary.unlink()
    return key


def public_pem(key: Ed25519PrivateKey) -> str:
    """The public half, as the script holds it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii").strip()


def write_manifest(folder: Path, key: Ed25519PrivateKey) -> Manifest:
    """List the wheels of `folder` and sign the list. Raises ConfigError unless they are of one lox-backup."""
    files = {path.name: _digest(path) for path in folder.iterdir() if WHEEL.fullmatch(path.name)}
    versions = {name.split("-")[1] for name in files if name.startswith("lox_backup-")}
    if len(versions) != 1:
        why = (
            "it holds no lox_backup wheel"
            if not versions
            else f"it holds several versions: {', '.join(sorted(versions))}"
        )
        raise ConfigError("cannot offer these files", subject=str(folder), why=why, hint="run lox-server wheels")
    manifest = Manifest(versions.pop(), files)
    text = manifest.text().encode("ascii")
    _replace(folder / SIGNATURE, key.sign(text))
    _replace(folder / MANIFEST, text)
    return manifest


def read_manifest(folder: Path, key: Ed25519PublicKey) -> Manifest | None:
    """What `folder` offers, None if there is no manifest. Raises ConfigError if it is not signed by `key`."""
    try:
        text = (folder / MANIFEST).read_bytes()[: MANIFEST_MAX + 1]
        signature = (folder / SIGNATURE).read_bytes()
    except FileNotFoundError:
        return None
    try:
        key.verify(signature, text)
    except InvalidSignature as error:
        raise ConfigError(
            "the files of the installer are not signed by this server",
            subject=str(folder),
            hint="run lox-server wheels",
        ) from error
    return _parse(text.decode("ascii"))


def _parse(text: str) -> Manifest:
    lines = text.splitlines()
    files = {name: (digest, int(size)) for _, digest, size, name in (line.split(" ") for line in lines[2:])}
    return Manifest(lines[1].removeprefix("version "), files)


def _digest(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(data)
    temporary.replace(path)
