"""What all models share: strictness, times, bounded texts, pages."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints

PATHS_MAX = 10_000  # of one job or one restore
TAGS_MAX = 64


class Body(BaseModel):
    """The body of a request. Unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_max_length=65_536)


class Answer(BaseModel):
    """What comes back. Unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


def _utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("a time needs a zone, as in 2026-01-31T02:00:00Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("this is outside of the years 1 to 9999") from None


def rfc3339(value: datetime) -> str:
    """`value` as ``2026-01-31T02:00:00Z``, with a fraction only if there is one."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


Utc = Annotated[datetime, AfterValidator(_utc), PlainSerializer(rfc3339, return_type=str, when_used="json")]


def _no_control(value: str) -> str:
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise ValueError("control characters are not allowed")
    return value


def _path(value: str) -> str:
    if "\0" in value:
        raise ValueError("a path cannot hold a NUL")
    return value


def without_nul(value: str) -> str:
    """`value` with another sign for each NUL, which no text in PostgreSQL can hold: a log line with one is not lost."""
    return value.replace("\0", "\ufffd")


def _base64(value: str) -> str:
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"this is not base64: {error}") from error
    return value


Name = Annotated[
    str, StringConstraints(min_length=1, max_length=200, strip_whitespace=True), AfterValidator(_no_control)
]
Hostname = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?$")
]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$")]
Tags = Annotated[list[Tag], Field(max_length=TAGS_MAX)]
Path = Annotated[str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_path)]
Paths = Annotated[list[Path], Field(max_length=PATHS_MAX)]
PathsB64 = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=8192), AfterValidator(_base64)]],
    Field(max_length=PATHS_MAX),
]
HookName = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
SnapshotId = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[0-9a-zA-Z_-]+$")]
NICKNAMES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
Cron = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(lambda text: NICKNAMES.get(text.lower(), text)),
]
Zone = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9+_/-]+$")]
Count = Annotated[int, Field(ge=0, le=(1 << 63) - 1)]
Tally = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]  # of what is counted one by one
Mbps = Annotated[float, Field(gt=0, le=1_000_000, description="megabit per second")]

Item = TypeVar("Item")


class Page(Answer, Generic[Item]):
    """A part of a list. `next` is what to give as ``?cursor=`` for the part after it, None at the end."""

    items: list[Item]
    next: str | None = None
