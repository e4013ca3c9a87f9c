"""The server as the agent sees it: a few requests over TLS 1.3, each with its own time limit."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from uuid import UUID

import aiohttp
from pydantic import BaseModel, ValidationError

from agent.config import AgentConfig
from agent.redact import redact
from model import __version__
from model.errors import ConfigError, RefusedByServer, Unreachable
from model.wire.agents import HeartbeatIn, HeartbeatOut, Registered, RegisterIn, Rotation
from model.wire.base import Answer
from model.wire.commands import Command
from model.wire.policy import Policy
from model.wire.runs import EventsIn, EventsOut

A = TypeVar("A", bound=BaseModel)

SECONDS = 30.0
ANSWER_MAX = 32 << 20  # bytes
BACKOFF_FIRST, BACKOFF_MAX = 1.0, 60.0  # seconds


class ServerAway(Unreachable):
    """The server cannot be reached, or cannot answer now: to be tried again. `retry_after`: seconds, if it said so;
    `status` is that of HTTP, 0 without an answer."""

    def __init__(
        self, what: str, *, subject: str = "", why: str = "", hint: str = "", retry_after: float = 0.0, status: int = 0
    ) -> None:
        super().__init__(what, subject=subject, why=why, hint=hint)
        self.retry_after, self.status = retry_after, status


class ServerRefused(RefusedByServer):
    """The server does not know this agent, or not any more."""


class ServerRejected(RefusedByServer):
    """The server says that a request makes no sense: it will not if it is repeated."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A command that this version does not understand."""

    sequence: int
    id: UUID
    why: str


class _Commands(Answer):
    commands: list[dict[str, Any]]


class Backoff:
    """How long to wait after each failure in a row: at random up to twice as long each time, so that agents spread."""

    def __init__(self, first: float = BACKOFF_FIRST, most: float = BACKOFF_MAX) -> None:
        self._first, self._most = first, most
        self._failures = 0

    def succeeded(self) -> None:
        """The next failure is the first again."""
        self._failures = 0

    def seconds(self, at_least: float = 0.0) -> float:
        """One more failure: how long to wait now."""
        most = min(self._most, self._first * 2.0**self._failures)
        self._failures = min(self._failures + 1, 30)
        return max(at_least, random.uniform(0.0, most))


def tls(config: AgentConfig) -> ssl.SSLContext:
    """TLS 1.3 with the authority of the configuration, or those of the system. Raises ConfigError."""
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", "") or str(error)
        raise ConfigError("cannot read the certificate of the server's authority", subject=str(config.ca_file),
                          why=why) from error  # fmt: skip
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


