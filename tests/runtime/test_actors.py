"""Deaths at every moment: the hands of Ray against a Ray that answers and dies in an order made up by a seed.

Real Ray is what tests/runtime/test_cluster.py is for; it cannot be made to die between two particular replies.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from model.errors import RunFailed
from runtime.actors import GROUP, LaneSettings, RayHands
from runtime.drive import Control, Drive
from runtime.host import StrandHost
from runtime.plan import Flow, fuse
from runtime.stage import Stage

NAMES_OF_LOSS = (
    "RayActorError",
    "WorkerCrashedError",
    "ObjectLostError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ActorUnschedulableError",
    "TaskUnschedulableError",
)


class Lost(Exception):
    pass


class Same(Stage[int, int]):
    def push(self, item: int) -> Iterator[int]:
        yield item


@dataclass(eq=False)
class Reference:
    handle: Handle
    call: Callable[[], Any]


class Handle:
    def __init__(self, setup: Any) -> None:
        self.worker = StrandHost(setup)
        self.dead = False

    def __getattr__(self, name: str) -> Any:
        def remote(*args: Any) -> Reference:
            return Reference(self, lambda: getattr(self.worker, name)(*args))

        return SimpleNamespace(remote=remote, options=lambda **_: SimpleNamespace(remote=remote))


class MadeUpRay:
    exceptions = SimpleNamespace(**dict.fromkeys(NAMES_OF_LOSS, Lost))

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._deaths = 6

    def remote(self, **_: Any) -> Any:
        return lambda kind: SimpleNamespace(options=lambda **_: SimpleNamespace(remote=Handle))

    def wait(self, refs: Sequence[Reference], timeout: float, **_: Any) -> tuple[list[Reference], list[Reference]]:
        share = self._rng.choice([0.1, 0.5, 0.9])
        ready = [ref for ref in refs if self._rng.random() < share or timeout > 1]
        return ready, [ref for ref in refs if ref not in ready]

    def get(self, ref: Reference) -> Any:
        if self._deaths and self._rng.random() < 0.05:
            ref.handle.dead = True
            self._deaths -= 1
        if ref.handle.dead:
            raise Lost("died")
        return ref.call()

    def kill(self, handle: Handle) -> None:
        handle.dead = True


class Seen(set[int]):
    def push(self, item: int) -> Sequence[int]:
        self.add(item)
        return [item]

    def lost(self, lane_name: str) -> None:
        pass


def test_whenever_workers_die_everything_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.host.os.nice", lambda more: 0)
    given_up = 0
    for seed in range(150):
        plan = Flow[int]().then("same", Same(), lanes=3).plan("p", measure=lambda item: 1)
        sink = Seen()
        drive = Drive(plan, fuse(plan), sink, Control(), "ray", 2 * GROUP)
        hands = RayHands(MadeUpRay(random.Random(seed)), drive, LaneSettings({}, lambda: None))
        try:
            drive.run(iter(range(200)), hands)
        except RunFailed as error:  # an item can be struck three times: then the run ends, and says so
            assert "times" in str(error)
            given_up += 1
        else:
            assert sink == set(range(200)), f"seed {seed}"
    assert given_up < 15
