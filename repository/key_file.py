"""Key files: 32 random bytes that a program keeps, and what they are for, as one line of text.

    lox-key-file-1: ‖ base64 of a JSON document: version, repository id, label, time, secret, checksum

Nobody can guess such a secret, so nothing slows guessing down: it is expanded with HKDF in microseconds, where a
password takes Argon2id. What is derived depends on the form of the secret at hand and never on what a store says: a
password never becomes a key through the quick way. All but the secret goes into the derivation too, so a file
whose label or repository was changed opens nothing.
"""

from __future__ import annotations

import hashlib
import os
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field

from model.errors import ConfigError, Damaged, NewerFormat, UsageError
from repository.documents import Document, decode_document, document_checksum, encode_document, take, take_hex
from repository.keys import KEY_SIZE, REPO_ID_SIZE, hkdf, parse_recovery_code, purpose_info

KEY_FILE_MAX = 16 << 10  # bytes of a key file as text
LABEL_MAX = 200

_MARK = "lox-key-file-"
_PREFIX = _MARK + "1:"
WRITE_ONLY_MARK = "lox-write-only-"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A secret for one repository. `header` is the canonical JSON of all that it says beside the secret; `created` is
    ns since 1970."""

    repo_id: bytes
    label: str
    created: int
    header: bytes = field(repr=False)
    secret: bytes = field(repr=False)

    @classmethod
    def make(cls, repo_id: bytes, label: str = "") -> KeyFile:
        """A new one. Raises UsageError for a label that is too long."""
        if len(label) > LABEL_MAX:
            raise UsageError("the label of a key is too long", subject=label, hint=f"at most {LABEL_MAX} characters")
        header: Document = {"version": _VERSION, "repo_id": repo_id.hex(), "label": label, "created": time.time_ns()}
        return cls._of(header, os.urandom(KEY_SIZE))

    def encode(self) -> str:
        """One line of text, to be kept in a private file."""
        document = decode_document(self.header, "key file", KEY_FILE_MAX) | {"secret": self.secret.hex()}
        data = encode_document(document | {"checksum": document_checksum(document)})
        return _PREFIX + urlsafe_b64encode(data).decode()

    @classmethod
    def parse(cls, text: str) -> KeyFile | None:
        """The key file in a line of text, None if it is something else.

        Raises ConfigError if it is not whole, NewerFormat.
        """
        if not text.startswith(_MARK):
            return None
        if not text.startswith(_PREFIX):
            raise NewerFormat("key file was made by a newer version", subject=text[: len(_PREFIX)], hint="update lox")
        try:
            return cls._decode(urlsafe_b64decode(text.removeprefix(_PREFIX).strip()))
        except (Damaged, ValueError) as error:
            why = error.why or error.what if isinstance(error, Damaged) else "it is cut off or mistyped"
            hint = "take it from a copy, or make another one: lox key add --key-file"
            raise ConfigError("the key file is damaged", why=why, hint=hint) from error

    @classmethod
    def _decode(cls, data: bytes) -> KeyFile:
        name = "key file"
        document = decode_document(data, name, KEY_FILE_MAX)
        if document.pop("checksum", None) != document_checksum(document):
            raise Damaged("key file is damaged", subject=name, why="it does not match its checksum")
        if take(document, "version", int, name) != _VERSION:
            raise NewerFormat("key file was made by a newer version", hint="update lox")
        secret = take_hex(document, "secret", KEY_SIZE, name)
        del document["secret"]
        return cls._of(document, secret)

    @classmethod
    def _of(cls, header: Document, secret: bytes) -> KeyFile:
        name = "key file"
        repo_id, label = take_hex(header, "repo_id", REPO_ID_SIZE, name), take(header, "label", str, name)
        return cls(repo_id, label, take(header, "created", int, name), encode_document(header), secret)

    def expand(self, salt: bytes) -> tuple[bytes, bytes]:
        """(key encryption key, check value) of a slot with this `salt`, 32 bytes each."""
        info = purpose_info("key file", self.repo_id) + hashlib.sha256(self.header).digest()
        derived = hkdf(self.secret, info, salt, 2 * KEY_SIZE)
        return derived[:KEY_SIZE], derived[KEY_SIZE:]


def is_private_text(text: bytes) -> bool:
    """Whether a file that begins so was made by lox for one machine only: a key file, or a write-only key."""
    return text.startswith((_MARK.encode(), WRITE_ONLY_MARK.encode()))


def refuse_as_password(text: str) -> None:
    """Raises UsageError for what would not be taken for a password when it is given to open a repository."""
    if is_private_text(text.encode("utf-8", "surrogateescape")):
        hint = "lox key add --key-file FILE makes a new file"
        raise UsageError("this is a key made by lox, not a new password", hint=hint)
    if parse_recovery_code(text) is not None:
        raise UsageError("this is a recovery code, not a new password", hint="it opens the repository as it is")
