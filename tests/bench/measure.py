"""Running one command and measuring it: wall and CPU seconds, and if asked the memory of its whole process tree."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_EVERY = 0.05  # seconds
OUTPUT_KEPT = 4000  # characters of what the command said, for the message if it fails


class CommandFailed(RuntimeError):
    """A measured command did not end with status 0; the message has its last words."""


@dataclass(frozen=True, slots=True)
class Outcome:
    seconds: float  # start to exit
    cpu: float  # user and system seconds of the command and the children it waited for
    peak: int  # bytes: largest sum of the PSS of all its processes; 0 if it was not sampled
    read: int = 0  # bytes all its processes read, from files and elsewhere; 0 if it was not sampled


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: arguments, environment on top of ours, working folder."""

    arguments: Sequence[str | bytes | Path]
    environment: Mapping[str, str]
    folder: Path | None = None
    accepted: tuple[int, ...] = (0,)


def run(command: Command, log: Path, *, sample: bool = False) -> Outcome:
    """Run to the end with output going to `log`. Sampling costs a little CPU: sampled runs are not for timing."""
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            [os.fspath(argument) for argument in command.arguments],
            env={**os.environ, **command.environment},
            cwd=command.folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        sampler = _Sampler(process.pid) if sample else None
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
    peak, read = sampler.stop() if sampler else (0, 0)
    if process.returncode not in command.accepted:
        said = log.read_text(errors="replace")[-OUTPUT_KEPT:]
        raise CommandFailed(f"status {process.returncode}: {' '.join(map(str, command.arguments))}\n{said}")
    return Outcome(seconds, usage.ru_utime + usage.ru_stime, peak, read)


class _Sampler:
    """Watches a process and its descendants from a thread. PSS counts a page shared by n processes 1/n in each."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._peak = 0
        self._read: dict[int, int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[int, int]:
        """Largest memory, and all that was read up to the last look."""
        self._ended.set()
        self._thread.join()
        return self._peak, sum(self._read.values())

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY):
            self._peak = max(self._peak, self._memory())

    def _memory(self) -> int:
        try:
            family = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return 0
        for process in family:
            with contextlib.suppress(psutil.Error):
                self._read[process.pid] = process.io_counters().read_chars
        return sum(_memory_of(process) for process in family)


def _memory_of(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.AccessDenied:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0  # it has ended meanwhile
