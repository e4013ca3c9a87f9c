"""Taking secrets out of what is logged, told and printed: tokens by their form, values by their name."""

from __future__ import annotations

import re
from typing import Any

REDACTED = "[redacted]"
_SECRETS = re.compile(
    r"lox_(agt|cred|api)_[A-Za-z0-9_-]+"
    r"|(?i:(?<=bearer )|(?<=bearer: ))[A-Za-z0-9._~+/=-]{8,}"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
    r"|(?i:(?<=password=)|(?<=secret=)|(?<=token=))[^\s&,;]+"
)
_NAMES = re.compile(r"passw|secret|token|credential|authorization|recovery_?code|private_?key|api_?key", re.I)


def redact(text: str) -> str:
    """`text` without anything that looks like a token, a credential or a password."""
    return _SECRETS.sub(REDACTED, text)


def redacted(value: Any) -> Any:
    """The same for what JSON can hold; values of names that sound like secrets go as a whole."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: REDACTED if _NAMES.search(str(key)) else redacted(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(one) for one in value]
    return value if isinstance(value, int | float | None) else redact(str(value))
