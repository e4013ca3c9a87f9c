"""What is asked of a restore into a directory, and what came of it."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field

from sources.files.existing import Keep

Problems = list[tuple[bytes, str]]  # (path, what is wrong with it)


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What the user wants of a restore.

    ``overwrite``: ``always``; ``if-changed`` (default): content is written unless a file of that size and mtime is
    there; ``if-newer``: what is there is kept unless the snapshot's is newer; ``never``: what is there is kept.
    Metadata is corrected on everything that is not kept.

    ``delete`` removes what the snapshot does not have, after everything is written. Only in directories at or below a
    path of `complete` (see `complete_below`), never in a directory that could not be listed during backup, never on
    another file system mounted there, and nothing for which `keep` (path, is it a directory) is true: the caller must
    make that true for whatever the backup's patterns left out, and for the repository itself.

    Without `permissions`, what is made is as if this user had made it: no recorded owner, ACL, attribute or set-id bit,
    and of the recorded mode what the umask leaves; what is there already keeps its own.
    """

    overwrite: str = "if-changed"
    delete: bool = False
    dry_run: bool = False
    permissions: bool = True
    owner: bool = True
    numeric_owner: bool = False  # take recorded numbers even if this host knows the recorded name
    devices: bool = True
    privileges: bool = True  # set-id bits, security.* and trusted.* xattrs
    complete: tuple[bytes, ...] = ()
    keep: Keep | None = None


@dataclass(slots=True)
class TargetSummary:
    """What a restore did. `notes` counts what this user or file system cannot do; problems name entries."""

    files: int = 0  # written
    bytes: int = 0  # of content
    skipped: int = 0  # files there already, or kept
    directories: int = 0
    links: int = 0  # further names of files
    others: int = 0  # symbolic links, FIFOs, sockets, devices
    deleted: int = 0
    problems: Problems = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


def current_umask() -> int:
    """The umask of this process; to read it is to set it, so that no other thread should make files just now."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
