"""Objects in S3, Google Cloud Storage, Azure Blob Storage and whatever speaks their protocols, through obstore.

A put asks first whether the name is free and then sends ``If-None-Match: *``. Servers that ignore the header overwrite
silently only when two hosts write one name in the same instant; names are random and never reused, so that never
happens to what we store. `lox store probe` tells which kind a server is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

from model.errors import Exists, Missing, Refused, StoreError, StoreFull, Transient, UsageError
from repository.store.base import Bytes, Store, check_name
from repository.store.remote import OBJECT_SCHEMES, Location, NameLocks, backend, is_ours

_RANGE_MAX = 1 << 40  # bytes; no object is longer, and some servers refuse larger numbers
_TIMEOUT, _CONNECT_TIMEOUT = "30m", "10s"  # a pack of 128 MiB takes 18 minutes at 1 Mbit/s
_SILENCE = "2m"  # without a byte from the server; its clock runs while we send, too
_SMALL_PUT = 1 << 20  # bytes that are sent within the silence at 70 kbit/s

_BEHIND_END = "Wanted range starting at"
_NOT_PARTIAL = "non-partial response"
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>|DeleteObjects request failed.* \(code: ([A-Za-z0-9]{1,64})\)")
_KINDS: dict[int, type[StoreError]] = {
    **dict.fromkeys((401, 403), Refused),
    404: Missing,
    # 409: another request for the name was under way. The next put asks again whether the name is free.
    **dict.fromkeys((408, 409, 425, 429, 500, 502, 503, 504), Transient),
    412: Exists,
    **dict.fromkeys((413, 507), StoreFull),
}
_CODE_KINDS: dict[str, type[StoreError]] = {
    **dict.fromkeys(("RequestTimeout", "SlowDown", "InternalError", "ServerBusy", "OperationAborted"), Transient),
    **dict.fromkeys(("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"), StoreFull),
    **dict.fromkeys(("NoSuchBucket", "ContainerNotFound"), StoreError),
    **dict.fromkeys(("RequestTimeTooSkewed", "AccessDenied", "BlobImmutableDueToPolicy"), Refused),
    "BlobAlreadyExists": Exists,
}
_HINTS = {
    "RequestTimeTooSkewed": "set the clock of this host",
    "NoSuchBucket": "create the bucket first; lox creates none",
    "ContainerNotFound": "create the container first; lox creates none",
}
_REFUSED_HINT = "check the credentials, and that they may get, put and list (and delete, for what deletes)"


class ObjectStore(Store):
    """Objects below a prefix of a bucket. Credentials come from the environment or the provider's own files."""

    def __init__(self, place: Location) -> None:
        self.url = place.url
        self._kind, self._bucket, self._prefix = OBJECT_SCHEMES[place.scheme], place.host, place.path.strip("/")
        self._obstore = backend("obstore", OBJECT_SCHEMES[place.scheme], place.scheme)
        self._client = _client(place, read_timeout=_SILENCE)
        self._sender = _client(place)  # of large objects, which take longer than the server may be silent
        self._names = NameLocks()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        check_name(name)
        if length == 0 or offset >= _RANGE_MAX:
            self.size(name)  # raises Missing
            return b""
        end = min(_RANGE_MAX, offset + (_RANGE_MAX if length is None else length))
        try:
            return bytes(self._obstore.get_range(self._client, name, start=offset, end=end))
        except Exception as error:
            if _status(error) == 416 or _BEHIND_END in str(error):  # Azure's client finds out by itself
                return b""
            if _NOT_PARTIAL not in str(error):
                raise translated(error, name) from error
        return self._streamed(name, offset, end)

    def _streamed(self, name: str, begin: int, end: int) -> bytes:
        """A range cut out of a plain get, for servers that answer 200 to a range: slow, and bounded in memory."""
        found, at = bytearray(), 0
        try:
            for block in self._obstore.get(self._client, name).stream(min_chunk_size=1 << 20):
                found += memoryview(block)[max(0, begin - at) : end - at]
                at += len(block)
                if at >= end:
                    break
        except Exception as error:
            raise translated(error, name) from error
        return bytes(found)

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        with self._names.held(name):
            if self.exists(name):
                raise Exists("object exists already", subject=name)
            self.put_unasked(name, parts)

    def put_unasked(self, name: str, parts: Sequence[Bytes]) -> None:
        check_name(name)
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        # One buffer is handed over as it is; several are gathered by the library.
        body: Any = views[0] if len(views) == 1 else views or b""
        client = self._client if sum(view.nbytes for view in views) <= _SMALL_PUT else self._sender
        try:
            self._obstore.put(client, name, body, mode="create", use_multipart=False)
        except Exception as error:
            raise translated(error, name, writing=True) from error

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        folder = prefix.rpartition("/")[0]
        try:
            found = [
                (str(entry["path"]), int(entry["size"]))
                for batch in self._obstore.list(self._client, prefix=folder or None, chunk_size=1000)
                for entry in batch
                if entry["path"].startswith(prefix) and is_ours(entry["path"])
            ]
        except Exception as error:
            raise translated(error, prefix or "/", writing=True) from error
        return iter(sorted(found))

    def size(self, name: str) -> int:
        return int(self._head(name)["size"])

    def written(self, name: str) -> int | None:
        """When the store says the object was written, in ns since the epoch. Raises Missing."""
        return int(self._head(name)["last_modified"].timestamp()) * 10**9

    def keeps_deleted(self, name: str) -> bool | None:
        """A version of its own says that the bucket keeps versions. Raises Missing."""
        if self._kind == "gs":  # whose objects have one in any case
            return None
        return self._head(name)["version"] not in (None, "", "null")

    def rules_for_deleted(self) -> str:
        """Object Lock and lifecycle of an S3 bucket, as far as the credentials may know."""
        if self._kind != "s3":
            return ""
        from repository.store.bucket_rules import rules_of

        return rules_of(self._bucket, self._prefix)

    def delete(self, name: str) -> None:
        self.size(name)  # deleting what is not there succeeds in S3
        try:
            self._obstore.delete(self._client, name)
        except Exception as error:
            raise translated(error, name) from error

    def _head(self, name: str) -> Any:
        check_name(name)
        try:
            return self._obstore.head(self._client, name)
        except Exception as error:
            raise translated(error, name) from error


