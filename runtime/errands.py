"""Work that belongs to one host and to no other: an errand runs there in a process of its own, from beginning to end.

Lanes share what is fed to one plan, wherever they are. An errand is for what only its host can do, such as to walk its
own file system: it has plans of its own, run on threads there. What errands share are services.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from model.errors import Interrupted, RunFailed
from runtime.actors import first_line, lost_errors
from runtime.host import LANE_NICENESS, Raised
from runtime.schedule import ATTEMPTS
from runtime.stage import StopSignal

TICK_SECONDS = 0.2
STOP_SECONDS = 60.0  # what is under way may take to come to its end when the user wants out
ABORT_SECONDS = 10.0  # the same once the run has failed: what was stored meanwhile need not be stored again


class Errand(Protocol):
    """What is to be done on a host; pickles. `life` counts the processes it was begun in, from 1."""

    def __call__(self, services: Mapping[str, Any], stop: StopSignal, life: int) -> Any: ...


class Place(Protocol):
    """Where errands go: `runtime.hosts.Hosts`."""

    def bound(self, name: str) -> Mapping[str, Any]:
        """Options of Ray for the process of the host of this name. Raises RunFailed if it is gone."""
        ...


@dataclass(frozen=True, slots=True)
class ErrandControl:
    """How errands are stopped and watched, always in the caller's thread.

    `on_tick` is called about 5 times a second, and once more when all are over; `on_lost` with host and life when a
    process is gone, before another one is begun.
    """

    stop: StopSignal
    on_tick: Callable[[], None] = field(default=lambda: None)
    on_lost: Callable[[str, int], None] = field(default=lambda host, life: None)


class ErrandHost:
    """One errand in its own process. `stop` may be called while it runs."""

    def __init__(
        self,
        errand: Errand,
        services: Mapping[str, Any],
        life: int,
        prepare: Callable[[], None],
        environment: Mapping[str, str],
    ) -> None:
        os.environ.update(environment)
        prepare()
        os.nice(LANE_NICENESS)
        self._errand = errand
        self._services = services
        self._life = life
        self._stop = threading.Event()

    def run(self) -> Any:
        """What comes of the errand, or what it raised, as `Raised`."""
        try:
            return self._errand(self._services, self._stop, self._life)
        except Exception as error:
            return Raised.of(error)

    def stop(self) -> None:
        """Set the stop signal of the errand."""
        self._stop.set()


@dataclass(slots=True)
class _Process:
    host: str
    life: int
    handle: Any
    answer: Any


class Errands:
    """Runs one errand on each of some hosts. `ray` is handed in, as everywhere."""

    def __init__(
        self,
        ray: Any,
        place: Place,
        services: Mapping[str, Any],
        prepare: Callable[[], None],
        environment: Mapping[str, str],
    ) -> None:
        self._ray = ray
        self._place = place
        self._given = (services, prepare, environment)
        self._actor = ray.remote(concurrency_groups={"control": 1})(ErrandHost)
        self._running: dict[Any, _Process] = {}  # by answer
        self.deaths = 0

    def run(self, errands: Mapping[str, Errand], control: ErrandControl) -> dict[str, Any]:
        """What came of the errand of each host.

        The first that fails ends the others. Raises RunFailed (its cause: what the errand raised), which names the
        host; Interrupted.
        """
        done: dict[str, Any] = {}
        try:
            for host, errand in errands.items():
                self._begin(host, errand, 1)
            while self._running and not control.stop.is_set():
                done |= self._collect(errands, control)
                control.on_tick()
            if self._running:
                self._end(STOP_SECONDS, control)
                raise Interrupted("interrupted", subject="ray", hint="what was finished is kept")
        except RunFailed:
            self._end(ABORT_SECONDS, control)
            raise
        finally:
            for process in self._running.values():
                self._kill(process)
        return done

    def _begin(self, host: str, errand: Errand, life: int) -> None:
        services, prepare, environment = self._given
        options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0, "enable_task_events": False}
        actor = self._actor.options(**options, **self._place.bound(host))
        handle = actor.remote(errand, services, life, prepare, environment)
        answer = handle.run.remote()
        self._running[answer] = _Process(host, life, handle, answer)

    def _collect(self, errands: Mapping[str, Errand], control: ErrandControl) -> dict[str, Any]:
        """What is finished by now; waits a moment for it."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=TICK_SECONDS, fetch_local=False)
        done = {}
        for answer in ready:
            process = self._running.pop(answer)
            try:
                result = self._ray.get(answer)
            except lost_errors(self._ray) as error:
                self._again(process, errands[process.host], first_line(error), control)
                continue
            except Exception as error:  # the call did not get as far as our code
                raise _failure(process.host, error) from error
            finally:
                self._kill(process)
            if isinstance(result, Raised):
                cause = result.unpack()
                raise _failure(process.host, cause) from cause
            done[process.host] = result
        return done

    def _again(self, process: _Process, errand: Errand, why: str, control: ErrandControl) -> None:
        """Its process is gone: once more from the beginning, unless that has been tried often enough."""
        self.deaths += 1
        control.on_lost(process.host, process.life)
        if process.life >= ATTEMPTS:
            raise RunFailed(
                "the work of a host was ended from outside",
                subject=process.host,
                why=f"{process.life} times; {why}",
                hint="look into its system log: is it short of memory?",
            )
        self._begin(process.host, errand, process.life + 1)

    def _end(self, seconds: float, control: ErrandControl) -> None:
        """Let all come to their end; what they tell meanwhile is heard."""
        for process in self._running.values():
            with suppress(Exception):
                process.handle.stop.options(concurrency_group="control").remote()
        deadline = time.monotonic() + seconds
        waiting = list(self._running)
        while waiting and time.monotonic() < deadline:
            _, waiting = self._ray.wait(waiting, num_returns=1, timeout=TICK_SECONDS, fetch_local=False)
            with suppress(Exception):  # why the run ends is known already
                control.on_tick()

    def _kill(self, process: _Process) -> None:
        with suppress(Exception):
            self._ray.kill(process.handle)


def _failure(host: str, error: BaseException) -> RunFailed:
    why = str(error) or type(error).__name__
    failure = RunFailed("a host could not do its part", subject=host, why=why, hint=getattr(error, "hint", ""))
    for note in getattr(error, "__notes__", []):
        failure.add_note(note)
    return failure
