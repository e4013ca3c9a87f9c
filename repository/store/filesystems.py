"""Objects in anything else that fsspec has a driver for: WebDAV, SMB, Hadoop, Dropbox, memory, ..."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from model.errors import Exists, Missing, Refused, StoreError, StoreFull, Transient, UsageError
from repository.store.base import Bytes, Store, check_name
from repository.store.remote import Location, NameLocks, backend, is_ours

_NOT_STORES = ("file", "local", "http", "https", "data", "zip", "tar", "cached", "reference", "dir", "filecache")
_NAMES = NameLocks()  # of the process: two stores of one URL share it
_STATUS_KINDS: dict[int, type[StoreError]] = {
    **dict.fromkeys((401, 403), Refused),
    404: Missing,
    **dict.fromkeys((408, 429, 500, 502, 503, 504), Transient),
    **dict.fromkeys((409, 412), Exists),
    **dict.fromkeys((413, 507), StoreFull),
}
_ERRNO_KINDS: dict[int, type[StoreError]] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), StoreFull),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), Refused),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), Missing),
    errno.EEXIST: Exists,
}


class FilesystemStore(Store):
    """Check-then-put: safe because names are random and never reused, and one lane at a time writes a name."""

    def __init__(self, place: Location) -> None:
        self.url = place.url
        self._fs, self._root = _filesystem(place)

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        size = self.size(name)  # not every driver cuts a range at the end
        end = size if length is None else min(size, offset + length)
        if offset >= end:
            return b""
        try:
            return bytes(self._fs.cat_file(self._path(name), start=offset, end=end))
        except Exception as error:
            raise translated(error, name) from error

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        with _NAMES.held(f"{self.url}/{name}"):
            if self.exists(name):
                raise Exists("object exists already", subject=name)
            self.put_unasked(name, parts)

    def put_unasked(self, name: str, parts: Sequence[Bytes]) -> None:
        path, data = self._path(name), b"".join(parts)
        try:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, data)
        except Exception as error:
            raise translated(error, name, writing=True) from error
        size = self.size(name)
        if size != len(data):  # some drivers answer before all of it is there
            why = f"{size} bytes are there, {len(data)} were sent"
            raise StoreError("the object was not stored whole", subject=name, why=why)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        folder = prefix.rpartition("/")[0]
        top = f"{self._root}/{folder}" if folder else self._root
        try:
            self._fs.invalidate_cache()  # of drivers that cache though they were told not to
            entries: Mapping[str, Any] = self._fs.find(top, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return iter(())
        except Exception as error:
            raise translated(error, prefix or "/", writing=True) from error
        start = len(self._root.rstrip("/")) + 1
        found = [(path[start:], int(info["size"])) for path, info in entries.items() if info["type"] == "file"]
        return iter(sorted((name, size) for name, size in found if name.startswith(prefix) and is_ours(name)))

    def size(self, name: str) -> int:
        path = self._path(name)
        try:
            self._fs.invalidate_cache(path.rpartition("/")[0])
            info = self._fs.info(path)
        except Exception as error:
            raise translated(error, name) from error
        if info["type"] != "file":
            raise StoreError("not a file", subject=name)
        return int(info["size"])

    def keeps_deleted(self, name: str) -> bool | None:
        """No driver tells. Raises Missing."""
        self.size(name)
        return None

    def delete(self, name: str) -> None:
        self.size(name)  # some drivers delete what is not there
        try:
            self._fs.rm_file(self._path(name))
        except Exception as error:
            raise translated(error, name) from error

    def _path(self, name: str) -> str:
        return f"{self._root}/{check_name(name)}"


def _filesystem(place: Location) -> tuple[Any, str]:
    fsspec = backend("fsspec", "s3", place.scheme)
    if place.scheme in _NOT_STORES or place.scheme not in fsspec.available_protocols():
        raise UsageError(
            "no such kind of store", subject=place.scheme, hint="use a path, s3://, sftp://, gs:// or az://"
        )
    try:
        # Listings are never cached, and no other user of the driver in this process shares this one.
        fs, root = fsspec.core.url_to_fs(place.url, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as error:
        hint = f"pip install the package that the fsspec documentation names for {place.scheme}"
        raise UsageError("a package is missing for this kind of store", subject=place.scheme, hint=hint) from error
    except Exception as error:
        raise UsageError("the store cannot be opened", subject=place.scheme, why=type(error).__name__) from error
    return fs, str(root).rstrip("/")


def translated(error: Exception, name: str, writing: bool = False) -> StoreError:
    """Our error for any a driver raises; of its text nothing is kept, it may hold a URL with a token."""
    if isinstance(error, StoreError):
        return error
    kind, why = _kind(error), type(error).__name__
    if isinstance(error, OSError) and error.errno:
        why = errno.errorcode.get(error.errno, why)
    if kind is Missing and writing:
        kind = StoreError
    if kind is Transient:
        return Transient("store failed", subject=name, why=why, retry_after=retry_after(error))
    return kind("store failed", subject=name, why=why)


def _kind(error: Exception) -> type[StoreError]:
    status = _status(error)
    if status in _STATUS_KINDS:
        return _STATUS_KINDS[status]
    if isinstance(error, FileNotFoundError):
        return Missing
    if isinstance(error, FileExistsError):
        return Exists
    if isinstance(error, PermissionError | NotImplementedError):
        return Refused
    if isinstance(error, ConnectionError | TimeoutError):
        return Transient
    if isinstance(error, OSError):
        return _ERRNO_KINDS.get(error.errno or 0, Transient)
    return StoreError


def _status(error: Exception) -> int:
    """The HTTP status that an error of aiohttp, botocore, requests or Azure's client carries; 0 if none."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status", "status_code", "code"):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
    return 0


def retry_after(error: Exception) -> float | None:
    """Seconds that the server asked to wait, if the error carries its headers."""
    for holder in (error, getattr(error, "response", None)):
        headers = getattr(holder, "headers", None)
        if isinstance(headers, Mapping):
            text = {str(key).lower(): value for key, value in headers.items()}.get("retry-after", "")
            if str(text).isdigit():
                return float(text)
    return None
