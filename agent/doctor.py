"""What may keep an agent from working, checked one thing after the other."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

import aiohttp

from agent.child import lox
from agent.config import AgentConfig
from agent.enrol import credential_of
from agent.health import LITTLE_BYTES, SKEW_SECONDS
from agent.hooks import available, find_hook
from agent.server import tls
from agent.state import State
from agent.work_dir import WorkDir
from model.errors import LoxError
from model.wire.policy import Policy
from pipelines.metrics.endpoint import parse_listen

GOOD, WARNING, BAD = "ok", "warning", "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: str
    text: str
    hint: str = ""


def examine(config: AgentConfig) -> Iterator[Check]:
    """All checks, as they are made."""
    work = WorkDir(config.work_dir)
    try:
        work.prepare()
    except LoxError as error:
        yield Check("working directory", BAD, str(error), error.hint)
        return
    yield _room(work)
    yield from asyncio.run(_server(config))
    yield _credential(work)
    yield _daemon(work)
    yield _lox()
    yield from _hooks(config)
    yield from _metrics(config, work)
    yield from _sources(work)


def _room(work: WorkDir) -> Check:
    free = shutil.disk_usage(work.root).free
    state = GOOD if free >= LITTLE_BYTES else WARNING
    return Check("working directory", state, f"{work.root}, {free >> 20} MiB free")


async def _server(config: AgentConfig) -> list[Check]:
    """Whether the server answers over TLS 1.3, and what its clock says."""
    loop = asyncio.get_running_loop()
    try:
        limits = aiohttp.ClientTimeout(total=15)
        async with (
            aiohttp.ClientSession(timeout=limits, trust_env=True) as session,
            session.get(f"{config.api_url}/healthz", ssl=tls(config), allow_redirects=False) as response,
        ):
            status, date = response.status, response.headers.get("Date")
    except LoxError as error:
        return [Check("server", BAD, str(error), error.hint)]
    except aiohttp.ClientConnectorCertificateError as error:
        hint = "name the certificate of its authority with ca_file in config.yaml"
        return [Check("server", BAD, f"its certificate is not trusted: {error.certificate_error}", hint)]
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        hint = "check name resolution, proxy and firewall (outbound HTTPS)"
        return [Check("server", BAD, f"{config.api_url}: {str(error) or type(error).__name__}", hint)]
    checks = [Check("server", GOOD, f"{config.api_url} answers over TLS 1.3 ({status})")]
    if date is not None:
        skew = await loop.run_in_executor(None, _skew, date)
        good = abs(skew) <= SKEW_SECONDS
        hint = "" if good else "let the host keep its time by NTP"
        checks.append(Check("clock", GOOD if good else WARNING, f"{skew:+.0f} s against the server's", hint))
    return checks


def _skew(date: str) -> float:
    import time

    return time.time() - parsedate_to_datetime(date).timestamp()


def _credential(work: WorkDir) -> Check:
    try:
        found = credential_of(work)
    except LoxError as error:
        return Check("registration", BAD, str(error), error.hint)
    if found is None:
        return Check("registration", BAD, "not registered", "run lox-agent register")
    return Check("registration", GOOD, "registered")


def _daemon(work: WorkDir) -> Check:
    pid = work.running_pid()
    if pid is None:
        return Check("agent", WARNING, "does not run", "lox-agent service start, or lox-agent run")
    return Check("agent", GOOD, f"runs as process {pid}")


def _lox() -> Check:
    try:
        ended = asyncio.run(lox(["--json", "version"], {}, 60))
    except (OSError, TimeoutError) as error:
        return Check("lox", BAD, str(error) or "no answer")
    return Check("lox", GOOD if ended.good else BAD, ended.trouble or "starts")


def _hooks(config: AgentConfig) -> Iterator[Check]:
    try:
        names = sorted(os.listdir(config.hooks_dir))
    except OSError:
        yield Check("scripts", GOOD, f"none: {config.hooks_dir} does not exist")
        return
    for name in names:
        try:
            find_hook(config.hooks_dir, name)
        except LoxError as error:
            yield Check("scripts", WARNING, str(error), error.hint)
    yield Check("scripts", GOOD, ", ".join(available(config.hooks_dir)) or "none")


def _metrics(config: AgentConfig, work: WorkDir) -> Iterator[Check]:
    if config.metrics.listen is None or work.running_pid() is not None:
        return
    host, port = parse_listen(config.metrics.listen.removeprefix(":"))
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            hint = "node_exporter has 9100; write another port, or metrics.textfile for node_exporter to serve"
            yield Check("metrics", WARNING, f"port {port} is taken", hint)
            return
    yield Check("metrics", GOOD, f"port {port} is free")


def _sources(work: WorkDir) -> Iterator[Check]:
    """Whether what jobs back up is there and may be read."""
    state = State(work.state)
    noted = state.note("policy")
    state.close()
    for job in [] if noted is None else Policy.model_validate(noted).jobs:
        missing = [path for path in job.source_paths if not os.path.lexists(path)]
        closed = [path for path in job.source_paths if path not in missing and not _readable(Path(path))]
        if missing:
            yield Check("job", WARNING, f"{job.name}: does not exist: {', '.join(missing)}")
        if closed:
            hint = "run the agent as root, or give it CAP_DAC_READ_SEARCH"
            yield Check("job", BAD, f"{job.name}: may not be read: {', '.join(closed)}", hint)
        if not missing and not closed:
            yield Check("job", GOOD, job.name)


def _readable(path: Path) -> bool:
    look: Callable[[], object] = (lambda: os.listdir(path)) if path.is_dir() else (lambda: path.open("rb").close())
    try:
        look()
    except OSError:
        return sys.platform == "win32"
    return True
