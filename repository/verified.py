"""When which pack was read to its last byte, and with what result: what a rolling scrub goes by.

Remembered in the local cache of the repository, as a log that grows by one record for each pack:

    pack id (16) | ns since the epoch (8) | sound (1) | MAC (7)

The MAC is keyed by the repository: nobody else can have a pack pass for verified. What is lost of the log, torn or
forged is read again, nothing worse.
"""

from __future__ import annotations

import os
import struct
import tempfile
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

if TYPE_CHECKING:
    from repository.repository import Repository

NAME = "verified"
LOG_MAX = 64 << 20  # bytes read of a log: two million records

_RECORD = struct.Struct("<16sQB7s")
assert _RECORD.size == 32


class VerifiedLog:
    """The times of the last readings; without a file they are forgotten with the process."""

    def __init__(self, path: Path | None, key: bytes = bytes(32)) -> None:
        self.times: dict[bytes, int] = {}  # by pack id, ns since the epoch; only of packs found sound
        self.damaged: set[bytes] = set()  # packs that were damaged when they were read last
        self._path = path
        self._key = key

    @classmethod
    def open(cls, repository: Repository, cache_dir: Path) -> VerifiedLog:
        """The log of a repository below `cache_dir`. Trouble with the file costs the memory, not the check."""
        folder = cache_dir / repository.id.hex()
        key = repository.keys.local_key("verified packs")
        log = cls(folder / NAME, key)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            log._read()
        except OSError:
            log._path = None
        return log

    def record(self, pack_id: bytes, sound: bool, now: int | None = None) -> None:
        """The pack was read to its last byte, `now`, in ns since the epoch."""
        now = time.time_ns() if now is None else now
        self._take(pack_id, now, sound)
        if self._path is None:
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, self._encode(pack_id, now, sound))  # one write: a kill leaves all of it or none
            finally:
                os.close(fd)
        except OSError:
            self._path = None

    def suspect(self, packs: Iterable[bytes]) -> None:
        """Something of these did not open: whoever reads packs next reads them whole."""
        for pack in packs:
            self.record(pack, sound=False)

    def keep(self, packs: Collection[bytes]) -> None:
        """Forget all other packs: they are gone. The log becomes as short as it can be."""
        self.times = {pack: at for pack, at in self.times.items() if pack in packs}
        self.damaged.intersection_update(packs)
        if self._path is None:
            return
        records = [self._encode(pack, at, True) for pack, at in self.times.items()]
        records += [self._encode(pack, 0, False) for pack in self.damaged]
        try:
            fd, temporary = tempfile.mkstemp(prefix=".new-", dir=self._path.parent)
            with os.fdopen(fd, "wb") as out:
                out.write(b"".join(records))
            os.rename(temporary, self._path)
        except OSError:
            self._path = None

    def _take(self, pack_id: bytes, at: int, sound: bool) -> None:
        if sound:
            self.times[pack_id] = at
            self.damaged.discard(pack_id)
        else:
            self.times.pop(pack_id, None)
            self.damaged.add(pack_id)

    def _read(self) -> None:
        assert self._path is not None
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        with os.fdopen(fd, "rb") as source:
            data = source.read(LOG_MAX)
        now = time.time_ns()
        if torn := len(data) % _RECORD.size:
            os.truncate(self._path, len(data) - torn)
        for pack_id, at, sound, mac in _RECORD.iter_unpack(data[: len(data) - torn]):
            if mac == self._mac(pack_id, at, sound) and at <= now:  # a time to come is that of a wrong clock
                self._take(pack_id, at, bool(sound))

    def _encode(self, pack_id: bytes, at: int, sound: bool) -> bytes:
        return _RECORD.pack(pack_id, at, sound, self._mac(pack_id, at, sound))

    def _mac(self, pack_id: bytes, at: int, sound: bool) -> bytes:
        return blake3(struct.pack("<16sQB", pack_id, at, sound), key=self._key).digest(7)
