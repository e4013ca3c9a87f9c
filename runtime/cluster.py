"""A process per lane, as Ray actors: for many cores or many hosts. The only file that imports ray.

Ray is used for little: it starts processes, carries calls, tells of deaths. Who works on what, room, replay, restart
and placing are ours (schedule, drive, hosts); Ray's own retries are off. It runs hardened: a token, loopback only, a
private temp directory, no dashboard, never somebody else's cluster. A cluster of many hosts is joined only where the
caller says it is, with its token; what is asked of it is in docs/cluster.md.
"""

from __future__ import annotations

import os
import secrets
import signal
import site
import socket
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from model.errors import ConfigError, RunFailed
from runtime.actors import first_line
from runtime.gate import read_token
from runtime.joining import NO_TLS, ClusterOptions
from runtime.private import private_directory
from runtime.program import ROOT
from runtime.ray_executor import ClusterExecutor, RayExecutor

START_ATTEMPTS = 2
LOG_TAIL = 4096  # characters
STORE_BYTES = 128 << 20  # of shared memory; nearly idle, as strands are fused and only rows cross processes
TOKEN = secrets.token_hex(32)  # one for the life of this process: Ray reads it once

ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": TOKEN,
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # binds every socket to 127.0.0.1
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_timeline": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",  # lanes are nice by themselves (runtime/host.py)
    "RAY_ROTATION_MAX_BYTES": "5000000",
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
CONNECT_SECONDS = 10.0
TLS_FILES = {"RAY_TLS_CA_CERT": "ca.crt", "RAY_TLS_SERVER_CERT": "node.crt", "RAY_TLS_SERVER_KEY": "node.key"}

_used: dict[str, str] = {}  # the secrets this process has used Ray with: Ray reads them once


class _OurPath(list[str]):
    """What Ray puts in front of the workers' sys.path: our root and nothing else.

    Ray would extend it by the current directory, and a folder named `stages` or `runtime` there would be imported
    instead of ours.
    """

    def extend(self, more: Iterable[str]) -> None:
        pass


def _ray() -> Any:
    """The ray module, imported in the environment it is to be run in."""
    hook = sys.excepthook
    try:
        import ray
    except ImportError as error:
        raise RunFailed("Ray is not installed", why=str(error), hint="use --executor threads") from error
    finally:
        sys.excepthook = hook  # Ray puts its own there
    ray._private.worker.print_to_stdstream = _say_nothing
    return ray


def _say_nothing(*_: Any, **__: Any) -> None:
    """Ray would tell of lost nodes on our standard output, in colours, also where JSON is expected."""


def _start(directory: str) -> Any:
    """Start Ray; once more if it does not come up, as on a host that is very busy just now."""
    ray = _ray()
    if ray.is_initialized():
        raise RunFailed("this process runs Ray already", hint="ray.shutdown() first: ours is started hardened")
    why = ""
    for attempt in range(START_ATTEMPTS):
        place = f"{directory}/ray{attempt}"
        try:
            _init(ray, place)
        except Exception as error:
            why = _last_words(place) or first_line(error)
            ray.shutdown()
            _end_processes(place)
        else:
            break
    else:
        raise RunFailed("Ray did not start", why=why, hint="use --executor threads")
    if ray.util.get_node_ip_address() != "127.0.0.1":
        ray.shutdown()
        raise RunFailed("Ray listens beyond this host", why="it was imported before", hint="let lox import it first")
    return ray


def _init(ray: Any, place: str) -> None:
    """Raises whatever Ray raises; it waits 30 seconds for its processes."""
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        num_gpus=0,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        namespace=f"lox-{os.getpid()}",
        job_config=_job(),
        _temp_dir=place,
        _system_config={"local_fs_capacity_threshold": 1.0},
    )


def _job() -> Any:
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _OurPath([] if ROOT in site.getsitepackages() else [ROOT])
    return job


def _last_words(place: str) -> str:
    """The last line Ray's own processes wrote to their error logs."""
    for log in Path(place).glob("session_latest/logs/*.err"):
        with suppress(OSError):
            lines = log.read_text(errors="replace")[-LOG_TAIL:].split("\n")
            if said := [line.strip() for line in lines if line.strip()]:
                return f"{log.name}: {said[-1]}"
    return ""


