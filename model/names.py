"""Names as text: bytes of a file system in one printable line, so that different names always look different.

A name on a file system is any bytes but ``/`` and NUL: newlines that forge a line of output, escape sequences that
repaint the terminal, letters that turn the reading direction around. `shown` makes one readable, unambiguous line of
it: printable UTF-8 stays, everything else becomes ``\\n``, ``\\t``, ``\\x1b``, ``\\u202e``, and a backslash is doubled.
Bytes that are not UTF-8 become ``\\xff``.
"""

from __future__ import annotations

import re
import unicodedata

PLAIN = rb"[ -\[\]-~]*"  # what looks like itself
_PLAIN = re.compile(PLAIN + rb"\Z")
_SPECIAL = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Control, format (bidi overrides, zero-width joiners), unassigned, private, surrogates, line and paragraph separators.
_UNSEEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


def shown(name: bytes) -> str:
    """`name` as one printable line; different names give different lines."""
    if _PLAIN.match(name):
        return name.decode("ascii")
    return "".join([visible(letter, double=True) for letter in name.decode("utf-8", "surrogateescape")])


def visible(letter: str, *, double: bool) -> str:
    """One letter so that it can be seen; a backslash as two if `double`."""
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
