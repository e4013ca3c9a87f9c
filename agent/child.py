"""`lox` as a process of its own: what it does is in its hands, what it says comes here as events.

A run that crashes or needs much memory takes nothing of the agent with it. Its process has a session of its own: SIGINT
asks it to stop cleanly, SIGKILL goes to all that it started.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

from model.exits import ExitCode

LINE_MAX = 1 << 20  # bytes of one line of what it says
PATIENCE = 60.0  # seconds between SIGINT and SIGKILL
PROGRESS_SECONDS = "1"
NOISE_MAX = 200  # lines that are no events and are kept

Event = dict[str, Any]


@dataclass(slots=True)
class Ended:
    """How it ended: its exit code (negative: the signal that killed it), its summary, and what it said of trouble."""

    code: int
    summary: Event = field(default_factory=dict)
    error: Event = field(default_factory=dict)
    noise: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether it did its work, perhaps not for all items."""
        return self.code in (ExitCode.OK, ExitCode.PARTIAL)

    @property
    def trouble(self) -> str:
        """Why it failed; empty if it did not."""
        if self.good:
            return ""
        if message := self.error.get("message"):
            return str(message)
        if self.code < 0:
            return f"lox was killed by signal {-self.code}"
        said = f": {self.noise[-1]}" if self.noise else ""
        return f"lox ended with exit code {self.code}{said}"


class Child:
    """One command of lox. `on_event` gets what it says, but for the summary and the error, which are in `Ended`."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self.arguments = tuple(arguments)
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self.began: float | None = None  # by which the process is told from a later one of the same number

    async def start(self) -> None:
        """Begin."""
        command = [sys.executable, "-P", "-m", "lox", *self.arguments]
        self._process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_MAX,
            env=_environment(self._environment),
            cwd="/",
            start_new_session=True,
        )
        self.began = began(self._process.pid)

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None, "started"
        return self._process.pid

    async def finish(self, on_event: Callable[[Event], None] = lambda event: None) -> Ended:
        """Listen until it ends. If the task is cancelled it is stopped first."""
        process = self._started()
        ended = Ended(0)
        assert process.stdout is not None and process.stderr is not None
        try:
            await asyncio.gather(
                *(self._listen(stream, ended, on_event) for stream in (process.stdout, process.stderr))
            )
            ended.code = await process.wait()
        finally:
            if process.returncode is None:
                await asyncio.shield(self.stop())
        return ended

    async def data(self, ended: Ended, size: int = 1 << 18) -> AsyncGenerator[bytes, None]:
        """What it writes to stdout, in pieces; `ended` is filled in when there is no more."""
        process = self._started()
        assert process.stdout is not None and process.stderr is not None
        listening = asyncio.create_task(self._listen(process.stderr, ended, lambda event: None))
        try:
            while piece := await process.stdout.read(size):
                yield piece
            ended.code = await process.wait()
            await listening
        finally:
            listening.cancel()
            if process.returncode is None:
                await asyncio.shield(self.stop())

    async def stop(self, patience: float = PATIENCE) -> None:
        """Ask it to stop cleanly, and end all of it if it does not."""
        process = self._started()
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def interrupt(self) -> None:
        """Ask it to stop cleanly; `finish` goes on until it has."""
        with suppress(ProcessLookupError):
            self._started().send_signal(signal.SIGINT)

    def _started(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "start comes first"
        return self._process

    async def _listen(self, stream: asyncio.StreamReader, ended: Ended, on_event: Callable[[Event], None]) -> None:
        while True:
            try:
                line = await stream.readline()
            except ValueError:  # a line too long to be one of ours; what follows of it is noise too
                continue
            if not line:
                return
            event = _event(line)
            if event is None:
                if len(ended.noise) < NOISE_MAX and (text := line.decode("utf-8", "replace").strip()):
                    ended.noise.append(text[:1000])
            elif event["type"] == "summary":
                ended.summary = event
            elif event["type"] == "error":
                ended.error = event
            else:
                on_event(event)


def _event(line: bytes) -> Event | None:
    if not line.startswith(b"{"):
        return None
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else None


def _environment(given: Mapping[str, str]) -> dict[str, str]:
    """The agent's own environment, where credentials of stores may be, without settings of lox, but for `given`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOX_", "NOTIFY_", "WATCHDOG_"))}
    kernels = {"LOX_KERNELS": os.environ["LOX_KERNELS"]} if "LOX_KERNELS" in os.environ else {}
    return kept | kernels | {"LOX_PROGRESS_INTERVAL": PROGRESS_SECONDS} | dict(given)


async def lox(
    arguments: Sequence[str], environment: Mapping[str, str], timeout: float | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Ended:  # fmt: skip
    """One command of lox from beginning to end. Raises TimeoutError after so many seconds."""
    child = Child(arguments, environment)
    await child.start()
    async with asyncio.timeout(timeout):
        return await child.finish(on_event)


def began(pid: int) -> float | None:
    """When a process began, by which it is told from a later one of the same number; None if there is none."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def end_orphan(pid: int | None, pid_began: float | None, patience: float = PATIENCE) -> bool:
    """End a run that outlived its agent, cleanly if it can; whether there was one. Takes up to `patience` seconds."""
    if pid is None or pid_began is None or began(pid) != pid_began:
        return False
    try:
        process = psutil.Process(pid)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(patience)
        except psutil.TimeoutExpired:
            os.killpg(pid, signal.SIGKILL)
            process.wait(10)
    except (psutil.Error, ProcessLookupError, PermissionError):
        pass
    return True
