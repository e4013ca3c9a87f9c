"""Deriving keys: from other keys for a purpose, from passwords, and the printed form of a recovery code.

Light on purpose (standard library; `cryptography` on first use): opening a repository overlaps with other imports,
and the password derivation below releases the GIL.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
import threading
import unicodedata
from dataclasses import dataclass

from model.errors import ConfigError, LoxError, UsageError

KEY_SIZE = 32
REPO_ID_SIZE = 16

_MEMORY_CAP = 2 << 20  # KiB
_ITERATIONS_CAP = 16
_LANES_CAP = 16
_ALONE = threading.Lock()  # of one derivation at a time
_CHECKSUM_SIZE = 3
_GROUP = 7
# Letters and digits people confuse; base32 has neither 0, 1 nor 8, and the checksum settles a wrong guess.
_MISREAD = str.maketrans({"0": "O", "1": "I", "8": "B", "-": None, " ": None, "\t": None, "\n": None})


def hkdf(secret: bytes, info: bytes, salt: bytes = b"", length: int = KEY_SIZE) -> bytes:
    """HKDF-SHA-256 (RFC 5869): `length` bytes (at most 8160) for the purpose `info`."""
    assert length <= 255 * 32
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    block, output = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.digest(extracted, block + info + bytes([counter]), "sha256")
        output += block
    return output[:length]


def purpose_info(purpose: str, repo_id: bytes) -> bytes:
    """The HKDF info of a key: "lox", "v1", purpose, repository id, each after its length in one byte."""
    parts = (b"lox", b"v1", purpose.encode(), repo_id)
    return b"".join(struct.pack("<B", len(part)) + part for part in parts)


@dataclass(frozen=True, slots=True, repr=False)
class ChunkKeys:
    """What names chunks and what cuts them, where a repository has both from another one. A secret."""

    id_key: bytes
    chunker_key: bytes

    def __repr__(self) -> str:
        return "ChunkKeys(secret)"


@dataclass(frozen=True, slots=True)
class KdfParams:
    """Cost of deriving a key from a password with Argon2id. Stored in the key slot, capped when read back."""

    memory_kib: int = 64 << 10
    iterations: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        if not (
            1 <= self.lanes <= _LANES_CAP
            and 1 <= self.iterations <= _ITERATIONS_CAP
            and 8 * self.lanes <= self.memory_kib <= _MEMORY_CAP
        ):
            raise ConfigError(
                "password derivation cost out of range",
                subject=f"memory {self.memory_kib} KiB, iterations {self.iterations}, lanes {self.lanes}",
                hint=f"at most {_MEMORY_CAP} KiB, {_ITERATIONS_CAP} iterations, {_LANES_CAP} lanes",
            )


def stretch_password(password: str, salt: bytes, params: KdfParams) -> tuple[bytes, bytes]:
    """(key encryption key, check value), 32 bytes each. The same text typed on any system gives the same (NFC).

    Releases the GIL for all of its duration. Raises UsageError for an empty password.
    """
    if not password:
        raise UsageError("the password is empty")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

    typed = unicodedata.normalize("NFC", password).encode("utf-8", errors="surrogateescape")
    try:
        with _ALONE:  # OpenSSL 3 has threads of its own for lanes: two derivations at once wait for each other for ever
            derived = Argon2id(
                salt=salt,
                length=2 * KEY_SIZE,
                iterations=params.iterations,
                lanes=params.lanes,
                memory_cost=params.memory_kib,
            ).derive(typed)
    except MemoryError as error:
        raise LoxError("not enough memory to check the password", why=f"it takes {params.memory_kib} KiB") from error
    except UnsupportedAlgorithm as error:
        raise LoxError(
            "this build of cryptography has no Argon2id", hint="install cryptography 50 or newer from its wheels"
        ) from error
    return derived[:KEY_SIZE], derived[KEY_SIZE:]


def expand_recovery_key(secret: bytes, salt: bytes, repo_id: bytes) -> tuple[bytes, bytes]:
    """(key encryption key, check value) of a recovery code's 32 random bytes, which need no stretching."""
    derived = hkdf(secret, purpose_info("recovery code", repo_id), salt, 2 * KEY_SIZE)
    return derived[:KEY_SIZE], derived[KEY_SIZE:]


def format_recovery_code(secret: bytes) -> str:
    """The printed form of 32 bytes: eight groups of seven base32 letters, the last ones a checksum."""
    text = base64.b32encode(secret + _code_checksum(secret)).decode()
    return "-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP))


def parse_recovery_code(text: str) -> bytes | None:
    """The 32 bytes of a recovery code as typed (case, spaces and dashes do not matter), None if it is not one."""
    letters = text.translate(_MISREAD).upper()
    if len(letters) != 8 * _GROUP or not letters.isascii():
        return None
    try:
        raw = base64.b32decode(letters)
    except ValueError:
        return None
    secret, checksum = raw[:KEY_SIZE], raw[KEY_SIZE:]
    return secret if hmac.compare_digest(checksum, _code_checksum(secret)) else None


def _code_checksum(secret: bytes) -> bytes:
    return hashlib.sha256(b"lox recovery code" + secret).digest()[:_CHECKSUM_SIZE]
