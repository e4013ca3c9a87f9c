"""What a restore with --delete must never delete: whatever the backup had left out, and the repository itself.

A snapshot therefore remembers by which rules its entries were chosen.
"""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from model.errors import NotFound
from sources.files.mounts import pseudo_devices
from sources.files.patterns import Patterns

if TYPE_CHECKING:
    from pipelines.backup import BackupRequest
    from repository.snapshot import Snapshot

SELECTION = "selection"  # the field of a snapshot
UNLISTED_BYTES = 1 << 20  # of paths a snapshot remembers
CACHE_TAG = b"CACHEDIR.TAG"


def selection_of(request: BackupRequest, unlisted: Sequence[bytes] = ()) -> Mapping[str, object]:
    """What a snapshot has to remember beside its excludes: what was asked for, and folders nobody could look into."""
    selection: dict[str, object] = {}
    if request.one_file_system:
        selection["one_file_system"] = True
    if unlisted:  # too many to name: then nothing is known to be gone
        named = unlisted if sum(map(len, unlisted)) <= UNLISTED_BYTES else [b""]
        selection["unlisted"] = [b64encode(path).decode() for path in named]
    if request.includes:
        selection["includes"] = [b64encode(line).decode() for line in request.includes]
    if request.exclude_caches:
        selection["exclude_caches"] = True
    if request.exclude_larger_than is not None:
        selection["exclude_larger_than"] = request.exclude_larger_than
    return {SELECTION: selection} if selection else {}


def left_out(snapshot: Snapshot, path: bytes, is_directory: bool, size: int = 0) -> str | None:
    """By which of its rules a backup left out `path` (relative to ``/``; `size` bytes), None if by none it remembers.

    Caches and other file systems are left out by what was there then, which nobody remembers.
    """
    selection: Any = snapshot.extra.get(SELECTION) or {}
    if not any(not root or path == root or path.startswith(root + b"/") for root in snapshot.roots):
        return "it is not below the paths that were backed up"
    for above in (b64decode(text) for text in selection.get("unlisted", ())):
        if not above or path.startswith(above + b"/"):
            return "a folder above it could not be listed"
    path, roots = on_its_host(snapshot, path), [root.strip(b"/") for root in snapshot.paths]
    includes = [b64decode(line) for line in selection.get("includes", ())]
    patterns = Patterns.compile(snapshot.excludes, includes, roots)
    parts = path.split(b"/")
    for depth in range(1, len(parts)):
        above = b"/".join(parts[:depth])
        if above not in roots and patterns.excludes(above, True):
            return "a folder above it was excluded"
    if path not in roots and patterns.excludes(path, is_directory):
        return "it was excluded"
    largest = selection.get("exclude_larger_than")
    if not is_directory and largest is not None and size > largest:
        return "it was too large (--exclude-larger-than)"
    return None


def on_its_host(snapshot: Snapshot, path: bytes) -> bytes:
    """The path of an entry as it was on the host it is of: without the folder of that, if there are many."""
    return path.partition(b"/")[2] if snapshot.hosts else path


def of_host(snapshot: Snapshot, host: str) -> Snapshot:
    """The part of one host, as if it had been backed up alone. Raises NotFound if it has none."""
    if host not in snapshot.hosts:
        why = f"it is of {', '.join(snapshot.hosts)}" if snapshot.hosts else "it is not of many hosts"
        raise NotFound("a snapshot has no part of this host", subject=host, why=why)
    known: Any = snapshot.extra.get(SELECTION) or {}
    selection = dict(known)
    folder = os.fsencode(host) + b"/"
    if unlisted := [b64decode(text) for text in selection.pop("unlisted", ())]:
        own = [path.removeprefix(folder) for path in unlisted if not path or path.startswith(folder)]
        selection["unlisted"] = [b64encode(path).decode() for path in own]
    return snapshot._replace(hosts=(), extra={**snapshot.extra, SELECTION: selection})


def keeper(snapshot: Snapshot, target: bytes, repository_url: str) -> Callable[[bytes, bool], bool]:
    """``keep(path, is_directory)`` for `RestoreOptions`: paths are relative to `target`."""
    selection: Any = snapshot.extra.get(SELECTION) or {}
    includes = [b64decode(line) for line in selection.get("includes", ())]
    patterns = Patterns.compile(snapshot.excludes, includes, [path.strip(b"/") for path in snapshot.paths])
    largest = selection.get("exclude_larger_than")
    caches = bool(selection.get("exclude_caches"))
    unlisted = tuple(b64decode(path) for path in selection.get("unlisted", ()))
    pseudo = pseudo_devices()
    own_devices = (
        {_device(os.path.join(target, root)) for root in snapshot.roots} if "one_file_system" in selection else None
    )
    own = os.path.realpath(os.fsencode(repository_url.removeprefix("file://")))

    @lru_cache(maxsize=4096)
    def in_cache(directory: bytes) -> bool:
        if os.path.lexists(os.path.join(directory, CACHE_TAG)):
            return True
        return len(directory) > len(target) and in_cache(os.path.dirname(directory))

    @lru_cache(maxsize=4096)
    def elsewhere(directory: bytes) -> bool:
        """On a file system that the backup did not enter."""
        device = _device(directory)
        return device in pseudo or (own_devices is not None and device not in own_devices)

    def keep(path: bytes, is_directory: bool) -> bool:
        whole = os.path.join(target, path)
        if elsewhere(os.path.dirname(whole)):
            return True
        if any(not above or path.startswith(above + b"/") for above in unlisted):
            return True
        if own == whole or own.startswith(whole + b"/") or whole.startswith(own + b"/"):
            return True
        if patterns.excludes(on_its_host(snapshot, path), is_directory):
            return True
        if caches and in_cache(os.path.dirname(whole)):
            return True
        return not is_directory and largest is not None and _size(whole) > largest

    return keep


def _size(path: bytes) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _device(path: bytes) -> int | None:
    try:
        return os.lstat(path).st_dev
    except OSError:
        return None
