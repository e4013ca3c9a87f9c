"""Names as text and as JSON: what a terminal shows of them (`model.names`), what programs read, how wide they are."""

from __future__ import annotations

import base64
import unicodedata

from model.names import shown, visible

__all__ = ["columns_of", "path_fields", "safe", "shorten", "shown", "shown_path"]


def shown_path(path: bytes) -> str:
    """A path of a snapshot (relative to ``/``, no leading slash) as the absolute path the user knows."""
    return "/" + shown(path)


def safe(text: str) -> str:
    """`text` that may hold names (messages, subjects of errors) without anything a terminal would obey.

    Backslashes stay single here, because such text is often made with `shown` already.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join([visible(letter, double=False) for letter in text])


def path_fields(path: bytes, key: str = "path") -> dict[str, str]:
    """`path` for JSON: as text, and exactly in base64 under ``path_b64`` when it is not UTF-8."""
    try:
        return {key: path.decode("utf-8")}
    except UnicodeDecodeError:
        exact = base64.b64encode(path).decode("ascii")
        return {key: path.decode("utf-8", "replace"), f"{key}_b64": exact}


def columns_of(text: str) -> int:
    """Terminal columns `text` takes: wide letters two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(letter) else 2 if unicodedata.east_asian_width(letter) in "WF" else 1
        for letter in text
    )


def shorten(text: str, columns: int) -> str:
    """`text` in at most `columns` terminal columns; the middle is left out because the end of a path says most."""
    if columns_of(text) <= columns:
        return text
    if columns < 2:
        return "…"[:columns]
    head = (columns - 1) // 3
    left, right = _taken(text, head), _taken(text[::-1], columns - 1 - head)
    return f"{left}…{right[::-1]}"


def _taken(text: str, columns: int) -> str:
    used = 0
    for position, letter in enumerate(text):
        used += columns_of(letter)
        if used > columns:
            return text[:position]
    return text
