"""A simulated fleet against a real server: ``python -m tests.control.fleet_load --agents 2000 --minutes 10``.

Every agent enrols, sends a heartbeat each minute and holds a long poll open; some stream the progress of a run each
second; an operator looks at lists meanwhile. Printed: latency of calls, heartbeats that got lost, memory of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import psutil

from tests.control.postgres import programs, running_cluster
from tests.control.servers import Tenant, make_tenant, running

HEARTBEAT_SECONDS = 60.0
POLL_SECONDS = 50
LOST_SECONDS = 60  # a heartbeat without an answer for so long is lost
RAMP_SECONDS = 60.0  # in which agents come; calls are measured after it
STAGES = ("scan", "read", "chunk", "hash", "dedup", "compress", "encrypt", "upload", "commit")


@dataclass
class Tally:
    """What was measured. `seconds` by kind of call; long polls are not among them: they are meant to take long."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failures: list[str] = field(default_factory=list)
    beats_sent: int = 0
    beats_answered: int = 0
    memory: list[int] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)  # seconds of the server, so far

    def quantile(self, share: float, kind: str | None = None) -> float:
        """Seconds within which `share` of the calls were answered."""
        chosen = self.seconds[kind] if kind else [one for many in self.seconds.values() for one in many]
        return statistics.quantiles(chosen, n=1000, method="inclusive")[round(share * 1000) - 1]


