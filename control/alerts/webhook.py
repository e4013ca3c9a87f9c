"""Webhooks: a POST of JSON, signed with HMAC-SHA256 as standardwebhooks.com says, to an address that was looked at."""

from __future__ import annotations

import base64
import hmac
import json
import os
import time
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp

from control.alerts.guard import Guard, NotSent
from control.db.base import now
from model import __version__
from model.connecting import Only
from model.wire.base import rfc3339

SECONDS = 15.0  # for all of it
OVERLAP = timedelta(days=1)  # that an old secret signs beside the new one
_PREFIX, _BYTES = "whsec_", 32


def new_secret() -> str:
    """A secret of a webhook."""
    return _PREFIX + base64.b64encode(os.urandom(_BYTES)).decode()


def rotated(kept: dict[str, Any], secret: str, at: datetime) -> dict[str, Any]:
    """What is kept of a webhook once `secret` is its secret."""
    return {**kept, "secret": secret, "old": kept["secret"], "old_until": rfc3339(at + OVERLAP)}


def headers_of(kept: dict[str, Any], uuid: UUID, body: bytes, seconds: int) -> dict[str, str]:
    """Headers of a message: its id, the time of this attempt, and a signature for each secret that is good."""
    secrets = [kept["secret"]]
    if "old" in kept and datetime.fromisoformat(kept["old_until"]) > now():
        secrets.append(kept["old"])
    return {
        "Content-Type": "application/json",
        "User-Agent": f"LOX-Backup/{__version__}",
        "webhook-id": str(uuid),
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(_signature(secret, uuid, body, seconds) for secret in secrets),
    }


def _signature(secret: str, uuid: UUID, body: bytes, seconds: int) -> str:
    key = base64.b64decode(secret.removeprefix(_PREFIX))
    return "v1," + base64.b64encode(hmac.digest(key, f"{uuid}.{seconds}.".encode() + body, "sha256")).decode()


async def send(guard: Guard, kept: dict[str, Any], uuid: UUID, content: dict[str, Any]) -> str:
    """Sends it. Returns what the receiver said. Raises NotSent."""
    parts, body = urlsplit(kept["url"]), json.dumps(content, ensure_ascii=False).encode()
    host, plain = parts.hostname or "", parts.scheme == "http"
    addresses = await guard.addresses(host, parts.port or (80 if plain else 443), plain=plain)
    connector = aiohttp.TCPConnector(resolver=Only(addresses), force_close=True)
    limits = aiohttp.ClientTimeout(total=SECONDS)
    headers = headers_of(kept, uuid, body, int(time.time()))
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=limits, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(kept["url"], data=body, headers=headers, allow_redirects=False) as answer,
        ):
            status = answer.status
    except TimeoutError:
        raise NotSent(f"{host} did not answer in {SECONDS:.0f} s") from None
    except aiohttp.ClientConnectorCertificateError:
        raise NotSent(f"{host}: its certificate is not trusted") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NotSent(f"{host}: {_why(error)}") from None
    if 300 <= status < 400:
        raise NotSent(f"{host} answered {status}: redirects are not followed")
    if status >= 400:
        raise NotSent(f"{host} answered {status}")
    return f"{host} answered {status}"


def _why(error: Exception) -> str:
    """Without the URL, which aiohttp likes to tell."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return (error.os_error.strerror or "it cannot be reached").lower()
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "it closed the connection"
    return f"the answer cannot be understood ({type(error).__name__})"
