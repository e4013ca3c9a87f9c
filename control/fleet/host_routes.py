"""Routes for agents: /api/v1/agent/..."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.call import Call
from control.api.problems import Problem, Unauthenticated
from control.api.routes import AGENTS, NOBODY, Routes
from control.audit import record
from control.auth.roles import AGENT_SCOPES, Principal
from control.auth.secrets import Secret
from control.auth.tables import TenantRow
from control.db.base import now
from control.fleet.agents import agent_row, rotating
from control.fleet.commands import Wakes, commands_after, taken
from control.fleet.credentials import Stolen, ask_rotation, known_agent, next_credential
from control.fleet.enrolment import Enrolled, enrol, registration_of
from control.fleet.exchanges import ExchangeGone, Head, pieces_of, sending
from control.fleet.heartbeats import Heartbeats
from control.fleet.known import KnownAgent, KnownAgents
from control.fleet.tables import AgentRow
from control.jobs.policy import policy_of
from control.runs.events import take_events
from control.runs.live import Live
from control.services import Services
from model.wire.agents import HEARTBEAT_SECONDS, HeartbeatIn, HeartbeatOut, Registered, RegisterIn, Rotation
from model.wire.commands import WAIT_SECONDS_MAX, Commands
from model.wire.policy import Policy
from model.wire.runs import EventsIn, EventsOut

routes = Routes()
KEY_MAX = 255
UUID_EXAMPLE = "550e8400-e29b-41d4-a716-446655440000"
TIME_EXAMPLE = "2026-01-31T02:00:00Z"
EXCHANGE_TYPES = frozenset(
    {
        "application/json", "application/problem+json", "application/x-ndjson", "application/x-tar", "application/zip",
        "application/octet-stream",
    }
)  # fmt: skip


async def of_credential(services: Services, secret: Secret) -> Principal | None:
    """The agent that carries a credential. What was noted about it (first use, theft) is kept, valid or not."""
    refusal: Unauthenticated | None = None
    lately = services.part(KnownAgents)
    known = lately.get(secret)
    if known is not None:
        return _principal(known)
    async with services.sessions() as session:
        known = await known_agent(session, secret, note=False)
    if known is None:
        async with services.sessions.begin() as session:
            try:
                known = await known_agent(session, secret, note=True)
            except Unauthenticated as error:
                refusal = error
    if isinstance(refusal, Stolen):
        lately.forget(refusal.agent)
    if known is None:
        raise refusal or Unauthenticated()
    lately.put(secret, known)
    return _principal(known)


def _principal(known: KnownAgent) -> Principal:
    return Principal("agent", known.uuid, str(known.uuid), known.tenant, AGENT_SCOPES)


@routes.add(
    "POST", "/api/v1/agent/register", principals=NOBODY, body=RegisterIn, returns={200: Registered}, secret=True,
    limit="free",
    example={
        "agent_uuid": UUID_EXAMPLE, "registration_token": "lox_agt_" + 32 * "0" + "_" + 51 * "0",
        "hostname": "web-1.example.com", "os": "linux", "version": "1.0.0", "machine_id": "0123456789abcdef",
    },
)  # fmt: skip
async def register(call: Call) -> Registered:
    """Exchange a registration token for the agent's own credential."""
    body, key = call.body(RegisterIn), call.request.headers.get("Idempotency-Key", "")
    if len(key) > KEY_MAX:
        raise Problem(f"Idempotency-Key has at most {KEY_MAX} characters", status=422, kind="invalid")
    try:
        enrolled = await _enrolled(call, body, key)
    except Unauthenticated:  # a roll-out behind one address is not held up: only who is wrong is counted
        call.services.limits.take("failures", call.caller)
        raise
    call.services.part(KnownAgents).forget(enrolled.agent)
    async with call.reading() as session:
        tenant = await session.get(TenantRow, enrolled.tenant)
    return Registered(
        credential=enrolled.credential,
        heartbeat_interval=HEARTBEAT_SECONDS,
        server_time=now(),
        tenant=tenant.name if tenant else "",
    )


@routes.add(
    "POST", "/api/v1/agent/heartbeat", principals=AGENTS, body=HeartbeatIn, returns={200: HeartbeatOut}, secret=True,
    limit="data", example={"time": TIME_EXAMPLE, "sequence": 1, "health": {"version": "1.0.0"}},
)  # fmt: skip
async def heartbeat(call: Call) -> HeartbeatOut:
    """Tell that the agent lives, and how it is."""
    beats, agent = call.services.part(Heartbeats), await _known(call)
    credential = None
    if agent.rotation:
        async with call.services.sessions.begin() as session:
            credential = await next_credential(session, agent)
    if beats.beat(agent.uuid, agent.tenant, call.body(HeartbeatIn)):
        await beats.flush()  # that an agent came is to be seen at once
    return HeartbeatOut(
        server_time=now(),
        policy_revision=agent.policy_revision,
        heartbeat_interval=HEARTBEAT_SECONDS,
        credential=credential,
    )