def _end_processes(place: str) -> None:
    """End what Ray started for us and left behind: those whose command line names our private directory."""
    for process in psutil.process_iter(["cmdline"]):
        if any(place in word for word in process.info["cmdline"] or ()):
            with suppress(psutil.Error):
                process.kill()


@contextmanager
def _hardened() -> Iterator[None]:
    """Umask as Ray needs it; at the end signal handlers and umask are the caller's again."""
    mask = os.umask(0o077)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        os.umask(mask)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """These variables set, for as long as Ray is in use. Raises RunFailed if Ray was used with other secrets before."""
    secret = {name: wanted.get(name, "") for name in ("RAY_AUTH_TOKEN", *TLS_FILES)}
    if _used and secret != _used:
        raise RunFailed("this process has used another Ray before", hint="one process, one cluster")
    _used.update(secret)
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def open_ray() -> Iterator[RayExecutor]:
    """Start Ray in a private directory; at the end stop it and remove the directory."""
    with _environment(ENVIRONMENT), private_directory() as directory:
        with _hardened():
            ray = _start(directory)
        try:
            prepare_worker()
            executor = RayExecutor(ray, directory, prepare_worker)
            try:
                yield executor
            finally:
                executor.close()
        finally:
            ray.shutdown()
            _end_processes(directory)


# ---- a cluster that is there already


@contextmanager
def open_cluster(
    options: ClusterOptions, placements: Sequence[Mapping[str, str]] = (), hosts: Sequence[str] = ()
) -> Iterator[ClusterExecutor]:
    """Join a cluster and let in the hosts of these names; none: those that have one of `placements`, or all.

    Nothing of the cluster is ever stopped.

    Raises ConfigError for a bad token file or missing TLS files, RunFailed for a cluster that is not there, or that is
    not as docs/cluster.md wants it.
    """
    token = read_token(options.token_file)
    environment = ENVIRONMENT | _network_environment(options) | {"RAY_AUTH_TOKEN": token.decode()}
    with _environment(environment), private_directory() as directory:
        with _hardened():
            ray = _join(options)
        try:
            prepare_worker()
            executor = ClusterExecutor(ray, directory, prepare_worker, options, token, placements, hosts)
            try:
                yield executor
            finally:
                executor.close()
        finally:
            ray.shutdown()


def _network_environment(options: ClusterOptions) -> dict[str, str]:
    """What differs from a Ray of this host alone. Raises ConfigError."""
    open_to_network = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if options.on_loopback else "1"}
    if options.tls in ("", NO_TLS):
        return open_to_network | {"RAY_USE_TLS": "0"}
    files = {name: os.path.join(options.tls, file) for name, file in TLS_FILES.items()}
    for path in files.values():
        if not os.access(path, os.R_OK):
            raise ConfigError("a file of the cluster's TLS cannot be read", subject=path, hint="see docs/cluster.md")
    return open_to_network | {"RAY_USE_TLS": "1"} | files


def _join(options: ClusterOptions) -> Any:
    """Raises RunFailed. That somebody answers is tried first: Ray itself would wait for a minute."""
    hint = "is it running, on this host too? docs/cluster.md"
    try:
        socket.create_connection(options.endpoint, CONNECT_SECONDS).close()
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise RunFailed("no Ray cluster answers", subject=options.address, why=why, hint=hint) from error
    ray = _ray()
    if ray.is_initialized():
        raise RunFailed("this process runs Ray already", hint="ray.shutdown() first: ours is joined with our settings")
    try:
        ray.init(
            address=options.address,
            log_to_driver=False,
            logging_level="ERROR",
            namespace=f"lox-{os.getpid()}",
            job_config=_job(),
        )
    except Exception as error:
        ray.shutdown()
        raise RunFailed("cannot join the Ray cluster", subject=options.address, why=_why(error), hint=hint) from error
    return ray


def _why(error: BaseException) -> str:
    """The gist of an error and of what led to it."""
    root = error
    while root.__cause__ is not None or root.__context__ is not None:
        root = root.__cause__ or root.__context__ or root
    return first_line(error) if root is error else f"{first_line(error)}: {first_line(root)}"


def prepare_worker() -> None:
    """Let bodies travel as memoryviews: out of band, and not copied on arrival. They arrive read-only."""
    ray = _ray()

    def pack(view: memoryview) -> Any:
        import numpy as np

        return np.frombuffer(view, dtype=np.uint8)

    ray.util.register_serializer(memoryview, serializer=pack, deserializer=memoryview)
