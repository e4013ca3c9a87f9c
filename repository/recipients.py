"""Sealing a key to somebody's public key (HPKE of RFC 9180: X25519, HKDF-SHA-256, AES-256-GCM).

What is sealed so opens with the private key only: whoever seals it cannot open it again. HPKE alone says nothing
about who sealed something; where that matters, a secret both sides share is part of `info`, which both must know.
`cryptography` is imported on first use: not every run needs it, and every run should start soon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from repository.keys import KEY_SIZE, hkdf, purpose_info

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.hpke import Suite

PUBLIC_SIZE = 32
SEALED_SIZE = 32 + KEY_SIZE + 16  # ephemeral public key, key, tag


def private_key_of(secret: bytes, purpose: str, repo_id: bytes) -> bytes:
    """The 32 bytes of the private key that belongs to a secret for one purpose."""
    return hkdf(secret, purpose_info(purpose, repo_id))


def public_key_of(private: bytes) -> bytes:
    """The 32 bytes of the public key."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def seal_key(key: bytes, public: bytes, info: bytes) -> bytes:
    """`SEALED_SIZE` bytes from which only the holder of the private key gets the 32 bytes `key`.

    Raises ValueError for a public key that no private one has.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

    assert len(key) == KEY_SIZE
    return _suite().encrypt(key, X25519PublicKey.from_public_bytes(public), info)


def open_key(sealed: bytes, private: bytes, info: bytes) -> bytes | None:
    """The key in `sealed`, None if it was not sealed to this private key with this `info`."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    try:
        key = _suite().decrypt(sealed, X25519PrivateKey.from_private_bytes(private), info)
    except (InvalidTag, ValueError):
        return None
    return key if len(key) == KEY_SIZE else None


def _suite() -> Suite:
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