def translated(error: Exception, name: str, writing: bool = False) -> StoreError:
    """Our error for one of obstore's. Its text holds URLs, and those may hold tokens: only codes are kept of it."""
    text, kind_name, status = str(error), type(error).__name__, _status(error)
    found = _CODE.search(text)
    code = (found[1] or found[2]) if found else ""
    if code.isdigit():  # Azure, of an object that could not be deleted
        status, code = int(code), ""
    kind = _CODE_KINDS.get(code) or _KINDS.get(status or 0)
    if kind is None:
        kind = _named(error, kind_name, text, bool(status or code))
    if kind is Missing and writing:
        kind = StoreError
    why = " ".join([part for part in (f"HTTP {status}" if status else "", code) if part])
    hint = _HINTS.get(code) or (_REFUSED_HINT if kind is Refused else "")
    return kind("store failed", subject=name, why=why or _sentence(text, kind_name), hint=hint)


def _named(error: Exception, kind_name: str, text: str, answered: bool) -> type[StoreError]:
    if isinstance(error, FileNotFoundError):
        return Missing
    if kind_name in ("AlreadyExistsError", "PreconditionError"):
        return Exists
    if kind_name in ("PermissionDeniedError", "UnauthenticatedError"):
        return Refused
    if kind_name == "GenericError" and not answered:
        return Refused if "redentials" in text else Transient
    return StoreError


def _sentence(text: str, kind_name: str) -> str:
    if "error sending request" in text:
        return "no connection"
    if "redentials" in text:
        return "no credentials found"
    return "timed out" if "timed out" in text or "timeout" in text.lower() else kind_name


def _status(error: Exception) -> int | None:
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def _client(place: Location, **timeouts: str) -> Any:
    kind, prefix = OBJECT_SCHEMES[place.scheme], place.path.strip("/") or None
    if not place.host:
        raise UsageError("no bucket in the URL", subject=place.url, hint="write for example s3://bucket/folder")
    stores = backend("obstore.store", kind, place.scheme)
    timeouts = {"timeout": _TIMEOUT, "connect_timeout": _CONNECT_TIMEOUT} | timeouts
    options: dict[str, Any] = {
        "client_options": {**timeouts, "allow_http": _plain_endpoint()},
        "retry_config": {"max_retries": 0},  # only the retrying wrapper repeats
    }
    try:
        if kind == "s3":
            return stores.S3Store(place.host, prefix=prefix, **options, **_aws_options())
        if kind == "gs":
            return stores.GCSStore(place.host, prefix=prefix, **options)
        return stores.AzureStore(place.host, prefix=prefix, **options)
    except UsageError:
        raise
    except Exception as error:
        why = _sentence(str(error), type(error).__name__)
        raise UsageError("the store cannot be opened", subject=place.url, why=why, hint=_REFUSED_HINT) from error


def _plain_endpoint() -> bool:
    names = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT")
    return any(os.environ.get(name, "").startswith("http://") for name in names)


def _aws_options() -> dict[str, Any]:
    """What obstore does not find alone: the profiles of ~/.aws, which boto3 reads, and the endpoint."""
    # Where objects are locked by default, a put needs a checksum. It is the one that signing needs, and costs nothing.
    options: dict[str, Any] = {"checksum_algorithm": "SHA256"}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        options["endpoint"] = endpoint
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return options
    files = [os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), "~/.aws/config"]
    if os.environ.get("AWS_PROFILE") or any(os.path.exists(os.path.expanduser(file)) for file in files):
        backend("boto3", "s3", "s3")
        provider = backend("obstore.auth.boto3", "s3", "s3")
        options["credential_provider"] = provider.Boto3CredentialProvider()
    return options
