r"""Names as text that is safe to print.

A name in a file system is any bytes but ``/`` and NUL: newlines that forge a line of output, escape sequences that
repaint the terminal, letters that turn the reading direction around. `shown` makes one readable, unambiguous line of
it: printable UTF-8 stays, everything else becomes ``\n``, ``\t``, ``\x1b``, ``\u202e``, and a backslash is doubled, so
that different names always look different. Bytes that are not UTF-8 become ``\xff``.
"""

from __future__ import annotations

import base64
import re
import unicodedata

_PLAIN = re.compile(rb"[ -\[\]-~]*\Z")
_SPECIAL = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Control, format (bidi overrides, zero-width joiners), unassigned, private, surrogates, line and paragraph separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def shown(name: bytes) -> str:
    """`name` as one printable line; different names give different lines."""
    if _PLAIN.match(name):
        return name.decode("ascii")
    return "".join([_one(letter, double=True) for letter in name.decode("utf-8", "surrogateescape")])


def shown_path(path: bytes) -> str:
    """A path of a snapshot (relative to ``/``, no leading slash) as the absolute path the user knows."""
    return "/" + shown(path)


def safe(text: str) -> str:
    """`text` that may hold names (messages, subjects of errors) without anything a terminal would obey.

    Backslashes stay single here, because such text is often made with `shown` already.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join([_one(letter, double=False) for letter in text])


def _one(letter: str, *, double: bool) -> str:
    code = ord(letter)
    if letter == "\\":
        return "\\\\" if double else letter
    if letter in _SPECIAL:
        return _SPECIAL[letter]
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as surrogateescape keeps it
        return f"\\x{code - 0xDC00:02x}"
    if unicodedata.category(letter) not in _UNSEEN:
        return letter
    if code < 0x80:
        return f"\\x{code:02x}"
    # \u even below 0x100: \x80 is taken by the single byte that is no UTF-8.
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


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
