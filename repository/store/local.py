"""Objects as files in a folder, written so that a power cut leaves either the whole object or none."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence

from model.errors import Exists, Missing, Refused, StoreError, StoreFull, Transient
from repository.store.base import Bytes, Leftover, Store, check_name, is_part

TEMPORARY = ".tmp-"  # how names of files begin that are not objects yet
_WRITEV_MAX = 512  # parts per writev(2), below IOV_MAX
_DIRECT_MIN, _DIRECT_ALIGN = 1 << 20, 4096  # bytes from which an object bypasses the page cache; block size
FOLDERS = 16  # times a folder is made that others remove because it was empty a moment ago
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1

_KINDS: dict[int, type[StoreError]] = {
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), Missing),
    errno.EEXIST: Exists,
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), StoreFull),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP), Refused),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EHOSTDOWN), Transient),
}
_HINTS: dict[type[StoreError], str] = {
    StoreFull: "free some room or raise the quota; what was stored so far will be used by the next run",
    Refused: "check the owner and permissions of the repository folder, and that it is not mounted read-only",
}


class LocalStore(Store):
    """Files below `path`: folders 0700, files 0400.

    A new object is written beside its final name as ``.tmp-<random>``, synced, linked to the name (which fails if
    it is taken), and the folder is synced. Temporary files that a crash leaves are no objects: `leftovers`.
    """

    def __init__(self, path: str) -> None:
        self.url = os.path.abspath(path)
        self._durable: set[str] = set()  # folders whose entry in their parent this process has synced

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        with translated(name):
            fd = self._open(name)
            try:
                room = max(0, os.fstat(fd).st_size - offset)
                return _read(fd, offset, room if length is None else min(length, room))
            finally:
                os.close(fd)

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        final = self._path(name)
        folder = os.path.dirname(final)
        if os.path.lexists(final):
            raise Exists("object exists already", subject=name)
        with translated(name, writing=True):
            self._make_durable(folder)
            temporary = os.path.join(folder, f"{TEMPORARY}{os.urandom(8).hex()}")
            try:
                self._write(temporary, parts)
                _publish(temporary, final)
            finally:
                with contextlib.suppress(OSError):  # gone if it was renamed; else the first error is what counts
                    os.unlink(temporary)
            _sync_folder(folder)

    def adopt(self, name: str, path: str) -> None:
        """As `put` of the synced file `path` of the same file system, which keeps that name, too."""
        final = self._path(name)
        folder = os.path.dirname(final)
        with translated(name, writing=True):
            self._make_durable(folder)
            try:
                os.link(path, final, follow_symlinks=False)
            except FileNotFoundError:  # the folder was removed under us; make it again
                self._durable.clear()
                self._make_durable(folder)
                os.link(path, final, follow_symlinks=False)
            _sync_folder(folder)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        folder = prefix.rpartition("/")[0]
        with translated(prefix or "/"):
            yield from self._walk(folder, prefix)

    def size(self, name: str) -> int:
        with translated(name):
            status = os.stat(self._path(name), follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError("not a file", subject=name)
        return status.st_size

    def delete(self, name: str) -> None:
        path = self._path(name)
        folder = os.path.dirname(path)
        with translated(name):
            status = os.stat(path, follow_symlinks=False)
            os.unlink(path)
            if status.st_nlink > 1:
                _unlink_temporary(folder, status.st_ino)
            try:
                _sync_folder(folder)
            except FileNotFoundError:  # somebody else deleted the last of it, and the folder
                _sync_folder(os.path.dirname(folder))
        if name.count("/") > 1:  # there would be a folder for each session there ever was
            with contextlib.suppress(OSError):  # others are in it
                os.rmdir(folder)
                self._durable.discard(folder)

    def written(self, name: str) -> int | None:
        with translated(name):
            return os.stat(self._path(name), follow_symlinks=False).st_mtime_ns

    def leftovers(self) -> Iterator[Leftover]:
        with translated("/"):
            yield from self._leftovers_below("")

    def remove_leftover(self, leftover: Leftover) -> None:
        with translated(leftover.path), contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.url, leftover.path))

    def _leftovers_below(self, folder: str) -> Iterator[Leftover]:
        try:
            with os.scandir(os.path.join(self.url, folder)) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in found:
            path = os.path.join(folder, entry.name)
            if entry.is_dir(follow_symlinks=False) and is_part(entry.name):
                yield from self._leftovers_below(path)
            elif entry.name.startswith(TEMPORARY) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # it became an object
                    status = entry.stat(follow_symlinks=False)
                    own = status.st_size if status.st_nlink == 1 else 0  # else it is an object's second name
                    yield Leftover(path, own, status.st_mtime_ns)

    def _path(self, name: str) -> str:
        return os.path.join(self.url, check_name(name))

    def _open(self, name: str) -> int:
        # O_NONBLOCK: a FIFO put there by somebody else must not hang us.
        fd = os.open(self._path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise StoreError("not a file", subject=name)
        return fd

    def _write(self, path: str, parts: Sequence[Bytes]) -> None:
        fd = self._create(path)
        try:
            views = [memoryview(part).cast("B") for part in parts if len(part)]
            _write_all(fd, _write_around_cache(fd, views))
            os.fsync(fd)  # a failed fsync may drop dirty pages: never repeated on this file, the temporary one goes
        finally:
            os.close(fd)

    def _create(self, path: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        for _ in range(FOLDERS - 1):
            try:
                return os.open(path, flags, 0o400)
            except FileNotFoundError:  # the folder was removed under us; make it again
                self._durable.clear()
                self._make_durable(os.path.dirname(path))
        return os.open(path, flags, 0o400)

    def _make_durable(self, folder: str) -> None:
        """Create `folder` and its parents, and sync each into its parent.

        Of the repository also those that exist: the process that made one may not have come to syncing it.
        """
        if folder in self._durable:
            return
        parent = os.path.dirname(folder)
        inside = folder.startswith(self.url + "/")
        if inside or not os.path.isdir(parent):
            self._make_durable(parent)
        try:
            os.mkdir(folder, 0o700)
            made = True
        except FileExistsError:
            made = False
        if made or inside:
            _sync_folder(parent)
        elif folder == self.url:
            with contextlib.suppress(PermissionError):  # above us not all is ours to open
                _sync_folder(parent)
        self._durable.add(folder)

    def _walk(self, folder: str, prefix: str) -> Iterator[tuple[str, int]]:
        """As `list`, below `folder`. Of objects there may be very many in one: no call is made twice."""
        above = folder and folder + "/"
        try:
            fd = os.open(os.path.join(self.url, folder), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            with os.scandir(fd) as entries:
                # A folder sorts as its children do, so that the whole listing is sorted by full name.
                found = [entry.name + "/" if entry.is_dir() else entry.name for entry in entries if is_part(entry.name)]
            found.sort()
            for name in found:
                full = above + name
                if name[-1] == "/":
                    if full.startswith(prefix) or prefix.startswith(full):
                        yield from self._walk(full[:-1], prefix)
                elif full.startswith(prefix):
                    try:
                        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    except FileNotFoundError:  # deleted while we listed
                        continue
                    if stat.S_ISREG(status.st_mode):
                        yield full, status.st_size
        finally:
            os.close(fd)


def _read(fd: int, offset: int, length: int) -> bytes:
    first = os.pread(fd, length, offset)
    if len(first) == length or not first:
        return first
    pieces, got = [first], len(first)
    while got < length:
        piece = os.pread(fd, length - got, offset + got)
        if not piece:
            break
        pieces.append(piece)
        got += len(piece)
    return b"".join(pieces)


def _write_around_cache(fd: int, views: list[memoryview]) -> list[memoryview]:
    """Write the beginning of a large object straight to the device, where file system and memory allow; the rest.

    The page cache belongs to what the host serves, and copying into it costs as much as sealing.
    """
    first = views[0] if views else memoryview(b"")
    size = first.nbytes // _DIRECT_ALIGN * _DIRECT_ALIGN
    if size < _DIRECT_MIN or _address(first) % _DIRECT_ALIGN:
        return views
    flags, written = fcntl.fcntl(fd, fcntl.F_GETFL), 0
    try:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_DIRECT)
        while written < size and written % _DIRECT_ALIGN == 0:
            written += os.write(fd, first[written:size])
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # some file systems cannot, some only say so now
            raise
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
    return [first[written:], *views[1:]]


def _address(view: memoryview) -> int:
    import numpy as np  # heavy, but whoever stores large objects has it

    return np.frombuffer(view, np.uint8).ctypes.data


def _write_all(fd: int, views: list[memoryview]) -> None:
    while views:
        written = os.writev(fd, views[:_WRITEV_MAX])
        while views and written >= views[0].nbytes:
            written -= views.pop(0).nbytes
        if written:
            views[0] = views[0][written:]


def _publish(temporary: str, final: str) -> None:
    """Give the finished file its name, which must be free; falls back where there are no hard links."""
    try:
        os.link(temporary, final, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EEXIST and os.stat(temporary).st_nlink > 1:
            return  # over NFS the answer to a link that succeeded may get lost, and the repeated request fails
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        _rename_to_free_name(temporary, final)


def _unlink_temporary(folder: str, inode: int) -> None:
    """Remove the temporary names of an object that went: a writer that crashed, or must not delete, left them, and as
    long as one is there the disk has no room back."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(TEMPORARY) and entry.inode() == inode:
                os.unlink(entry.path)


def _rename_to_free_name(temporary: str, final: str) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    source, target = os.fsencode(temporary), os.fsencode(final)
    if libc.renameat2(_AT_FDCWD, source, _AT_FDCWD, target, _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _sync_folder(folder: str) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot; then there is nothing to do
            raise
    finally:
        os.close(fd)


@contextlib.contextmanager
def translated(name: str, writing: bool = False) -> Iterator[None]:
    """Turn OSError into our errors; what is missing on the way of a `writing` call is not a Missing object."""
    try:
        yield
    except OSError as error:
        kind = _KINDS.get(error.errno or 0, StoreError)
        if kind is Missing and writing:
            kind = StoreError
        why = os.strerror(error.errno) if error.errno else str(error)
        raise kind("store failed", subject=name, why=why, hint=_HINTS.get(kind, "")) from error
