"""Secrets that machines carry: 256 random bits with a name in front, of which only a hash is kept.

A stretched hash would protect nothing here: nobody guesses 256 bits. The checksum at the end tells a mistyped secret
from a wrong one before the database is asked.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import zlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from uuid import UUID

REGISTRATION, CREDENTIAL, API, SESSION = "agt", "cred", "api", "ses"
_SHAPE = re.compile(r"lox_([a-z]{3,4})_([0-9a-f]{32})_([A-Za-z0-9_-]{43})([0-9a-f]{8})\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Secret:
    """`kind` and `uuid` say what to look up. `text` is shown once and never kept."""

    kind: str
    uuid: UUID
    text: str

    @property
    def hash(self) -> bytes:
        """What is kept: 32 bytes."""
        return hashlib.sha256(self.text.encode()).digest()

    def matches(self, kept: bytes) -> bool:
        """Whether this is what `kept` is the hash of, in constant time."""
        return hmac.compare_digest(self.hash, kept)


def make_secret(kind: str, uuid: UUID) -> Secret:
    """A new secret for the object `uuid`."""
    head = f"lox_{kind}_{uuid.hex}_{urlsafe_b64encode(os.urandom(32)).decode().rstrip('=')}"
    return Secret(kind, uuid, head + _checksum(head))


def parse_secret(text: str) -> Secret | None:
    """What a caller carries, or None if it cannot be one of ours."""
    found = _SHAPE.match(text)
    if found is None or _checksum(text[:-8]) != found[4]:
        return None
    return Secret(found[1], UUID(found[2]), text)


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
