"""Running the server: listeners, signals, several processes."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
import time
from contextlib import suppress
from datetime import timedelta

import structlog
from aiohttp import web

from control import logs, tls
from control.api.layer import SERVICES
from control.app import make_app
from control.db.migrate import migrate
from control.settings import ServerSettings, address_of
from model.errors import ConfigError
from model.systemd import notify

BACKLOG = 1024
GRACE = 20.0  # seconds that requests under way have when the server stops
RENEW_EVERY = timedelta(hours=12).total_seconds()
RESTART_AFTER = 1.0  # seconds before a process that died is started again


def serve(settings: ServerSettings) -> int:
    """Until SIGTERM or SIGINT. Returns the exit code. Raises ConfigError."""
    logs.set_up(settings.log_level, settings.log_format)
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


async def _process(settings: ServerSettings, leader: bool) -> int:
    log = structlog.get_logger("control")
    files = tls.certificates(settings)
    context = tls.server_context(files)
    app = make_app(settings, leader)
    runner = web.AppRunner(app, access_log=None, keepalive_timeout=75, shutdown_timeout=GRACE)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await runner.setup()
    try:
        host, port = address_of(settings.listen)
        await _listen(runner, settings.listen, context, settings.processes > 1)
        renewing = asyncio.create_task(_renew(settings, context))
        log.info("listening", url=settings.url, host=host or "*", port=port, process=os.getpid())
        if leader:
            notify("READY=1")
        await stop.wait()
        if leader:
            notify("STOPPING=1")
        log.info("stopping", process=os.getpid())
        app[SERVICES].stopping.set()
        renewing.cancel()
    finally:
        await runner.cleanup()
    return 0


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


async def _renew(settings: ServerSettings, context: ssl.SSLContext) -> None:
    """A certificate of our making is renewed in time; new connections get the new one."""
    while True:
        await asyncio.sleep(RENEW_EVERY)
        with suppress(ConfigError):
            files = tls.certificates(settings)
            context.load_cert_chain(files.certificate, files.key)


def _supervise(settings: ServerSettings) -> int:
    """Starts the processes, and again if one dies; the first is the leader."""
    children: dict[int, bool] = {}
    stopping = False

    def stop(number: int, frame: object) -> None:
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
        try:
            child, status = os.wait()
        except InterruptedError:
            continue
        leader = children.pop(child)
        if not stopping:
            structlog.get_logger("control").error("process died", process=child, status=status)
            time.sleep(RESTART_AFTER)
            if not stopping:
                children[_fork(settings, leader)] = leader
    return 0


def _fork(settings: ServerSettings, leader: bool) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        code = asyncio.run(_process(settings, leader))
    except BaseException:
        structlog.get_logger("control").exception("process failed")
    finally:
        sys.stdout.flush()
        os._exit(code)
