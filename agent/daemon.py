"""The agent at work: heartbeats, commands, the schedule, and telling the server what happened, until it is stopped.

Each of these is a task of its own that lives with a server that is away: the schedule goes on by the policy that was
last heard, and what happens is kept on disk until it can be told.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from agent import enrol, logs, pings
from agent.channel import Channel
from agent.config import AgentConfig
from agent.health import health
from agent.host import Host
from agent.logs import log
from agent.runner import Runner
from agent.sender import Sender
from agent.server import Backoff, Server, ServerAway, ServerRefused, ServerRejected
from agent.state import StateUnwritable
from agent.work_dir import write_private
from model.errors import LoxError
from model.systemd import notify, watchdog_seconds
from model.wire.agents import HeartbeatIn
from model.wire.policy import Policy

EXPECTING_SECONDS, EXPECTED_BEATS = 6.0, 4  # another process of the server may learn of a rotation 5 s later
REFUSED_SECONDS = 60.0  # before a server that does not know the agent is asked again


class Daemon:
    """One agent. `run` returns when it was asked to stop; raises LoxError if it cannot go on."""

    def __init__(self, config: AgentConfig) -> None:
        self.config = config
        self.host = Host.of(config)
        self.server = Server(config, lambda: enrol.credential_of(self.host.work))
        self.runner = Runner(self.host)
        self.sender = Sender(self.host, self.server, self.runner.cancel)
        self.channel = Channel(self)
        self.stopping = asyncio.Event()
        self._beat_now = asyncio.Event()
        self._skew: float | None = None
        self._expecting = 0
        self._unwritable = ""
        self._fetching = asyncio.Lock()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. SIGHUP fetches the policy, SIGUSR1 looks for runs that were asked for here."""
        with self.host.work.only_one():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stopping.set)
            loop.add_signal_handler(signal.SIGHUP, self._beat_now.set)
            loop.add_signal_handler(signal.SIGUSR1, self.runner.look)
            self.host.metrics.serve(self.config.metrics)
            self._remembered_policy()
            async with self.server:
                await self._work()
            self.host.metrics.close()
            self.host.state.close()

    async def _work(self) -> None:
        jobs: list[Coroutine[Any, Any, None]] = [self._watchdog(), self.runner.serve(), self._connected()]
        tasks = [asyncio.create_task(job) for job in jobs]
        stop: asyncio.Task[Any] = asyncio.create_task(self.stopping.wait())
        notify("READY=1", f"STATUS=agent {self.config.agent_uuid}")
        log().info("the agent is at work", agent=str(self.config.agent_uuid), server=self.config.api_url)
        try:
            await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            notify("STOPPING=1")
            for task in (stop, *tasks):
                task.cancel()
            await asyncio.gather(stop, *tasks, return_exceptions=True)
            await self.sender.last_words()
            await pings.finish(2.0)
            log().info("the agent has stopped")

    async def _connected(self) -> None:
        """Register, then all that talks to the server."""
        backoff = Backoff()
        while True:
            try:
                await enrol.register(self.config, self.host.work, self.host.state, self.server)
                break
            except (ServerAway, ServerRejected, StateUnwritable) as error:
                log().warning("cannot register yet", why=str(error), hint=error.hint)
                await asyncio.sleep(backoff.seconds(getattr(error, "retry_after", 0.0)))
            except OSError as error:  # the credential cannot be written down: it is asked for again
                log().warning("cannot register yet", why=str(error))
                await asyncio.sleep(backoff.seconds())
        async with asyncio.TaskGroup() as group:
            group.create_task(self._heartbeats())
            group.create_task(self.channel.serve())
            group.create_task(self.sender.serve())

    async def _watchdog(self) -> None:
        seconds = watchdog_seconds()
        while True:
            if seconds is not None:
                notify("WATCHDOG=1")
            await asyncio.sleep(seconds or 3600.0)

    # ---- heartbeats

    async def _heartbeats(self) -> None:
        backoff, away = Backoff(5.0, self.config.heartbeat_interval), ""
        while True:
            self._beat_now.clear()
            wait = float(self.config.heartbeat_interval)
            try:
                wait = min(wait, await self.beat())
                backoff.succeeded()
                if away:
                    log().info("the server is back")
                away = ""
            except ServerAway as error:
                level = logging.DEBUG if away == error.what else logging.WARNING  # each reason once
                log().log(level, "no heartbeat", why=str(error), hint=error.hint)
                away = error.what
                wait = min(wait, backoff.seconds(error.retry_after))
            except ServerRefused as error:
                log().error("the server refuses this agent", why=error.why, hint=error.hint)
                wait = max(wait, REFUSED_SECONDS)
            except ServerRejected as error:
                log().error("a heartbeat was rejected; are agent and server of one version?", why=str(error))
            except (StateUnwritable, OSError) as error:
                log().warning("what the server said cannot be written down", why=str(error))
            try:
                async with asyncio.timeout(wait * random.uniform(0.95, 1.0)):
                    await self._beat_now.wait()
            except TimeoutError:
                pass

    async def beat(self) -> float:
        """One heartbeat, and what its answer asks for. Returns seconds until the next. Raises ServerAway and so on."""
        interval = self.config.heartbeat_interval
        self.host.metrics.beat(interval)
        sequence = self._next_beat()
        begun = time.time()
        answer = await self.server.heartbeat(self._heartbeat(sequence))
        self._skew = (begun + time.time()) / 2 - answer.server_time.timestamp()
        self.host.state.put_note("heard", time.time())
        self._expecting = 0 if answer.credential is not None else max(0, self._expecting - 1)
        if answer.credential is not None:
            write_private(self.host.work.credential, answer.credential.encode() + b"\n")
            log().info("the server gave this agent a new credential")
            self._beat_now.set()  # its first use makes the old one invalid
        if self.runner.policy is None or answer.policy_revision != self.runner.policy.revision:
            await self.fetch_policy()
        return float(min(interval, answer.heartbeat_interval, EXPECTING_SECONDS if self._expecting else interval))

    async def beat_until_credential(self) -> None:
        """Heartbeats of a command, while no agent runs: whoever calls holds the lock. As few as bring a credential."""
        self._expecting = EXPECTED_BEATS
        async with self.server:
            await self.beat()
            while self._expecting:
                await asyncio.sleep(EXPECTING_SECONDS)
                await self.beat()
        self.host.state.close()

    def _next_beat(self) -> int:
        """Its number. It must never go back, so where it cannot be written down, it stays. Lets go of old rows, too."""
        state = self.host.state
        sequence = int(state.note("heartbeat") or 0)
        try:
            state.put_note("heartbeat", sequence + 1)
            state.trim()
        except StateUnwritable as error:
            self._unwritable = str(error)
            return max(sequence, 1)
        self._unwritable = ""
        return sequence + 1

    def _heartbeat(self, sequence: int) -> HeartbeatIn:
        now, policy = time.time(), self.runner.policy
        return HeartbeatIn(
            time=datetime.now(UTC),
            sequence=sequence,
            health=health(
                self.config,
                self.host.work,
                skew=self._skew,
                spooled=self.host.state.spooled(),
                revision=0 if policy is None else policy.revision,
                warnings=[self._unwritable, self.host.metrics.warning, self.sender.warning],
            ),
            running=self.runner.running[:256],
            metrics_port=self.host.metrics.port,
            next_runs={
                job: datetime.fromtimestamp(moment, UTC) for job, moment in self.runner.schedule.next_times(now).items()
            },
        )

    def expect_credential(self) -> None:
        """A heartbeat now is to bring a new credential; if not that one, one of the next."""
        self._expecting = EXPECTED_BEATS
        self._beat_now.set()

    # ---- the policy

    async def fetch_policy(self) -> None:
        """Work by the server's policy from now on, and keep it for when the server is away."""
        async with self._fetching:
            known = self.runner.policy
            policy = await self.server.policy(None if known is None else known.revision)
            if policy is not None:
                self.host.state.put_note("policy", policy.model_dump(mode="json"))
                self.runner.set_policy(policy)
                log().info("there is a new policy", revision=policy.revision, jobs=len(policy.jobs))

    def _remembered_policy(self) -> None:
        noted = self.host.state.note("policy")
        try:
            policy = None if noted is None else Policy.model_validate(noted)
        except ValidationError:
            log().warning("the policy that was kept is of another version; the schedule waits for the server")
            return
        if policy is not None and policy.agent_uuid == self.config.agent_uuid:
            self.runner.set_policy(policy)


async def run(config: AgentConfig) -> None:
    """The agent from beginning to end. Raises LoxError."""
    trouble = logs.set_up(config.log_level, config.log_dir)
    if trouble:
        log().warning(trouble)
    try:
        await Daemon(config).run()
    except* LoxError as group:
        raise _first(group) from None


def _first(group: BaseExceptionGroup[LoxError]) -> LoxError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, LoxError)
    return error
