"""JSON documents of the repository (config, key slots, snapshots): bounded parsing, canonical bytes, typed fields."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TypeVar

from model.errors import Damaged

Document = dict[str, object]
T = TypeVar("T")


def encode_document(document: Document) -> bytes:
    """Canonical bytes: keys sorted, no spaces, ASCII. Equal documents give equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def decode_document(data: bytes, subject: str, limit: int) -> Document:
    """The JSON object in `data`, which is at most `limit` bytes long. Raises Damaged naming `subject`."""
    if len(data) > limit:
        raise Damaged("object is too large", subject=subject, why=f"{len(data)} bytes, at most {limit} are allowed")
    try:
        document = json.loads(data.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Damaged("object is not valid JSON", subject=subject, why=type(error).__name__) from error
    if not isinstance(document, dict):
        raise Damaged("object is not a JSON object", subject=subject)
    return document


def document_checksum(document: Document) -> str:
    """SHA-256 in hex of the canonical document: finds damage without a key."""
    return hashlib.sha256(encode_document(document)).hexdigest()


def take(document: Document, key: str, kind: type[T], subject: str) -> T:
    """``document[key]``, which must be a `kind` (a bool is no int). Raises Damaged naming `subject`."""
    value = document.get(key)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Damaged("object lacks a valid field", subject=subject, why=f"{key} should be {kind.__name__}")
    return value


def take_hex(document: Document, key: str, size: int, subject: str) -> bytes:
    """The `size` bytes written as lower-case hex in ``document[key]``. Raises Damaged naming `subject`."""
    text = take(document, key, str, subject)
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != size or value.hex() != text:
        raise Damaged("object lacks a valid field", subject=subject, why=f"{key} should be {size} bytes in hex")
    return value


def _refuse(constant: str) -> object:
    raise ValueError(constant)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
