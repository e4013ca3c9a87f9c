"""What this host remembers of the repositories it worked on, so that a store cannot show it something older or other.

    <cache>/seen/<BLAKE3 of the store's URL and the id of a write-only key> = JSON: id, encrypted or not, newest epoch

Somebody who may write to the store can put a repository without encryption in the place of ours, or take the newest
epoch away so that we write under keys that others know. Whoever opens a place for the first time cannot tell; a host
that was there before can. Deleting the file makes it the first time again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from model.errors import LoxError, WrongPassword
from repository.documents import Document, decode_document, encode_document, take, take_hex
from repository.keys import REPO_ID_SIZE
from repository.repository import Repository

SEEN_FOLDER = "seen"
SEEN_MAX = 64 << 10  # bytes


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen at one place."""

    repo_id: bytes
    encrypted: bool
    epoch: int


def seen_path(repository: Repository, cache_dir: Path) -> Path:
    """Where it is remembered what was seen of the repository; for a write-only key apart."""
    place = f"{repository.store.url} {repository.writer}".encode("utf-8", "surrogateescape")
    return cache_dir / SEEN_FOLDER / blake3(place).hexdigest(16)


def check_seen(repository: Repository, cache_dir: Path) -> None:
    """Compare an opened repository with what was there before, and remember it.

    Raises WrongPassword for another repository, or one that lost its encryption. If the newest epoch is one that was
    passed before, the repository can be read and nothing is written.
    """
    path = seen_path(repository, cache_dir)
    before, now = _read(path), _seen_of(repository)
    if before is not None and (before.repo_id, before.encrypted) != (now.repo_id, now.encrypted):
        what = "another repository" if before.repo_id != now.repo_id else "the repository has no encryption any more"
        raise WrongPassword(
            "this is not the repository that was here before",
            subject=repository.store.url,
            why=f"{what}; it was {before.repo_id.hex()[:8]}",
            hint=f"if you replaced it yourself, delete {path}; else do not write to it",
        )
    if before is not None and before.epoch > now.epoch:
        repository.keys.regressed = before.epoch
        return
    if before != now:
        _write(path, now)


def remember(repository: Repository, cache_dir: Path) -> None:
    """Seen a repository that was just created here, whatever was at its place before."""
    _write(seen_path(repository, cache_dir), _seen_of(repository))


def _seen_of(repository: Repository) -> Seen:
    return Seen(repository.id, repository.encrypted, repository.keys.epoch)


def _read(path: Path) -> Seen | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            document = decode_document(file.read(SEEN_MAX + 1), path.name, SEEN_MAX)
        encrypted, epoch = take(document, "encrypted", bool, path.name), take(document, "epoch", int, path.name)
        return Seen(take_hex(document, "repo_id", REPO_ID_SIZE, path.name), encrypted, epoch)
    except (OSError, LoxError):  # none yet, or a damaged one
        return None


def _write(path: Path, seen: Seen) -> None:
    """Mode 0600, all of it or nothing; without a place for it, nothing is remembered."""
    document: Document = {"repo_id": seen.repo_id.hex(), "encrypted": seen.encrypted, "epoch": seen.epoch}
    temporary = ""
    import tempfile  # brings much along that comparing does not need

    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=".new-", dir=path.parent)
        with os.fdopen(fd, "wb") as file:
            file.write(encode_document(document))
        os.rename(temporary, path)
    except OSError:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
