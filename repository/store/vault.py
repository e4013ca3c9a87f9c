"""Objects in the vault of a LOX server: ``lox+https://HOST[:PORT]/REPOSITORY_UUID``.

The server takes objects under names that are free, and gives them back; to take away is for maintenance alone. What it
received is hashed on arrival. A large object whose connection broke goes on where it broke off.
LOX_VAULT_TOKEN_FILE names the file with the credential, LOX_VAULT_CA_FILE that of the authority to trust.
"""

from __future__ import annotations

import base64
import os
import re
import threading
from collections.abc import Iterator, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlencode

from blake3 import blake3

from model.errors import ConfigError, Exists, Missing, Refused, StoreError, StoreFull, Transient, UsageError
from repository.store.base import Bytes, Store, check_name
from repository.store.https import Answer, Https, json_of, tls
from repository.store.remote import Location, is_ours

TOKEN_FILE, CA_FILE = "LOX_VAULT_TOKEN_FILE", "LOX_VAULT_CA_FILE"
RESUMED_MIN = 1 << 20  # bytes of an object that is worth going on with
_OBJECT_MAX = 1 << 40  # bytes; no object is longer
_PAGE, _PAGE_BYTES = 5000, 4 << 20  # names of a page of a listing, bytes of it
_TOKEN_MAX = 4096
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KINDS: dict[int, type[StoreError]] = {
    **dict.fromkeys((401, 403), Refused),
    **dict.fromkeys((408, 409, 425, 429, 500, 502, 503, 504), Transient),
    404: Missing,
    412: Exists,
    507: StoreFull,
}
_HINTS: dict[type[StoreError], str] = {
    Refused: f"check the credential in {TOKEN_FILE}; only the maintenance agent of a repository may delete",
    StoreFull: "raise the quota of the repository or the room of the vault; what was stored is used by the next run",
}