class Server:
    """Requests with the credential that `credential` returns. Use as an async context manager."""

    def __init__(self, config: AgentConfig, credential: Callable[[], str | None]) -> None:
        self._url = config.api_url
        self._tls = tls(config)
        self._credential = credential
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Server:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, keepalive_timeout=75),
            headers={"User-Agent": f"lox-agent/{__version__}"},
            trust_env=True,
            auto_decompress=True,
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def register(self, body: RegisterIn, key: str) -> Registered:
        """Exchange the registration token for a credential; with the same `key` it may be repeated."""
        return await self._post("/api/v1/agent/register", body, Registered, {"Idempotency-Key": key}, anonymous=True)

    async def heartbeat(self, body: HeartbeatIn) -> HeartbeatOut:
        """Tell that the agent lives."""
        return await self._post("/api/v1/agent/heartbeat", body, HeartbeatOut)

    async def rotate(self) -> Rotation:
        """Ask for a new credential; it comes with a heartbeat."""
        _, found = await self._request("POST", "/api/v1/agent/rotate-token")
        return _read(Rotation, found)

    async def policy(self, revision: int | None) -> Policy | None:
        """The policy, None if it is of that `revision` still."""
        headers = {} if revision is None else {"If-None-Match": f'"{revision}"'}
        status, data = await self._request("GET", "/api/v1/agent/policy", headers=headers)
        return None if status == 304 else _read(Policy, data)

    async def commands(self, after: int, wait: int) -> list[Command | Unreadable]:
        """Commands after this number; waits up to `wait` seconds for one.

        One that a newer server means for a newer agent does not keep the others from being read.
        """
        path = f"/api/v1/agent/commands?after={after}&wait={wait}"
        _, data = await self._request("GET", path, seconds=wait + SECONDS)
        return [_command(found) for found in _read(_Commands, data).commands]

    async def events(self, run: UUID, body: EventsIn) -> EventsOut:
        """What happened in a run."""
        return await self._post(f"/api/v1/agent/runs/{run}/events", body, EventsOut)

    async def exchange(self, exchange: UUID, content: AsyncIterable[bytes], kind: str) -> None:
        """Stream an answer to whoever waits for it at the server. No time limit: it takes as long as somebody reads."""
        path, headers = f"/api/v1/agent/exchanges/{exchange}", {"Content-Type": kind}
        await self._request("POST", path, data=content, headers=headers, seconds=None)

    async def _post(
        self, path: str, body: BaseModel, answer: type[A], headers: Mapping[str, str] | None = None,
        anonymous: bool = False,
    ) -> A:  # fmt: skip
        data = body.model_dump_json().encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        _, found = await self._request("POST", path, data=data, headers=sent, anonymous=anonymous)
        return _read(answer, found)

    async def _request(
        self, method: str, path: str, *, data: Any = None, headers: Mapping[str, str] | None = None,
        seconds: float | None = SECONDS, anonymous: bool = False,
    ) -> tuple[int, bytes]:  # fmt: skip
        assert self._session is not None, "entered"
        sent = dict(headers or {})
        if not anonymous:
            if (credential := self._credential()) is None:
                raise ServerRefused("this agent is not registered", hint="run lox-agent register")
            sent["Authorization"] = f"Bearer {credential}"
        limits = aiohttp.ClientTimeout(total=seconds, sock_connect=15)
        try:
            async with self._session.request(
                method, self._url + path, data=data, headers=sent, timeout=limits, allow_redirects=False
            ) as response:
                found = await response.content.read(ANSWER_MAX + 1)
                while len(found) <= ANSWER_MAX and (more := await response.content.read(ANSWER_MAX)):
                    found += more
                _check(response.status, response.headers, found, self._url + path.partition("?")[0])
                return response.status, found
        except aiohttp.ClientConnectorCertificateError as error:
            what, hint = (
                "the server's certificate is not trusted",
                "name that of its authority in config.yaml, as ca_file",
            )
            raise ServerAway(what, subject=self._url, why=str(error.certificate_error), hint=hint) from error
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            why = redact(str(error)) or type(error).__name__
            raise ServerAway("cannot reach the server", subject=self._url, why=why) from error


def _command(found: dict[str, Any]) -> Command | Unreadable:
    try:
        return Command.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        try:
            return Unreadable(int(found["sequence"]), UUID(found["id"]), f"{where}: {first['msg']}")
        except (KeyError, ValueError, TypeError):
            raise ServerRejected("cannot read the server's commands", why=f"{where}: {first['msg']}") from error


def _check(status: int, headers: Mapping[str, str], data: bytes, url: str) -> None:
    if status < 300 or status == 304:
        if len(data) > ANSWER_MAX:
            raise ServerRejected("the server's answer is too long", subject=url)
        return
    why = f"{status}: {_detail(data)}" if data else str(status)
    if status in (401, 403):
        hint = "let the dashboard reissue the install command, then run lox-agent register"
        raise ServerRefused("the server refuses this agent", subject=url, why=why, hint=hint)
    if status == 429 or status >= 500 or status == 408:
        wait = _retry_after(headers)
        raise ServerAway("the server cannot answer now", subject=url, why=why, retry_after=wait, status=status)
    raise ServerRejected("the server rejects a request", subject=url, why=why)


def _detail(data: bytes) -> str:
    """What a problem+json says, for people."""
    import json

    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if isinstance(found, dict):
        parts = [str(found[name]) for name in ("title", "detail") if found.get(name)]
        return redact(": ".join(parts))[:500]
    return redact(data[:200].decode("utf-8", "replace"))


def _retry_after(headers: Mapping[str, str]) -> float:
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(max(seconds, 0.0), 600.0)


def _read(model: type[A], data: bytes) -> A:
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        why = f"{error.error_count()} fields are not as expected; agent and server may be of different versions"
        raise ServerRejected("cannot read the server's answer", subject=model.__name__, why=why) from error
