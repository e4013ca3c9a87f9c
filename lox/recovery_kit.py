"""The recovery kit: a sheet of paper with all it takes to restore when everything but the store is lost."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lox.escape import safe
from model import __version__

if TYPE_CHECKING:
    from repository.repository import Repository
    from repository.slots import KeySlot

EXTRAS = {"s3": "s3", "gs": "gs", "az": "az", "abfs": "az", "sftp": "sftp"}

TEXT = """\
LOX BACKUP RECOVERY KIT

Made         {date}
Repository   {repository}
Where        {url}
Key          {slot}

Recovery code (case, spaces and dashes do not matter):

    {code}

Whoever has this code and can read the repository can read all backups. Keep this sheet where neither fire nor
thieves get it together with the machines it is for.

To restore on a new machine (Linux, Python 3.11 or newer):

    python3 -m venv lox && . lox/bin/activate
    pip install {package}
    export LOX_REPOSITORY={quoted}
    lox key test --ask          # type the code: does it open everything?
    lox snapshots               # type the code where a password is asked for
    lox restore latest --target /restored

The store may want credentials of its own, which are not on this sheet: see 'lox help environment'.
To set a new password:   lox key add
If this sheet is lost:   lox key remove {slot}, then lox key rotate
Made with lox {version}. The format of the repository is described in docs/format.md of LOX Backup.
"""


@dataclass(frozen=True, slots=True, repr=False)
class Kit:
    """The sheet, and what is secret on it."""

    text: str
    code: str
    slot: KeySlot


def make_kit(repository: Repository) -> Kit:
    """A new recovery code and the sheet for it. Raises UsageError without encryption, StoreError."""
    day = time.strftime("%Y-%m-%d")
    slot, code = repository.add_recovery_code(f"recovery kit of {day}")
    url = repository.store.url
    extra = EXTRAS.get(url.partition("://")[0]) if "://" in url else None
    text = TEXT.format(
        date=day,
        repository=repository.id.hex(),
        url=safe(url),
        slot=slot.id[:8],
        code=code,
        quoted=safe(shlex.quote(url)),
        package=f"'lox-backup[{extra}]'" if extra else "lox-backup",
        version=__version__,
    )
    return Kit(text, code, slot)