class VaultStore(Store):
    """Connects when it is asked for something. Threads may share it."""

    def __init__(self, place: Location) -> None:
        self.url = place.url
        repository = place.path.strip("/")
        if not place.host or not _UUID.fullmatch(repository):
            hint = "write lox+https://HOST[:PORT]/ and the UUID of the repository"
            raise UsageError("not a repository in a vault", subject=place.url, hint=hint)
        self._root = f"/api/v1/vault/{repository}"
        self._https = Https(place.host, place.port, tls(os.environ.get(CA_FILE)))
        self._token = Token()
        self._cut = dict[str, bytes]()  # names whose upload broke, and the digests of what was being sent
        self._lock = threading.Lock()

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0 or offset >= _OBJECT_MAX:
            self.size(name)  # raises Missing
            return b""
        end = _OBJECT_MAX if length is None else min(_OBJECT_MAX, offset + length)
        headers = {"Range": f"bytes={offset}-{end - 1}"} if offset or length is not None else {}
        answer = self._asked("GET", self._object(name), headers, limit=end - offset)
        if answer.status == 416:
            return b""
        if headers and answer.status == 200:
            raise StoreError("store failed", subject=name, why="the server answered with another range")
        return self._good(answer, name).body

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        views = [memoryview(part).cast("B") for part in parts if len(part)]
        size, digest = sum(view.nbytes for view in views), _digest(views)
        begin = self._received(name, size, digest) if self._cut.get(name) == digest else 0
        headers = {"If-None-Match": "*", "Repr-Digest": f"blake3=:{base64.b64encode(digest).decode()}:"}
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{size - 1}/{size}"
        try:
            answer = self._asked("PUT", self._object(name), headers, _from(views, begin))
            self._good(answer, name, writing=True)
        except Transient:
            if size >= RESUMED_MIN:
                with self._lock:
                    self._cut[name] = digest
            raise
        with self._lock:
            self._cut.pop(name, None)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        after, more = "", True
        while more:
            query = urlencode({"prefix": prefix, "after": after, "limit": _PAGE})
            answer = self._asked("GET", f"{self._root}/objects?{query}", {}, limit=_PAGE_BYTES)
            entries, more = _entries(json_of(self._good(answer, prefix or "/", writing=True)))
            for name, size in entries:
                if name <= after or not name.startswith(prefix):
                    raise StoreError("store failed", subject=prefix or "/", why="the listing is not in order")
                after = name
                yield name, size

    def size(self, name: str) -> int:
        return int(self._told(name, "content-length", r"\d{1,16}"))

    def written(self, name: str) -> int | None:
        """When the server stored the object, by its clock, in ns since the epoch. Raises Missing."""
        told = self._told(name, "last-modified", r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT")
        return int(parsedate_to_datetime(told).timestamp()) * 10**9

    def delete(self, name: str) -> None:
        self._good(self._asked("DELETE", self._object(name), {}), name)

    def _told(self, name: str, header: str, form: str) -> str:
        """What is said of an object."""
        answer = self._good(self._asked("HEAD", self._object(name), {}), name)
        told = answer.headers.get(header, "")
        if not re.fullmatch(form, told):
            raise StoreError("store failed", subject=name, why=f"the server told no {header}")
        return told

    def _received(self, name: str, size: int, digest: bytes) -> int:
        """How many bytes of the object the server holds from before."""
        query = urlencode({"size": size, "blake3": digest.hex()})
        answer = self._asked("GET", f"{self._root}/uploads/{quote(check_name(name))}?{query}", {})
        try:
            return min(size, int(json_of(self._good(answer, name, writing=True))["received"]))
        except (KeyError, TypeError, ValueError):
            return 0

    def _object(self, name: str) -> str:
        return f"{self._root}/objects/{quote(check_name(name))}"

    def _asked(
        self, method: str, path: str, headers: dict[str, str], body: Sequence[memoryview] = (), limit: int = 65536
    ) -> Answer:
        headers = headers | {"Authorization": f"Bearer {self._token.text()}"}
        return self._https.request(method, path, headers, body, limit)

    def _good(self, answer: Answer, name: str, writing: bool = False) -> Answer:
        """`answer` if it is one. Where something is stored or listed, what is missing is the repository."""
        if answer.ok:
            return answer
        kind = _KINDS.get(answer.status, StoreError)
        if kind is Transient:
            raise Transient("store failed", subject=name, why=answer.why, retry_after=answer.retry_after)
        if kind is Missing and writing:
            kind = StoreError
        raise kind("store failed", subject=name, why=answer.why, hint=_HINTS.get(kind, ""))


class Token:
    """The credential: the first line of the file that LOX_VAULT_TOKEN_FILE names, whenever that file changes.

    An agent gets a new one while it works. Who still came with the old one some time later would be taken for a thief.
    """

    def __init__(self) -> None:
        self._path = os.environ.get(TOKEN_FILE)
        self._known: tuple[tuple[int, int, int], str] | None = None

    def text(self) -> str:
        """Raises ConfigError."""
        path = self._path
        if not path:
            hint = f"set {TOKEN_FILE} to a file whose first line is the credential"
            raise ConfigError("no credential for the vault", subject=TOKEN_FILE, why="it is not set", hint=hint)
        try:
            found = os.stat(path)
            version = found.st_ino, found.st_mtime_ns, found.st_size
            if self._known is None or self._known[0] != version:
                with open(path, "rb") as file:
                    self._known = version, _token(file.read(_TOKEN_MAX), path)
        except OSError as error:
            why = (error.strerror or "").lower()
            raise ConfigError("cannot read the credential", subject=path, why=why, hint=f"see {TOKEN_FILE}") from error
        return self._known[1]


def _token(content: bytes, path: str) -> str:
    line = content.split(b"\n", 1)[0].strip()
    if not re.fullmatch(rb"[A-Za-z0-9._~+/=-]+", line):
        raise ConfigError("no credential for the vault", subject=path, why="its first line is none")
    return line.decode()


def _digest(views: Sequence[memoryview]) -> bytes:
    hasher = blake3()
    for view in views:
        hasher.update(view)
    return hasher.digest()


def _from(views: Sequence[memoryview], begin: int) -> list[memoryview]:
    """The joined `views` without their first `begin` bytes."""
    left = []
    for view in views:
        if view.nbytes > begin:
            left.append(view[begin:])
        begin = max(0, begin - view.nbytes)
    return left


def _entries(page: Any) -> tuple[list[tuple[str, int]], bool]:
    """What a page of a listing has, and whether another follows."""
    try:
        found = [(str(entry["name"]), int(entry["size"])) for entry in page["items"]]
        return [each for each in found if is_ours(each[0]) and each[1] >= 0], bool(page["next"]) and bool(found)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError("the server answered something else than a listing") from error
