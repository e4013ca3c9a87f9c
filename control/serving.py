"""Running the server: listeners, signals, several processes."""

from __future__ import annotations

import asyncio
import asyncio.sslproto as sslproto
import gc
import os
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import structlog
from aiohttp import web

from control import logs, tls
from control.api.layer import SERVICES
from control.app import make_app, make_installer_app
from control.db.migrate import migrate
from control.settings import ServerSettings, address_of
from model.errors import ConfigError
from model.exits import ExitCode
from model.systemd import notify

BACKLOG = 1024
TLS_BUFFER = 32 << 10  # bytes of each connection; asyncio takes 256 KiB, and two thousand agents wait on one each
GRACE = 20.0  # seconds that requests under way have when the server stops
RENEW_EVERY = timedelta(hours=12).total_seconds()
LOOK_EVERY = 0.5  # seconds
FULL_COLLECTIONS_APART = 100  # of the next younger generation; Python's own is 10
RESTART_AFTER = 1.0  # seconds before a process that died is started again


def serve(settings: ServerSettings) -> int:
    """Until SIGTERM or SIGINT. Returns the exit code. Raises ConfigError."""
    logs.set_up(settings.log_level, settings.log_format)
    sslproto.SSLProtocol.max_size = TLS_BUFFER
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    asyncio.run(_prepare(settings))
    if settings.processes == 1:
        return asyncio.run(_process(settings, leader=True))
    return _supervise(settings)


async def _prepare(settings: ServerSettings) -> None:
    from control.app import make_services

    services = make_services(settings)
    try:
        before = await migrate(services.engine)
        if not before.is_current:
            services.log.info("database migrated", before=before.found, now=before.needed)
    finally:
        await services.engine.dispose()
    tls.certificates(settings)


async def _process(settings: ServerSettings, leader: bool, supervisor: int | None = None) -> int:
    log = structlog.get_logger("control")
    files = tls.certificates(settings)
    context = tls.server_context(files)
    app = make_app(settings, leader)
    contexts = [context]
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75, shutdown_timeout=GRACE)
    installer = web.AppRunner(make_installer_app(app[SERVICES]), access_log=None, shutdown_timeout=GRACE)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await runner.setup()
    try:
        host, port = address_of(settings.listen)
        if settings.installer_listen is not None:
            contexts.append(tls.server_context(files, old=True))
            await installer.setup()
            await _listen(installer, settings.installer_listen, contexts[1], settings.processes > 1)
        await _listen(runner, settings.listen, context, settings.processes > 1)
        beside = [asyncio.create_task(_renew(settings, contexts))]
        if supervisor is not None:
            beside.append(asyncio.create_task(_outlive_nobody(supervisor, stop)))
        _spare_the_collector()
        log.info("listening", url=settings.url, host=host or "*", port=port, process=os.getpid())
        if leader:
            notify("READY=1")
        await stop.wait()
        if leader:
            notify("STOPPING=1")
        log.info("stopping", process=os.getpid())
        app[SERVICES].stopping.set()
        for task in beside:
            task.cancel()
    finally:
        await installer.cleanup()
        await runner.cleanup()
    return 0


def _spare_the_collector() -> None:
    """A full collection looks at every object while all requests wait: with two thousand agents a quarter of a second,
    each 15 s. What start-up made stays for good and need not be looked at; the rest is looked at a tenth as often.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # Python waits with the next full one until a quarter more is there than at the last: of what is left
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_COLLECTIONS_APART)


async def _listen(runner: web.AppRunner, listen: str, context: ssl.SSLContext, shared: bool) -> None:
    host, port = address_of(listen)
    site = web.TCPSite(
        runner, host, port, ssl_context=context, backlog=BACKLOG, reuse_port=shared or None, reuse_address=True
    )
    try:
        await site.start()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise ConfigError("cannot listen", subject=listen, why=why, hint="set listen to another port") from error


async def _renew(settings: ServerSettings, contexts: Sequence[ssl.SSLContext]) -> None:
    """A certificate of our making is renewed in time; new connections get the new one."""
    while True:
        await asyncio.sleep(RENEW_EVERY)
        with suppress(ConfigError):
            files = tls.certificates(settings)
            for context in contexts:
                context.load_cert_chain(files.certificate, files.key)


async def _outlive_nobody(supervisor: int, stop: asyncio.Event) -> None:
    """Ends this process after one that was killed, whose port it would keep from the next server."""
    while os.getppid() == supervisor:
        await asyncio.sleep(LOOK_EVERY)
    stop.set()


def _supervise(settings: ServerSettings) -> int:
    """Starts the processes, and again if one dies; the first is the leader. One that cannot be set up ends them all."""
    children: dict[int, bool] = {}
    code, stopping = 0, False

    def stop(number: int = 0, frame: object = None) -> None:
        nonlocal stopping
        stopping = True
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    for number in range(settings.processes):
        children[_fork(settings, leader=number == 0)] = number == 0
    while children:
        child, status = os.wait()
        leader = children.pop(child)
        if stopping:
            continue
        if os.waitstatus_to_exitcode(status) == ExitCode.INVALID_CONFIGURATION:
            code = int(ExitCode.INVALID_CONFIGURATION)
            stop()
            continue
        structlog.get_logger("control").error("process died", process=child, status=status)
        time.sleep(RESTART_AFTER)
        if not stopping:
            children[_fork(settings, leader)] = leader
    return code


def _fork(settings: ServerSettings, leader: bool) -> int:
    supervisor = os.getpid()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        code = asyncio.run(_process(settings, leader, supervisor))
    except ConfigError as error:
        structlog.get_logger("control").error(str(error), hint=error.hint)
        code = int(error.exit_code)
    except BaseException:
        structlog.get_logger("control").exception("process failed")
    finally:
        sys.stdout.flush()
        os._exit(code)
