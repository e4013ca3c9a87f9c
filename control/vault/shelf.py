"""One repository in the vault: a folder of objects, what is on its way in, and how much room they may take."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

from control.vault import listing, uploads
from control.vault.uploads import Wanted
from control.vault.usage import Counter, Usage
from model.errors import Exists, StoreFull, Transient
from repository.store import LocalStore
from repository.store.local import translated

UPLOADS, USAGE = ".uploads", ".usage"  # no names of objects
RECOUNTS = 3
ROOM_LEFT = 256 << 20  # bytes of the file system that the vault leaves to the server's database


class Shelf:
    """Blocks: to be used in threads, any number of them. Raises StoreError.

    `quota` is in bytes, and counts what is on its way in as it will be.
    """

    def __init__(self, folder: str, quota: int | None) -> None:
        self.folder = folder
        self.objects = LocalStore(folder)
        self.quota = quota
        self._uploads = os.path.join(folder, UPLOADS)
        self._usage = Usage(os.path.join(folder, USAGE), self._counted)

    def make(self) -> None:
        """The folder, and what it lies in up to that of the vault, durably."""
        with translated(self.folder, writing=True):
            os.makedirs(self._uploads, mode=0o700, exist_ok=True)
            folder = self._uploads
            for _ in range(4):  # uploads, repository, tenant, vault
                _sync(folder)
                folder = os.path.dirname(folder)

    def begin(self, wanted: Wanted) -> uploads.Upload:
        """Where the bytes of an object go. Raises Exists, StoreFull, and Transient if what should be there is not."""
        if self.objects.exists(wanted.name):
            raise Exists("object exists already", subject=wanted.name)
        with translated(wanted.name, writing=True):
            with self._usage.locked() as counter:
                self._check_room(wanted, counter)
                fd, path = uploads.opened(wanted.path_in(self._uploads))
                os.utime(fd)
                there = os.fstat(fd).st_size
            upload = uploads.Upload(fd, path, wanted.size, min(wanted.begin, there))  # may read gigabytes
        if there < wanted.begin:
            upload.close(keep=True)
            raise Transient("the beginning of the upload is not here any more", subject=wanted.name)
        return upload

    def write(self, wanted: Wanted, upload: uploads.Upload, parts: Sequence[bytes]) -> None:
        """The next bytes. Raises StoreError, StoreFull among them."""
        with translated(wanted.name, writing=True):
            upload.write(parts)

    def finish(self, wanted: Wanted, upload: uploads.Upload) -> None:
        """Make it an object. Raises Exists, and Transient if it is not what was meant: then it has to come again."""
        try:
            with translated(wanted.name, writing=True):
                if not upload.is_whole(wanted.digest):
                    raise Transient("the content is not what was announced", subject=wanted.name)
                upload.sync()
                self.objects.adopt(wanted.name, upload.path)
                with self._usage.locked() as counter:
                    counter.add(wanted.size)
        finally:
            upload.close()

    def abandon(self, wanted: Wanted, upload: uploads.Upload) -> None:
        """The connection broke: keep what came, unless another brought all of it meanwhile."""
        upload.close(keep=not self.objects.exists(wanted.name))

    def received(self, wanted: Wanted) -> int:
        """How many bytes of an object are here from an upload that broke."""
        with translated(wanted.name):
            return uploads.length_of(wanted.path_in(self._uploads))

    def told(self, name: str) -> tuple[int, int]:
        """Size of an object in bytes, and when it was stored, in ns since the epoch. Raises Missing."""
        return self.objects.size(name), self.objects.written(name) or 0

    def page(self, prefix: str, after: str, limit: int) -> tuple[list[listing.Stored], bool]:
        """See `listing.page`."""
        with translated(prefix or "/"):
            return listing.page(self.folder, prefix, after, limit)

    def delete(self, name: str) -> int:
        """Take an object away, and tell its size. Raises Missing."""
        size = self.objects.size(name)
        self.objects.delete(name)
        with translated(name), self._usage.locked() as counter:
            counter.add(-size)
        return size

    def used(self) -> int:
        """Bytes that the objects take."""
        with translated(self.folder):
            return self._usage.bytes()

    def tidy(self, recount: bool = False) -> bool:
        """Give up uploads that nobody goes on with, and count what a killed process did not come to count.

        Returns False if what is stored and deleted meanwhile kept it from counting.
        """
        with translated(self.folder):
            with self._usage.locked() as counter:
                for kept in list(self._kept()):
                    if kept.finished or kept.old:
                        self._give_up(kept, counter)
            return not recount or any(self._recount() for _ in range(RECOUNTS))

    def _recount(self) -> bool:
        """Whether nothing changed: nobody waits for the walk through all objects."""
        before, counted = self._usage.bytes(), self._counted()
        with self._usage.locked() as counter:
            if counter.bytes != before or any(kept.finished for kept in self._kept()):
                return False  # something came or went, or is an object already and not counted yet
            counter.set(counted)
            return True

    def _give_up(self, kept: uploads.Kept, counter: Counter) -> None:
        with contextlib.suppress(FileNotFoundError):
            fd = os.open(kept.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if uploads.held(fd):  # else somebody is at work on it
                    if kept.finished:
                        counter.add(kept.size)
                    os.unlink(kept.path)
            finally:
                os.close(fd)

    def _check_room(self, wanted: Wanted, counter: Counter) -> None:
        own = wanted.path_in(self._uploads)
        kept = self._few(list(self._kept()), counter)
        coming = sum(each.takes for each in kept if each.path != own and not each.finished)
        if self.quota is not None and counter.bytes + coming + wanted.size > self.quota:
            why = f"{counter.bytes + coming:,} of {self.quota:,} bytes are in use"
            raise StoreFull("the quota of the repository is used up", subject=wanted.name, why=why)
        room = os.statvfs(self.folder)
        if room.f_bavail * room.f_frsize < wanted.size + ROOM_LEFT:
            raise StoreFull("the vault has no room left", subject=wanted.name)

    def _few(self, kept: list[uploads.Kept], counter: Counter) -> list[uploads.Kept]:
        """Uploads that broke give way, the oldest first, before anybody has to wait. Raises Transient."""
        if len(kept) < uploads.UPLOADS_MAX:
            return kept
        for each in sorted(kept, key=lambda each: each.status.st_mtime)[: uploads.UPLOADS_MAX // 2]:
            self._give_up(each, counter)
        kept = list(self._kept())
        if len(kept) >= uploads.UPLOADS_MAX:
            why = f"{uploads.UPLOADS_MAX} are under way"
            raise Transient("too many uploads at a time", subject=self.folder, why=why, retry_after=10.0)
        return kept

    def _kept(self) -> Iterator[uploads.Kept]:
        return uploads.all_in(self._uploads)

    def _counted(self) -> int:
        return sum(stored.size for stored in listing.everything(self.folder))


def _sync(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
