"""Objects as files on a host that speaks SFTP, through asyncssh.

A new object is written under a temporary name, synced if the server offers it, and linked to its name, which fails
if that is taken. Servers without hard links rename instead; OpenSSH and most others do not overwrite then.
Host keys must be known (~/.ssh/known_hosts); keys come from ~/.ssh, its config, or an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from model.errors import Exists, LoxError, Missing, Refused, StoreError, StoreFull, Transient, UsageError
from repository.store.base import Bytes, Leftover, Store, check_name, is_part
from repository.store.local import TEMPORARY
from repository.store.remote import Location, NameLocks, backend

if TYPE_CHECKING:
    import asyncssh

T = TypeVar("T")
_Found = list[tuple[str, Any]]  # names and attributes
_SLICE = 4 << 20  # bytes handed over at once; the library cuts them into requests that are under way together
_FOLDERS_AT_ONCE = 16
_CONNECT_SECONDS, _ALIVE_SECONDS = 20, 15
_NO_ROOM = 4096  # free bytes below which a nameless failure means a full disk


class SftpStore(Store):
    """Files below `path` of a host, folders 0700, files 0400. One connection carries all lanes of the process."""

    def __init__(self, place: Location) -> None:
        self.url = place.url
        self._ssh = backend("asyncssh", "sftp", place.scheme)
        self._place = place
        if not place.host or not place.path:
            raise UsageError("host and path are needed", subject=place.url, hint="write sftp://user@host/srv/backup")
        # As scp has it: sftp://host/~/backup is below the home folder.
        self._root = place.path[len("/~/") :] if place.path.startswith("/~/") else place.path
        self._connection: Any = None
        self._sftp: asyncssh.SFTPClient | None = None
        self._connecting: asyncio.Lock | None = None
        self._names = NameLocks()
        self._folders: set[str] = set()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        path = self._path(name)
        return self._run(lambda sftp: self._get(sftp, path, offset, length), name)

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        with self._names.held(name):
            if self.exists(name):
                raise Exists("object exists already", subject=name)
            self.put_unasked(name, parts)

    def put_unasked(self, name: str, parts: Sequence[Bytes]) -> None:
        path = self._path(name)
        self._run(lambda sftp: self._put(sftp, path, name, parts), name, writing=True)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        def wanted(part: str, name: str) -> bool:
            return is_part(part) and name.startswith(prefix)

        found = self._run(lambda sftp: self._walk(sftp, prefix, wanted), prefix or "/", writing=True)
        return iter(sorted((name, int(status.size or 0)) for name, status in found))

    def leftovers(self) -> Iterator[Leftover]:
        def wanted(part: str, name: str) -> bool:
            return part.startswith(TEMPORARY)

        found = self._run(lambda sftp: self._walk(sftp, "", wanted), "/", writing=True)
        for path, status in sorted(found, key=lambda each: each[0]):
            yield Leftover(path, int(status.size or 0), int(status.mtime or 0) * 10**9)

    def remove_leftover(self, leftover: Leftover) -> None:
        with contextlib.suppress(Missing):
            self._run(lambda sftp: sftp.remove(f"{self._root}/{leftover.path}"), leftover.path)

    def size(self, name: str) -> int:
        return self._attributes(name)[0]

    def written(self, name: str) -> int | None:
        """When the store says the object was written, in ns since the epoch. Raises Missing."""
        return int(self._attributes(name)[1]) * 10**9

    def delete(self, name: str) -> None:
        path = self._path(name)
        self._run(lambda sftp: sftp.remove(path), name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{check_name(name)}"

    def _run(
        self, work: Callable[[asyncssh.SFTPClient], Coroutine[Any, Any, T]], name: str, writing: bool = False
    ) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(self._connected(work), _loop()).result()
        except LoxError:
            raise
        except Exception as error:
            raise self._translated(error, name, writing) from error

    async def _connected(self, work: Callable[[asyncssh.SFTPClient], Coroutine[Any, Any, T]]) -> T:
        sftp = await self._client()
        try:
            return await work(sftp)
        except (self._ssh.SFTPConnectionLost, self._ssh.SFTPNoConnection, self._ssh.DisconnectError, OSError):
            if self._sftp is sftp:  # else another lane has connected anew already
                self._sftp = None
                self._connection.abort()
            raise

    async def _client(self) -> asyncssh.SFTPClient:
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._sftp is None:
                where: dict[str, Any] = {}
                if self._place.port is not None:
                    where["port"] = self._place.port
                if self._place.user is not None:
                    where["username"] = self._place.user
                self._connection = await self._ssh.connect(
                    self._place.host,
                    **where,
                    connect_timeout=_CONNECT_SECONDS,
                    login_timeout=_CONNECT_SECONDS,
                    keepalive_interval=_ALIVE_SECONDS,
                    encryption_algs="^aes128-gcm@openssh.com",
                )
                self._sftp = await self._connection.start_sftp_client()
            return self._sftp

    async def _get(self, sftp: asyncssh.SFTPClient, path: str, offset: int, length: int | None) -> bytes:
        async with sftp.open(path, "rb") as file:
            room = max(0, int((await file.stat()).size or 0) - offset)
            want = room if length is None else min(length, room)
            data = await file.read(want, offset) if want else b""
            assert isinstance(data, bytes), "the file is open in binary mode"
            return data

    async def _put(self, sftp: asyncssh.SFTPClient, path: str, name: str, parts: Sequence[Bytes]) -> None:
        folder = path.rpartition("/")[0]
        temporary = f"{folder}/{TEMPORARY}{secrets.token_hex(8)}"
        try:
            await self._write(sftp, folder, temporary, parts)
            await self._publish(sftp, temporary, path, name)
        except self._ssh.SFTPFailure as error:
            if await self._is_full(sftp, folder):
                raise StoreFull("store failed", subject=name, why="no space left", hint="free some room") from error
            raise
        finally:
            with contextlib.suppress(self._ssh.Error, OSError):  # gone if it was renamed; else a harmless leftover
                await sftp.remove(temporary)

    async def _write(self, sftp: Any, folder: str, temporary: str, parts: Sequence[Bytes]) -> None:
        await self._make_folder(sftp, folder)
        attributes = self._ssh.SFTPAttrs(permissions=0o400)
        try:
            file = await sftp.open(temporary, "xb", attributes)
        except self._ssh.SFTPNoSuchFile:  # the folder was removed under us; make it again, once
            self._folders.clear()
            await self._make_folder(sftp, folder)
            file = await sftp.open(temporary, "xb", attributes)
        async with file:
            position = 0
            for data in _slices(parts):
                await file.write(data, position)
                position += len(data)
            with contextlib.suppress(self._ssh.SFTPOpUnsupported):
                await file.fsync()

    async def _publish(self, sftp: Any, temporary: str, path: str, name: str) -> None:
        try:
            try:
                await sftp.link(temporary, path)
            except self._ssh.SFTPOpUnsupported:
                await sftp.rename(temporary, path)
        except self._ssh.SFTPError as error:
            if await sftp.lexists(path):
                raise Exists("object exists already", subject=name) from error
            raise

    async def _make_folder(self, sftp: Any, folder: str) -> None:
        if folder not in self._folders:
            await sftp.makedirs(folder, self._ssh.SFTPAttrs(permissions=0o700), exist_ok=True)
            self._folders.add(folder)

    async def _is_full(self, sftp: Any, folder: str) -> bool:
        """SFTP has no word for a full disk before version 5: a bare failure is looked into."""
        try:
            room = await sftp.statvfs(folder)
        except (self._ssh.Error, OSError):
            return False
        return bool(room.bavail * room.frsize <= _NO_ROOM)

    async def _walk(self, sftp: asyncssh.SFTPClient, prefix: str, wanted: Callable[[str, str], bool]) -> _Found:
        """Name and attributes of the files below the folder of `prefix` of which `wanted(last part, name)` holds."""
        gate = asyncio.Semaphore(_FOLDERS_AT_ONCE)
        found: _Found = []

        async def walk(folder: str) -> None:
            folders = []
            try:
                async with gate:
                    async for entry in sftp.scandir(f"{self._root}/{folder}" if folder else self._root):
                        part = entry.filename if isinstance(entry.filename, str) else os.fsdecode(entry.filename)
                        name = f"{folder}/{part}" if folder else part
                        if entry.attrs.type == self._ssh.FILEXFER_TYPE_DIRECTORY:
                            if is_part(part) and (name.startswith(prefix) or prefix.startswith(name + "/")):
                                folders.append(name)
                        elif entry.attrs.type == self._ssh.FILEXFER_TYPE_REGULAR and wanted(part, name):
                            found.append((name, entry.attrs))
            except (self._ssh.SFTPNoSuchFile, self._ssh.SFTPNotADirectory):
                return
            await asyncio.gather(*[walk(name) for name in folders])

        await walk(prefix.rpartition("/")[0])
        return found

    def _attributes(self, name: str) -> tuple[int, float]:
        path = self._path(name)
        status = self._run(lambda sftp: sftp.lstat(path), name)
        if status.type != self._ssh.FILEXFER_TYPE_REGULAR:
            raise StoreError("not a file", subject=name)
        return int(status.size or 0), float(status.mtime or 0)

    def _translated(self, error: Exception, name: str, writing: bool) -> StoreError:
        ssh, why = self._ssh, type(error).__name__
        hint, kind = "", StoreError
        if isinstance(error, ssh.SFTPNoSuchFile | ssh.SFTPNoSuchPath):
            kind, why = (StoreError if writing else Missing), "no such file or folder"
        elif isinstance(error, ssh.SFTPPermissionDenied | ssh.SFTPWriteProtect):
            kind, why, hint = Refused, "permission denied", "check owner and permissions of the folder on the host"
        elif isinstance(error, ssh.SFTPNoSpaceOnFilesystem | ssh.SFTPQuotaExceeded):
            kind, why = StoreFull, "no space left"
        elif isinstance(error, ssh.HostKeyNotVerifiable):
            kind, why, hint = Refused, "the host key is not known", f"run once: ssh {self._place.host}"
        elif isinstance(error, ssh.PermissionDenied):
            kind, why, hint = Refused, "the host refused the login", "check the user name and the keys in ~/.ssh"
        elif isinstance(error, ssh.SFTPConnectionLost | ssh.SFTPNoConnection | ssh.DisconnectError | OSError):
            kind, why = Transient, "no connection"
        elif isinstance(error, ssh.SFTPError):
            why = "the host reported a failure without saying which"
        return kind("store failed", subject=name, why=why, hint=hint)


def _slices(parts: Sequence[Bytes]) -> Iterator[bytes]:
    """The joined parts in pieces of at most `_SLICE` bytes, small ones gathered."""
    gathered, size = list[memoryview](), 0
    for part in parts:
        view = memoryview(part).cast("B")
        while view.nbytes:
            piece = view[: _SLICE - size]
            gathered.append(piece)
            size += piece.nbytes
            view = view[piece.nbytes :]
            if size == _SLICE:
                yield b"".join(gathered)
                gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)


_loops: dict[int, asyncio.AbstractEventLoop] = {}
_starting = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    """The event loop of this process, in a thread of its own; a forked child gets another."""
    with _starting:
        loop = _loops.get(os.getpid())
        if loop is None:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="sftp", daemon=True).start()
            _loops[os.getpid()] = loop
        return loop
