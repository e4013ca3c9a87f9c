"""Chat services and the like, by the library apprise, which runs in a process of its own (`apprise_child`).

It follows URLs that a tenant wrote: a process can be ended in time, holds none of the server's secrets, and may connect
only to addresses that the guard allows.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib.util import find_spec
from typing import Any

from control.alerts.content import headline, text_of
from control.alerts.guard import Guard, NotSent, own_addresses
from control.api.turns import Turns

SECONDS = 30.0
ANSWER_MAX = 64 << 10
INSTALL = "pip install 'lox-backup[alerts]'"
# What talks HTTPS to a service, by a host of its own or of the URL. Never what runs programs, writes files, or speaks
# to this machine's desktop, bus or log.
SCHEMES = frozenset(
    {
        "bark", "barks", "betterstack", "discord", "feishu", "firehydrant", "flock", "gchat", "goalert", "goalerts",
        "gotify", "gotifys", "guilded", "ifttt", "ilert", "incidentio", "lark", "mailgun", "matrix", "matrixs", "mmost",
        "mmosts", "nctalk", "nctalks", "ntfy", "ntfys", "opsgenie", "pagerduty", "pagertree", "pbul", "pover", "prowl",
        "pushy", "revolt", "rocket", "rockets", "sendgrid", "signl4", "slack", "splunk", "spike", "squadcast", "tgram",
        "twilio", "victorops", "webex", "workflow", "workflows", "wxteams", "zoom", "zulip",
    }
)  # fmt: skip
# Of these, what goes over HTTP and not HTTPS.
PLAIN = frozenset({"bark", "goalert", "gotify", "matrix", "mmost", "nctalk", "ntfy", "rocket"})
CHECKS = Turns(1)  # each takes a second of a processor, and 60 MiB; who sends sees to that too


def is_there() -> bool:
    """Whether apprise is installed."""
    return find_spec("apprise") is not None


async def check(guard: Guard, url: str) -> None:
    """Raises NotSent unless apprise understands `url`, and Problem if others are checked for too long."""
    async with CHECKS.take():
        await _child(guard, {"url": url})


async def send(guard: Guard, kept: dict[str, Any], content: dict[str, Any]) -> str:
    """Sends it. Returns that it went. Raises NotSent."""
    asked = {"url": kept["url"], "title": headline(content), "body": text_of(content)}
    await _child(guard, asked)
    return f"{kept['url'].partition(':')[0]} took it"


async def _child(guard: Guard, asked: dict[str, Any]) -> None:
    if not is_there():
        raise NotSent(f"this server has no apprise: {INSTALL}")
    scheme = asked["url"].partition(":")[0]
    if scheme not in SCHEMES:
        raise NotSent(f"{scheme} is none of the services that a target may have")
    allowed, own = [str(one) for one in guard.allowed], [str(one) for one in own_addresses()]
    question = json.dumps(
        {**asked, "allowed": allowed, "own": own, "server": guard.server, "plain": scheme in PLAIN}
    ).encode()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-B", "-m", "control.alerts.apprise_child",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={name: value for name, value in os.environ.items() if name in _ENVIRONMENT}, cwd="/",
        limit=ANSWER_MAX,
    )  # fmt: skip
    try:
        async with asyncio.timeout(SECONDS):
            answer, _ = await child.communicate(question)
    except TimeoutError:
        raise NotSent(f"it was not sent in {SECONDS:.0f} s") from None
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    _understood(answer, child.returncode)


_ENVIRONMENT = ("LANG", "LC_ALL", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "TZ")  # no proxies


def _understood(answer: bytes, code: int | None) -> None:
    try:
        said = json.loads(answer[:ANSWER_MAX])
        sent, why = bool(said["sent"]), str(said["why"])
    except (ValueError, TypeError, KeyError):
        raise NotSent(f"apprise ended with status {code}, and without an answer") from None
    if not sent:
        raise NotSent(why)