class Fleet:
    """Agents of one tenant, as far as the server can tell. `desk`: connections of the operator, not those of agents."""

    def __init__(
        self, tenant: Tenant, session: aiohttp.ClientSession, desk: aiohttp.ClientSession, *, beat: float, ramp: float
    ) -> None:
        self.ramp_seconds, self.over, self.desk = ramp, asyncio.Event(), desk
        self.server, self.session, self.tally, self.beat_seconds = tenant.api.server, session, Tally(), beat
        self.operator = {"Authorization": f"Bearer {tenant.api.token}"}

    async def call(self, kind: str, method: str, path: str, headers: dict[str, str], body: Any = None) -> Any:
        """One request, measured."""
        begin, session = time.monotonic(), self.desk if headers is self.operator else self.session
        try:
            async with session.request(method, self.server.url + path, headers=headers, json=body) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.tally.failures.append(f"{kind}: {error!r}")
            return None
        self.tally.seconds[kind].append(time.monotonic() - begin)
        if answer.status >= 300:
            self.tally.failures.append(f"{kind}: {answer.status} {text[:200]}")
            return None
        return json.loads(text) if text else {}

    async def enrol(self, number: int) -> dict[str, str] | None:
        """Add an agent and register it. Returns the headers of its requests."""
        made = await self.call(
            "add", "POST", "/api/v1/agents", self.operator, {"hostname": f"load-{number}", "os": "linux"}
        )
        if made is None:
            return None
        body = {
            "agent_uuid": made["uuid"], "registration_token": made["registration_token"], "hostname": f"load-{number}",
            "os": "linux", "version": "1.0.0", "machine_id": uuid4().hex,
        }  # fmt: skip
        found = await self.call("register", "POST", "/api/v1/agent/register", {}, body)
        return None if found is None else {"Authorization": f"Bearer {found['credential']}", "uuid": made["uuid"]}

    async def agent(self, headers: dict[str, str], streams: bool) -> None:
        """The life of an agent."""
        work = [self._beats(headers), self._polls(headers)]
        if streams:
            work.append(self._run(headers))
        await asyncio.gather(*work)

    async def _beats(self, headers: dict[str, str]) -> None:
        await self._rest(random.uniform(0, self.beat_seconds))  # so that they do not come together
        sequence = 0
        while True:
            sequence += 1
            begin = time.monotonic()
            body = {
                "time": datetime.now(UTC).isoformat(), "sequence": sequence,
                "health": {"version": "1.0.0", "disks": [{"path": "/", "free": 1 << 30, "total": 1 << 34}]},
            }  # fmt: skip
            self.tally.beats_sent += 1
            answer = await self.call("heartbeat", "POST", "/api/v1/agent/heartbeat", headers, body)
            self.tally.beats_answered += answer is not None
            await self._rest(self.beat_seconds - (time.monotonic() - begin))

    async def _rest(self, seconds: float) -> None:
        """Until the next call; for good once the end was called."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), max(0.0, seconds))
        if self.over.is_set():
            await asyncio.Event().wait()

    async def answered(self) -> None:
        """Wait for heartbeats under way, until they count as lost."""
        for _ in range(LOST_SECONDS):
            if self.tally.beats_answered == self.tally.beats_sent:
                return
            await asyncio.sleep(1)

    async def _polls(self, headers: dict[str, str]) -> None:
        await asyncio.sleep(random.uniform(0, self.ramp_seconds))
        path = f"{self.server.url}/api/v1/agent/commands?after=0&wait={POLL_SECONDS}"
        while True:
            try:
                async with self.session.get(path, headers=headers) as answer:
                    text = await answer.text()
                    if answer.status != 200:
                        self.tally.failures.append(f"commands: {answer.status} {text[:200]}")
                        await asyncio.sleep(1)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.tally.failures.append(f"commands: {error!r}")
                await asyncio.sleep(1)

    async def _run(self, headers: dict[str, str]) -> None:
        await asyncio.sleep(random.uniform(0, 1))
        path, sequence = f"/api/v1/agent/runs/{uuid4()}/events", 0
        events: list[dict[str, Any]] = [{"event": "started", "kind": "backup"}]
        while True:
            begin = time.monotonic()
            moment = datetime.now(UTC).isoformat()
            for event in events:
                sequence += 1
                event.update(sequence=sequence, time=moment)
            await self.call("events", "POST", path, headers, {"events": events})
            work = {"items": sequence, "bytes": sequence << 20, "busy": 1.0, "starved": 0.1, "blocked": 0.1}
            stages = [{"name": name, **work} for name in STAGES]
            events = [{"event": "progress", "files_done": sequence, "bytes_done": sequence << 20, "stages": stages}]
            await asyncio.sleep(max(0.0, 1.0 - (time.monotonic() - begin)))

    async def operator_looks(self) -> None:
        """Somebody who has the dashboard open."""
        while True:
            for path in ("/api/v1/agents?limit=100", "/api/v1/runs?limit=50", "/api/v1/alerts?open=true"):
                await self.call("operator", "GET", path, self.operator)
            await asyncio.sleep(1)

    async def memory(self, every: float) -> None:
        """Resident bytes of all processes of the server, now and then."""
        while True:
            with suppress(psutil.Error):
                process = psutil.Process(self.server.process.pid if self.server.process else None)
                family = [process, *process.children(recursive=True)]
                self.tally.memory.append(sum(one.memory_info().rss for one in family))
                self.tally.processor.append(sum(sum(one.cpu_times()[:2]) for one in family))
            await asyncio.sleep(every)


async def drive(
    tenant: Tenant,
    agents: int,
    streams: int,
    seconds: float,
    beat: float = HEARTBEAT_SECONDS,
    ramp: float = RAMP_SECONDS,
) -> Fleet:
    """Have `agents` live for `seconds` after all have enrolled."""

    def connections() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, ssl=tenant.api.server.context(), keepalive_timeout=70)
        return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=POLL_SECONDS + 30))

    async with connections() as session, connections() as desk:
        fleet = Fleet(tenant, session, desk, beat=beat, ramp=ramp)
        known: list[dict[str, str]] = []
        for first in range(0, agents, 20):
            some = await asyncio.gather(*(fleet.enrol(number) for number in range(first, min(first + 20, agents))))
            known += [headers for headers in some if headers]
        fleet.tally.seconds.clear()
        work = [asyncio.create_task(fleet.agent(headers, number < streams)) for number, headers in enumerate(known)]
        work += [asyncio.create_task(fleet.operator_looks()), asyncio.create_task(fleet.memory(max(1.0, seconds / 60)))]
        await asyncio.sleep(ramp + 5)
        fleet.tally.seconds.clear()
        fleet.tally.processor.clear()
        await asyncio.sleep(seconds)
        fleet.over.set()
        await fleet.answered()  # what is under way is not lost
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await asyncio.sleep(6)  # heartbeats are written every 5 s
    return fleet


async def missing(tenant: Tenant) -> list[str]:
    """Agents that the server does not call online."""
    found, cursor = [], ""
    connector = aiohttp.TCPConnector(ssl=tenant.api.server.context())
    headers = {"Authorization": f"Bearer {tenant.api.token}"}
    async with aiohttp.ClientSession(tenant.api.server.url, connector=connector, headers=headers) as session:
        while True:
            async with session.get(f"/api/v1/agents?limit=500{cursor}") as answer:
                part = await answer.json()
            found += [f"{one['name']} is {one['status']}" for one in part["items"] if one["status"] != "online"]
            if part["next"] is None:
                return found
            cursor = f"&cursor={part['next']}"


def report(fleet: Fleet) -> str:
    """What is printed."""
    tally = fleet.tally
    lines = [f"{'calls':<12}{'count':>8}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}"]
    for kind in (*sorted(tally.seconds), None):
        chosen = tally.seconds[kind] if kind else [one for many in tally.seconds.values() for one in many]
        numbers = [1000 * value for value in (tally.quantile(0.5, kind), tally.quantile(0.99, kind), max(chosen))]
        lines.append(f"{kind or 'all':<12}{len(chosen):>8}" + "".join(f"{number:>10.1f}" for number in numbers))
    used = tally.processor[-1] - tally.processor[0]
    calls = sum(map(len, tally.seconds.values()))
    lines.append(
        f"processor of the server: {used:.1f} s, {1000 * used / calls:.1f} ms a call and its share of long polls"
    )
    lines.append(f"heartbeats: {tally.beats_sent} sent, {tally.beats_answered} answered")
    lines.append(f"failures: {len(tally.failures)} {tally.failures[:3] if tally.failures else ''}")
    lines.append("memory of the server, MiB: " + " ".join(f"{size / (1 << 20):.0f}" for size in tally.memory[::5]))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--postgresql", action="store_true", help="start one and use it; by default SQLite")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args(arguments)
    options = () if given.processes == 1 else ("--processes", str(given.processes))
    quiet = {"LOX_SERVER_LOG_LEVEL": "info"}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = None
        if given.postgresql:
            found = programs()
            if found is None:
                parser.error("PostgreSQL is not here")
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            database = stack.enter_context(running_cluster(place, found)).database()
        server = stack.enter_context(running(folder / "server", *options, database=database, **quiet))
        tenant = make_tenant(server, "Load")
        fleet = asyncio.run(drive(tenant, given.agents, given.runs, given.minutes * 60))
        print(report(fleet))
        print("\n".join(asyncio.run(missing(tenant))))
    return int(bool(fleet.tally.failures))


if __name__ == "__main__":
    sys.exit(main())