async def _enrolled(call: Call, body: RegisterIn, key: str) -> Enrolled:
    """Raises Unauthenticated, after the alert about it was written."""
    async with call.reading() as session:
        await registration_of(session, body)
    async with call.services.sessions.begin() as session:
        try:
            enrolled = await enrol(session, body, key)
        except Unauthenticated as error:
            refusal = error
        else:
            who = Principal("agent", enrolled.agent, body.hostname, enrolled.tenant, AGENT_SCOPES)
            await record(session, enrolled.tenant, who, "agent.enrol", enrolled.agent, call.remote)
            return enrolled
    raise refusal


async def _known(call: Call) -> KnownAgent:
    """What was found when this request was let in; looked up again if it changed in this very moment."""
    try:
        return call.services.part(KnownAgents).of(call.principal.uuid)
    except KeyError:
        async with call.reading() as session:
            row = await _agent(session, call.principal.uuid)
            return KnownAgent(row.uuid, row.tenant_id, row.policy_revision, await rotating(session, row.uuid))


async def _agent(session: AsyncSession, uuid: UUID) -> AgentRow:
    row = await session.get(AgentRow, uuid)
    if row is None:
        raise Unauthenticated()
    return row


@routes.add(
    "POST", "/api/v1/agent/rotate-token", principals=AGENTS, returns={202: Rotation}, audit="agent.rotate-token",
)  # fmt: skip
async def rotate(call: Call) -> Rotation:
    """Have the agent that asks take a new credential; the old one works until the new one is in use."""
    uuid = call.principal.uuid
    async with call.transaction() as session:
        grace = await ask_rotation(session, await agent_row(session, call.tenant, uuid, lock=True))
    call.services.part(Wakes).wake(uuid)
    return Rotation(uuid=uuid, rotation_pending=True, grace_until=grace)


@routes.add("GET", "/api/v1/agent/policy", principals=AGENTS, returns={200: Policy, 304: None}, limit="data")
async def policy(call: Call) -> web.StreamResponse:
    """What the agent is to work by. Its ETag is the revision."""
    async with call.reading() as session:
        row = await _agent(session, call.principal.uuid)
        tag = f'"{row.policy_revision}"'
        if call.request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        found = await policy_of(call.services, session, row)
    return web.Response(text=found.model_dump_json(), content_type="application/json", headers={"ETag": tag})


class CommandsQuery(BaseModel):
    """``?after=&wait=``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    after: int = Field(0, ge=0, le=(1 << 31) - 1)
    wait: float = Field(0, ge=0, le=WAIT_SECONDS_MAX, description="seconds")


@routes.add(
    "GET", "/api/v1/agent/commands", principals=AGENTS, query=CommandsQuery, returns={200: Commands}, limit="data"
)
async def commands(call: Call) -> Commands:
    """Wait for commands after those that the agent has taken over already."""
    query, agent, wakes = call.query(CommandsQuery), call.principal.uuid, call.services.part(Wakes)
    event = wakes.watch(agent)
    try:
        found = await _waiting(call, agent, query.after)
        if found.commands or not query.wait or call.services.stopping.is_set():
            return found
        if not await wakes.wait(agent, event, query.wait):
            return found
        return await _waiting(call, agent, query.after)
    finally:
        wakes.leave(agent, event)


async def _waiting(call: Call, agent: UUID, after: int) -> Commands:
    wakes = call.services.part(Wakes)
    if after and wakes.has_taken(agent) != after:
        async with call.services.sessions.begin() as session:
            await taken(session, agent, after)
        wakes.note_taken(agent, after)
    async with call.reading() as session:
        return await commands_after(session, agent, after)


@routes.add(
    "POST", "/api/v1/agent/runs/{run_uuid}/events", principals=AGENTS, body=EventsIn, returns={200: EventsOut},
    limit="data", body_bytes=8 << 20,
    example={"events": [{"event": "started", "sequence": 1, "time": TIME_EXAMPLE, "kind": "backup"}]},
)  # fmt: skip
async def events(call: Call) -> EventsOut:
    """Report what happened in a run."""
    run, live, body = call.uuid("run_uuid"), call.services.part(Live), call.body(EventsIn)
    answer = live.only_progress(run, call.principal.uuid, body)
    if answer is None:
        async with call.services.sessions.begin() as session:
            answer = await take_events(session, call.principal.uuid, call.tenant, run, body)
        live.taken(run, call.principal.uuid, answer)
    live.changed(run)
    return answer


@routes.add(
    "POST", "/api/v1/agent/exchanges/{exchange_uuid}", principals=AGENTS, streaming=True, returns={204: None},
    limit="data",
)  # fmt: skip
async def exchange(call: Call) -> None:
    """Send the stream that somebody waits for."""
    kind = call.request.content_type
    if kind not in EXCHANGE_TYPES:
        raise Problem(f"{kind} is none of the types of an exchange", status=415, kind="unsupported-media-type")
    folder = call.services.settings.data_dir / "exchanges"
    head = Head(call.principal.uuid, kind)
    try:
        async with sending(folder, call.uuid("exchange_uuid"), head) as sender:
            async for piece in pieces_of(call.request.content):
                await sender.send(piece)
            await sender.end()
    except ExchangeGone:
        raise Problem("nobody waits for this any more", status=410, kind="gone") from None
