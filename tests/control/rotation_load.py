"""All credentials change while a fleet works: ``python -m tests.control.rotation_load --agents 200 --rounds 3``.

Every agent sends heartbeats, holds a long poll open and streams the progress of a run, each with the credential that it
has at that moment. An operator has all of them take new ones. Printed: what failed, which agents were not online, what
alerts there are, and how long it took until the last old credential was gone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from tests.control.servers import Tenant, make_tenant, running

AT_ONCE = 20  # enrolments, and requests of the operator
PATIENCE = 180.0  # seconds for one round


@dataclass
class Result:
    """What came of it. `rounds`: seconds until all agents had their new credential; `beats` in seconds."""

    failures: list[str] = field(default_factory=list)
    beats: list[float] = field(default_factory=list)
    calls: int = 0
    rounds: list[float] = field(default_factory=list)
    credentials: int = 0  # that agents were given
    not_online: set[str] = field(default_factory=set)
    alerts: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        p99 = statistics.quantiles(self.beats, n=100, method="inclusive")[98] if len(self.beats) > 1 else 0.0
        took = ", ".join(f"{seconds:.1f}" for seconds in self.rounds)
        return (
            f"credentials changed: {self.credentials}; seconds until all had changed, by round: {took}\n"
            f"calls: {self.calls}, of which failed: {len(self.failures)} {self.failures[:3]}\n"
            f"heartbeats: {len(self.beats)}, p99 {1000 * p99:.0f} ms\n"
            f"agents not online at some look: {len(self.not_online)}; alerts: {len(self.alerts)} {self.alerts[:3]}"
        )


class Rotating:
    """A fleet of one tenant whose credentials change."""

    def __init__(self, tenant: Tenant, session: aiohttp.ClientSession, beat: float) -> None:
        self.url, self.session, self.beat_seconds = tenant.api.server.url, session, beat
        self.operator = {"Authorization": f"Bearer {tenant.api.token}"}
        self.result, self.known = Result(), dict[str, str]()

    async def call(self, method: str, path: str, token: str | None, body: Any = None) -> Any:
        """One request, as an agent with `token`, or as the operator. What fails is noted."""
        headers = self.operator if token is None else {"Authorization": f"Bearer {token}"}
        self.result.calls += 1
        try:
            async with self.session.request(method, self.url + path, headers=headers, json=body) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.result.failures.append(f"{method} {path}: {error!r}")
            return None
        if answer.status >= 300:
            self.result.failures.append(f"{method} {path}: {answer.status} {text[:200]}")
            return None
        return json.loads(text) if text else {}

    async def enrol(self, number: int) -> None:
        """One more agent."""
        made = await self.call("POST", "/api/v1/agents", None, {"hostname": f"turn-{number}", "os": "linux"})
        body = {
            "agent_uuid": made["uuid"], "registration_token": made["registration_token"], "hostname": f"turn-{number}",
            "os": "linux", "version": "1.0.0", "machine_id": uuid4().hex,
        }  # fmt: skip
        found = await self.call("POST", "/api/v1/agent/register", "", body)
        self.known[made["uuid"]] = found["credential"]

    async def live(self, agent: str) -> None:
        """An agent, until cancelled."""
        wake = asyncio.Event()
        await asyncio.gather(self._beats(agent, wake), self._polls(agent, wake), self._progress(agent))

    async def _beats(self, agent: str, wake: asyncio.Event) -> None:
        sequence = 0
        while True:
            wake.clear()
            sequence, begin = sequence + 1, time.monotonic()
            body = {"time": datetime.now(UTC).isoformat(), "sequence": sequence, "health": {"version": "1.0.0"}}
            answer = await self.call("POST", "/api/v1/agent/heartbeat", self.known[agent], body)
            self.result.beats.append(time.monotonic() - begin)
            if answer and answer["credential"]:
                self.known[agent] = answer["credential"]
                self.result.credentials += 1
                continue  # its first use makes the old one invalid
            try:
                await asyncio.wait_for(wake.wait(), self.beat_seconds)
            except TimeoutError:
                continue

    async def _polls(self, agent: str, wake: asyncio.Event) -> None:
        after = 0
        while True:
            path = f"/api/v1/agent/commands?after={after}&wait=20"
            found = await self.call("GET", path, self.known[agent])
            for command in (found or {"commands": []})["commands"]:
                after = command["sequence"]
                if command["body"]["kind"] == "rotate_credential":
                    wake.set()
            if found is None:
                await asyncio.sleep(1)

    async def _progress(self, agent: str) -> None:
        path, sequence = f"/api/v1/agent/runs/{uuid4()}/events", 0
        while True:
            sequence += 1
            moment = datetime.now(UTC).isoformat()
            kind = {"event": "started", "kind": "backup"} if sequence == 1 else {"event": "progress"}
            await self.call(
                "POST", path, self.known[agent], {"events": [kind | {"sequence": sequence, "time": moment}]}
            )
            await asyncio.sleep(self.beat_seconds)

    async def round(self) -> None:
        """Have all agents take new credentials, and wait until none is left with an old one."""
        begin, room = time.monotonic(), asyncio.Semaphore(AT_ONCE)

        async def turn(agent: str) -> None:
            async with room:
                await self.call("POST", f"/api/v1/agents/{agent}/rotate-token", None)

        await asyncio.gather(*map(turn, self.known))
        for agent in self.known:
            while (await self.look(agent))["rotation_pending"]:
                if time.monotonic() > begin + PATIENCE:
                    self.result.failures.append(f"{agent} kept its old credential")
                    return
                await asyncio.sleep(0.1)
        self.result.rounds.append(time.monotonic() - begin)

    async def look(self, agent: str) -> Any:
        """The agent as the operator sees it; whether it is online is noted."""
        found = await self.call("GET", f"/api/v1/agents/{agent}", None) or {"rotation_pending": True, "status": "?"}
        if found["status"] != "online":
            self.result.not_online.add(f"{agent} is {found['status']}")
        return found


async def drive(tenant: Tenant, agents: int, rounds: int, beat: float) -> Result:
    """Let `agents` live, each with a heartbeat every `beat` seconds, while all credentials change `rounds` times."""
    connector = aiohttp.TCPConnector(limit=0, ssl=tenant.api.server.context(), keepalive_timeout=70)
    timeout = aiohttp.ClientTimeout(total=PATIENCE)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        fleet = Rotating(tenant, session, beat)
        for first in range(0, agents, AT_ONCE):
            await asyncio.gather(*(fleet.enrol(number) for number in range(first, min(first + AT_ONCE, agents))))
        lives = [asyncio.create_task(fleet.live(agent)) for agent in fleet.known]
        while len(fleet.result.beats) < agents:
            await asyncio.sleep(0.1)
        for _ in range(rounds):
            await fleet.round()
        await asyncio.sleep(2 * beat)  # with the new ones
        for agent in fleet.known:
            await fleet.look(agent)
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        found = await fleet.call("GET", "/api/v1/alerts?limit=500", None)
        fleet.result.alerts = [f"{alert['kind']}: {alert['text']}" for alert in found["items"]]
        return fleet.result


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--beat", type=float, default=5.0, help="seconds between heartbeats, and between progress")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, running(Path(name), LOX_SERVER_LOG_LEVEL="info") as server:
        result = asyncio.run(drive(make_tenant(server, "Turning"), given.agents, given.rounds, given.beat))
    print(result)
    return int(bool(result.failures or result.not_online or result.alerts))


if __name__ == "__main__":
    sys.exit(main())
