"""The config object: what was settled when the repository was created and never changes."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from model.chunking import ChunkerParams
from model.errors import ConfigError, Damaged, NewerFormat
from repository.documents import Document, decode_document, encode_document, take, take_hex
from repository.keys import KEY_SIZE, REPO_ID_SIZE, ChunkKeys

CONFIG_NAME = "config"
CONFIG_MAX = 64 << 10  # bytes of an opened config

_VERSION = 1
_CHUNK_IDS = {"aes-256-gcm": "hmac-sha-256", "none": "sha-256"}
_KNOWN_FEATURES: frozenset[str] = frozenset()


class Operation(StrEnum):
    """What a program may want to do; a feature can be needed for some of it only."""

    READ = "read"
    WRITE = "write"
    CHECK = "check"
    GC = "gc"


@dataclass(frozen=True, slots=True)
class Config:
    """`features` names, for each operation, what a program must understand to do it; none in this version.

    `chunk_keys` are those of the repository this one was made to be copied to; None: derived from its own master key.
    """

    repo_id: bytes
    encryption: str
    chunker: ChunkerParams
    created: int = field(default_factory=time.time_ns)  # ns since the epoch, by the clock of whoever ran init
    features: tuple[tuple[Operation, frozenset[str]], ...] = ()
    chunk_keys: ChunkKeys | None = None

    def __post_init__(self) -> None:
        if self.encryption not in _CHUNK_IDS:
            raise ConfigError("unknown encryption", subject=self.encryption, hint=" or ".join(_CHUNK_IDS))
        assert self.chunk_keys is None or self.encryption != "none", "a config that anybody can read holds no keys"

    def require(self, operation: Operation) -> None:
        """Raises NewerFormat if `operation` needs a feature this program does not have."""
        unknown = set().union(*(names for needed, names in self.features if needed is operation)) - _KNOWN_FEATURES
        if unknown:
            raise NewerFormat(
                f"the repository needs features this version cannot {operation.value} with",
                subject=", ".join(sorted(unknown)),
                hint="update lox",
            )

    def encode(self) -> bytes:
        """Canonical JSON."""
        document: Document = {
            "version": _VERSION,
            "repo_id": self.repo_id.hex(),
            "created": self.created,
            "encryption": self.encryption,
            "chunk_id": _CHUNK_IDS[self.encryption],
            "chunker": asdict(self.chunker),
            "features": {operation.value: sorted(names) for operation, names in self.features},
        }
        if self.chunk_keys is not None:
            keys = {"id": self.chunk_keys.id_key.hex(), "chunker": self.chunk_keys.chunker_key.hex()}
            document["chunk_keys"] = keys
        return encode_document(document)

    @classmethod
    def decode(cls, data: bytes) -> Config:
        """Raises Damaged, NewerFormat."""
        document = decode_document(data, CONFIG_NAME, CONFIG_MAX)
        version = take(document, "version", int, CONFIG_NAME)
        if version > _VERSION:
            raise NewerFormat("the repository was created by a newer version", subject=f"config version {version}")
        encryption = take(document, "encryption", str, CONFIG_NAME)
        if encryption not in _CHUNK_IDS:
            raise NewerFormat("encrypted in a way this version does not know", subject=encryption[:40])
        if take(document, "chunk_id", str, CONFIG_NAME) != _CHUNK_IDS[encryption]:
            raise NewerFormat("chunks are named in a way this version does not know", subject=CONFIG_NAME)
        return cls(
            repo_id=take_hex(document, "repo_id", REPO_ID_SIZE, CONFIG_NAME),
            encryption=encryption,
            chunker=_decode_chunker(take(document, "chunker", dict, CONFIG_NAME)),
            created=take(document, "created", int, CONFIG_NAME),
            features=_decode_features(take(document, "features", dict, CONFIG_NAME)),
            chunk_keys=_decode_chunk_keys(document, encryption),
        )


def _decode_chunker(fields: Document) -> ChunkerParams:
    kind = take(fields, "kind", str, CONFIG_NAME)
    if kind not in ("gear", "fixed"):
        raise NewerFormat("chunked in a way this version does not know", subject=kind[:40])
    names = ("minimum", "average", "maximum", "normalization")
    minimum, average, maximum, normalization = (take(fields, name, int, CONFIG_NAME) for name in names)
    try:
        return ChunkerParams(kind, minimum, average, maximum, normalization)
    except ConfigError as error:
        raise Damaged("impossible chunker parameters", subject=CONFIG_NAME, why=error.what) from error


def _decode_chunk_keys(document: Document, encryption: str) -> ChunkKeys | None:
    if "chunk_keys" not in document:
        return None
    if encryption == "none":
        raise Damaged("object lacks a valid field", subject=CONFIG_NAME, why="chunk_keys without encryption")
    fields = take(document, "chunk_keys", dict, CONFIG_NAME)
    return ChunkKeys(*(take_hex(fields, name, KEY_SIZE, CONFIG_NAME) for name in ("id", "chunker")))


def _decode_features(fields: Document) -> tuple[tuple[Operation, frozenset[str]], ...]:
    features = []
    for operation in Operation:
        names = fields.get(operation.value, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Damaged("object lacks a valid field", subject=CONFIG_NAME, why="features should be lists of names")
        if names:
            features.append((operation, frozenset(names)))
    return tuple(features)
