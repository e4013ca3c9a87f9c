"""Requests to a server's API, and its answers as they are: JSON."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from lox.remote.servers import Server
from model.errors import Refused, RefusedByServer, StoreError, Transient, Unreachable, UsageError
from model.names import shown
from repository.store.https import Answer, Https, json_of, tls

Fields = dict[str, Any]
API = "/api/v1"
PATIENCE = 300.0  # seconds that a server may be away from somebody who waits for the end of a run
_ANSWER_MAX = 32 << 20
_LINE_MAX = 4 << 20
_PIECE = 256 << 10
_PAUSE = 1.0  # seconds between two attempts
_PAGE = 200  # items
_SESSION = re.compile(r"lox_session=([A-Za-z0-9_-]{16,200})")


@dataclass(frozen=True, slots=True)
class Event:
    """One of a stream: its number, for going on after it, its kind, and what it says."""

    id: str
    kind: str
    fields: Fields


class Client:
    """Raises RefusedByServer and Unreachable, whose texts are the server's own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        parts = urlsplit(server.url)
        self._https = Https(parts.hostname or "", parts.port, tls(ca_text=server.ca or None))

    def log_in(self, email: str, password: str) -> str:
        """A token that is good for some hours: that of a new session."""
        content = [memoryview(json.dumps({"email": email, "password": password}).encode())]
        try:
            answer = self._https.request("POST", f"{API}/auth/login", {"Content-Type": "application/json"}, content)
        except (Transient, Refused, StoreError) as error:
            raise self._unreachable(error) from error
        found = _SESSION.search(self._good(answer).headers.get("set-cookie", ""))
        if found is None:
            raise Unreachable("the server began no session", subject=self.server.url)
        return found[1]

    def get(self, *path: str, **query: object) -> Any:
        """The JSON at a path, whose parts may hold anything."""
        return self._sent("GET", _path(path, query))

    def post(self, *path: str, body: object | None = None) -> Any:
        """What became of it. Sent again once if the answer got lost: the server does it once."""
        key = {"Idempotency-Key": str(uuid.uuid4())}
        try:
            return self._sent("POST", _path(path, {}), body or {}, key)
        except Unreachable:
            time.sleep(_PAUSE)
            return self._sent("POST", _path(path, {}), body or {}, key)

    def patch(self, *path: str, body: object) -> Any:
        """The object as it is then."""
        return self._sent("PATCH", _path(path, {}), body)

    def delete(self, *path: str, **query: object) -> None:
        """Nothing, if it is gone."""
        self._sent("DELETE", _path(path, query))

    def pages(self, *path: str, most: int | None = None, **query: object) -> Iterator[Fields]:
        """The items of a list, `most` of them, page by page."""
        cursor, left = None, most
        while left is None or left > 0:
            page = self.get(*path, **query, cursor=cursor, limit=min(_PAGE, left or _PAGE))
            yield from page["items"][:left]
            left = None if left is None else left - len(page["items"])
            cursor = page.get("next")
            if not cursor:
                break

    def lines(self, *path: str, **query: object) -> Iterator[Fields]:
        """The items of an answer that comes as one JSON object a line."""
        for line in self._streamed(_path(path, query), {"Accept": "application/x-ndjson"}):
            if line.strip():
                yield _fields(line)

    def content(self, *path: str, **query: object) -> Iterator[bytes]:
        """An answer that is a file, in pieces. Unreachable if it broke off: what came is not all then."""
        with self._opened(_path(path, query), {"Accept": "*/*"}) as response:
            while piece := response.read(_PIECE):
                yield piece

    def events(self, *path: str) -> Iterator[Event]:
        """Server-sent events, until there is nothing after the last. The server may be away for `PATIENCE`."""
        last, since, more = "", time.monotonic(), True
        while more:
            more = False
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
            try:
                for event in _events(self._streamed(_path(path, {}), headers)):
                    last, since, more = event.id or last, time.monotonic(), True
                    yield event
            except Unreachable:
                if time.monotonic() - since > PATIENCE:
                    raise
                more = True
                time.sleep(_PAUSE)

    def patiently(self, *path: str) -> Any:
        """As `get`, while the server may be away for `PATIENCE`."""
        since = time.monotonic()
        while True:
            try:
                return self.get(*path)
            except Unreachable:
                if time.monotonic() - since > PATIENCE:
                    raise
                time.sleep(_PAUSE)

    def _sent(self, method: str, path: str, body: object | None = None, more: Mapping[str, str] | None = None) -> Any:
        headers = self._headers() | dict(more or {})
        content = [] if body is None else [memoryview(_json(body))]
        if content:
            headers["Content-Type"] = "application/json"
        try:
            answer = self._https.request(method, path, headers, content, _ANSWER_MAX)
            return json_of(self._good(answer)) if answer.body or not answer.ok else None
        except (Transient, Refused, StoreError) as error:
            raise self._unreachable(error) from error

    def _streamed(self, path: str, headers: Mapping[str, str]) -> Iterator[bytes]:
        with self._opened(path, headers) as response:
            while line := response.readline(_LINE_MAX):
                yield line

    @contextmanager
    def _opened(self, path: str, headers: Mapping[str, str]) -> Iterator[HTTPResponse]:
        try:
            with self._https.opened("GET", path, self._headers() | dict(headers)) as response:
                if response.status >= 300:
                    self._good(Answer(response.status, {}, response.read(_LINE_MAX)))
                yield response
        except (Transient, Refused, StoreError) as error:
            raise self._unreachable(error) from error

    def _headers(self) -> dict[str, str]:
        tenant = {"Lox-Tenant": self.server.tenant} if self.server.tenant else {}
        return {"Authorization": f"Bearer {self.server.token}", "Accept": "application/json", **tenant}

    def _good(self, answer: Answer) -> Answer:
        if answer.ok:
            return answer
        if answer.status >= 500:
            raise Unreachable("the server failed", subject=self.server.url, why=answer.why)
        hint = f"lox login {self.server.url}" if answer.status == 401 else _told(answer, "hint")
        if _told(answer, "type").endswith(":tenant-missing"):
            hint = "name it with LOX_TENANT, or once for all with lox login --tenant"
        raise RefusedByServer("the server refused", why=answer.why, hint=hint, status=answer.status)

    def _unreachable(self, error: StoreError) -> Unreachable:
        what = error.what if isinstance(error, Refused) else "the server cannot be reached"
        return Unreachable(what, subject=self.server.url, why=error.why, hint=error.hint)


