"""Registration: the token of the install command is exchanged, once, for a credential of this agent's own."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import sys
from pathlib import Path
from typing import Literal
from uuid import uuid4

from agent.config import AgentConfig
from agent.logs import log
from agent.server import Server, ServerRefused
from agent.state import State
from agent.work_dir import WorkDir, read_secret, write_private
from model import __version__
from model.errors import ConfigError
from model.wire.agents import RegisterIn

USED_MAX = 20  # tokens that are remembered
_SYSTEMS: dict[str, Literal["linux", "windows", "macos"]] = {"linux": "linux", "win32": "windows", "darwin": "macos"}


def credential_of(work: WorkDir) -> str | None:
    """The agent's credential; None if it is not registered. Raises ConfigError."""
    return read_secret(work.credential)


def wants_registration(config: AgentConfig, work: WorkDir, state: State) -> bool:
    """Whether there is a token that was not used yet, or none and no credential either."""
    if credential_of(work) is None:
        return True
    used = state.note("tokens") or []
    return config.registration_token is not None and _digest(config.registration_token) not in used


async def register(
    config: AgentConfig, work: WorkDir, state: State, server: Server, *, insist: bool = False
) -> None:  # fmt: skip
    """Register if there is reason to. A repetition, after a lost answer or a SIGKILL, is known to be one by its key.

    Raises ConfigError without a token, ServerAway, and ServerRefused for a token that the server does not take, unless
    there is a credential from before and the caller does not `insist`.
    """
    if not wants_registration(config, work, state):
        return
    if config.registration_token is None:
        hint = "copy registration_token from the dashboard's install command into config.yaml"
        raise ConfigError("this agent is not registered", subject=str(config.agent_uuid), hint=hint)
    digest = _digest(config.registration_token)
    noted = state.note("registering") or {}
    if noted.get("token") != digest:
        noted = {"token": digest, "key": str(uuid4())}
        state.put_note("registering", noted)
    body = RegisterIn(
        agent_uuid=config.agent_uuid,
        registration_token=config.registration_token,
        hostname=hostname(),
        os=_SYSTEMS.get(sys.platform, "linux"),
        version=__version__,
        machine_id=machine_id(state),
    )
    try:
        registered = await server.register(body, noted["key"])
    except ServerRefused as error:
        if insist or credential_of(work) is None:
            raise
        log().warning("the registration token is of no use; the agent goes on as it is registered", why=error.why)
        _note_used(state, digest)
        return
    write_private(work.credential, registered.credential.encode() + b"\n")
    _note_used(state, digest)
    log().info("registered", agent=str(config.agent_uuid), tenant=registered.tenant)


def _note_used(state: State, digest: str) -> None:
    """A token is of no use any more: neither that of the configuration nor one of a reissued command is tried again."""
    state.put_note("tokens", [*(state.note("tokens") or [])[-USED_MAX:], digest])


def hostname() -> str:
    """The name of this host as the server takes it."""
    name = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in socket.gethostname())
    return name.strip("-.")[:253] or "unnamed"


def machine_id(state: State) -> str:
    """What tells this machine from others. Derived, so that the real one stays here; random where there is none."""
    try:
        real = Path("/etc/machine-id").read_text("ascii").strip()
    except (OSError, ValueError):
        real = ""
    if len(real) >= 16:
        return hmac.new(real.encode(), b"lox-agent", hashlib.sha256).hexdigest()[:32]
    if (made := state.note("machine")) is None:
        made = secrets.token_hex(16)
        state.put_note("machine", made)
    return str(made)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
