"""A process per lane, as Ray actors: for many cores or many hosts. The only file that imports ray.

Ray is used for little: it starts processes, carries calls, tells of deaths. Who works on what, room, replay and
restart are ours (schedule, drive); Ray's own retries are off. It runs hardened: a token, loopback only, a private
temp directory, no dashboard, never somebody else's cluster.
"""

from __future__ import annotations

import os
import secrets
import signal
import site
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from model.errors import RunFailed
from runtime.actors import GROUP, RayHands, first_line
from runtime.drive import Control, Drive
from runtime.plan import Plan, fuse
from runtime.private import private_directory
from runtime.schedule import WINDOW
from runtime.services import ServiceServer
from runtime.stage import Sink
from runtime.trace import Trace

if TYPE_CHECKING:
    from runtime.executors import ExecutorName

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
ROOT = str(Path(__file__).resolve().parent.parent)  # where our packages are imported from


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
    return ray


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
    from ray.job_config import JobConfig

    job = JobConfig()
    job._py_driver_sys_path = _OurPath([] if ROOT in site.getsitepackages() else [ROOT])
    ray.init(
        address="local",
        num_cpus=len(os.sched_getaffinity(0)),
        num_gpus=0,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        namespace=f"lox-{os.getpid()}",
        job_config=job,
        _temp_dir=place,
        _system_config={"local_fs_capacity_threshold": 1.0},
    )


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
    """Environment and umask as Ray needs them; at the end signal handlers and umask are the caller's again."""
    mask = os.umask(0o077)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    os.environ.update(ENVIRONMENT)
    try:
        yield
    finally:
        os.umask(mask)
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                if handler is not None:
                    signal.signal(number, handler)


@contextmanager
def open_ray() -> Iterator[RayExecutor]:
    """Start Ray in a private directory; at the end stop it and remove the directory."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    with private_directory() as directory:
        try:
            with _hardened():
                ray = _start(directory)
            try:
                prepare_worker()
                executor = RayExecutor(ray, directory)
                try:
                    yield executor
                finally:
                    executor.close()
            finally:
                ray.shutdown()
                _end_processes(directory)
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


def prepare_worker() -> None:
    """Let bodies travel as memoryviews: out of band, and not copied on arrival. They arrive read-only."""
    ray = _ray()

    def pack(view: memoryview) -> Any:
        import numpy as np

        return np.frombuffer(view, dtype=np.uint8)

    ray.util.register_serializer(memoryview, serializer=pack, deserializer=memoryview)


class RayExecutor:
    """Lanes as actors of one private Ray. Made by `open_ray`."""

    def __init__(self, ray: Any, directory: str) -> None:
        self.name: ExecutorName = "ray"
        self.private_directory: str | None = directory
        self._ray = ray
        self._services = ServiceServer(directory)

    def host(self, services: Mapping[str, Any]) -> None:
        """See `Executor.host`."""
        self._services.add(services)

    def run(
        self,
        plan: Plan,
        feed: Iterable[Any],
        sink: Sink[Any],
        control: Control | None = None,
    ) -> Trace:
        """See `Executor.run`."""
        strands = fuse(plan)
        # Between strands bodies are under way, in one strand only descriptions of work: of those a lane may have more.
        window = WINDOW if len(strands) > 1 else 2 * GROUP
        drive = Drive(plan, strands, sink, control or Control(), self.name, window)
        return drive.run(feed, RayHands(self._ray, drive, self._services.remote(), prepare_worker))

    def close(self) -> None:
        """Take no more calls."""
        self._services.close()