def _told(answer: Answer, key: str) -> str:
    """A text of a problem document; empty if it has none."""
    try:
        return str(json.loads(answer.body).get(key, ""))
    except (ValueError, AttributeError):
        return ""


def _path(parts: tuple[str, ...], query: Mapping[str, object]) -> str:
    given = {name: text for name, text in query.items() if text is not None and text != ""}
    path = "/".join([API, *(quote(part, safe="") for part in parts)])
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def _json(body: object) -> bytes:
    """Raises UsageError for a name that is not UTF-8: where those may stand, fields ``..._b64`` are for them."""
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        name = error.object[max(0, error.start - 40) : error.end + 40].encode("utf-8", "surrogateescape")
        raise UsageError("a server takes no name that is not UTF-8 here", subject=shown(name)) from error


def _fields(line: bytes | str) -> Fields:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise StoreError("the server answered something else than JSON") from error
    if not isinstance(found, dict):
        raise StoreError("the server answered something else than an object")
    return found


def _events(lines: Iterator[bytes]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for raw in lines:
        line = raw.decode("utf-8", "replace").rstrip("\r\n")
        if line:
            name, _, text = line.partition(":")
            text = text.removeprefix(" ")
            fields[name] = f"{fields['data']}\n{text}" if name == "data" and "data" in fields else text
        elif "data" in fields:
            yield Event(fields.get("id", ""), fields.get("event", "message"), _fields(fields["data"]))
            fields = {}
