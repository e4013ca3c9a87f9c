"""A server that an agent can work with: real TLS, real HTTP, the models of the wire, and nothing else of a server.

It runs in a thread; a test reads what agents told, hands out commands, and takes the server away for a while.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import json
import ssl
import threading
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from model.wire.agents import HeartbeatIn, HeartbeatOut, Registered, RegisterIn, Rotation
from model.wire.commands import Commands
from model.wire.policy import Policy
from model.wire.runs import EventsIn, EventsOut
from tests.ports import free_port

TOKEN = "lox_agt_0123456789abcdef"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test server")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )
    path, key_path = folder / "ca.pem", folder / "key.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, none))
    return path, key_path


class SmallServer:
    """At `url` while `start`ed. Attributes hold what agents told; they survive `stop` and `start`."""

    def __init__(self, folder: Path, agent: UUID) -> None:
        self.agent = agent
        self.ca, self._key = certificate(folder)
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.registrations: list[tuple[str, RegisterIn]] = []
        self.credentials = [f"lox_cred_{uuid4().hex}"]
        self.heartbeats: list[HeartbeatIn] = []
        self.events: dict[UUID, dict[int, Any]] = {}
        self.commands: list[dict[str, Any]] = []
        self.exchanges: dict[UUID, tuple[str, bytes]] = {}
        self.jobs: list[dict[str, Any]] = []
        self.repositories: list[dict[str, Any]] = []
        self.paused, self.revision = False, 1
        self.fails_at: set[UUID] = set()  # runs whose events it cannot take
        self.drop_answers = 0  # of registrations: the connection is cut instead
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken: asyncio.Event | None = None

    # ---- what tests say

    def start(self) -> None:
        """Listen, always at the same port."""
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        """Be away."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)
            self._loop = None

    def command(self, **body: Any) -> None:
        """One more command for the agent."""
        now = dt.datetime.now(dt.UTC)
        one = {"sequence": len(self.commands) + 1, "id": str(uuid4()), "body": body}
        one |= {"created_at": now.isoformat(), "expires_at": (now + dt.timedelta(hours=1)).isoformat()}
        self.commands.append(one)
        if self._loop is not None and self._woken is not None:
            self._loop.call_soon_threadsafe(self._woken.set)

    def told(self, run: UUID, kind: str) -> list[Any]:
        """Events of one kind of a run, in order."""
        return [event for _, event in sorted(self.events.get(run, {}).items()) if event.event == kind]

    def policy(self) -> dict[str, Any]:
        """What agents are to work by."""
        return {"revision": self.revision, "agent_uuid": str(self.agent), "name": "host", "heartbeat_interval": 60,
                "paused": self.paused, "bandwidth_limit_mbps": None, "jobs": self.jobs,
                "repositories": self.repositories}  # fmt: skip

    # ---- what agents see

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stop, self._woken = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/api/v1/agent/register", self._register)
        app.router.add_post("/api/v1/agent/heartbeat", self._heartbeat)
        app.router.add_post("/api/v1/agent/rotate-token", self._rotate)
        app.router.add_get("/api/v1/agent/policy", self._policy)
        app.router.add_get("/api/v1/agent/commands", self._commands)
        app.router.add_post("/api/v1/agent/runs/{run}/events", self._events)
        app.router.add_post("/api/v1/agent/exchanges/{exchange}", self._exchange)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.ca, self._key)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=context, reuse_address=True).start()
        ready.set()
        await self._stop.wait()
        self._woken.set()
        await runner.cleanup()

    async def _register(self, request: web.Request) -> web.Response:
        body = RegisterIn.model_validate_json(await request.read())
        self.registrations.append((request.headers["Idempotency-Key"], body))
        if body.registration_token != TOKEN or len({key for key, _ in self.registrations}) > 1:
            return web.json_response({"title": "no such token", "status": 401}, status=401)
        if self.drop_answers:
            self.drop_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        answer = Registered(
            credential=self.credentials[-1], heartbeat_interval=60, server_time=dt.datetime.now(dt.UTC), tenant="t"
        )
        return web.Response(text=answer.model_dump_json(), status=201, content_type="application/json")

    def _known(self, request: web.Request) -> None:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in self.credentials:
            raise web.HTTPUnauthorized(text=json.dumps({"title": "unknown credential"}))
        if given == self.credentials[-1]:
            del self.credentials[:-1]

    async def _heartbeat(self, request: web.Request) -> web.Response:
        self._known(request)
        self.heartbeats.append(HeartbeatIn.model_validate_json(await request.read()))
        new = self.credentials[-1] if len(self.credentials) > 1 else None
        answer = HeartbeatOut(
            server_time=dt.datetime.now(dt.UTC), policy_revision=self.revision, heartbeat_interval=60, credential=new
        )
        return web.Response(text=answer.model_dump_json(), content_type="application/json")

    async def _rotate(self, request: web.Request) -> web.Response:
        self._known(request)
        self.credentials.append(f"lox_cred_{uuid4().hex}")
        grace = dt.datetime.now(dt.UTC) + dt.timedelta(days=7)
        answer = Rotation(uuid=self.agent, rotation_pending=True, grace_until=grace)
        return web.Response(text=answer.model_dump_json(), status=202, content_type="application/json")

    async def _policy(self, request: web.Request) -> web.Response:
        self._known(request)
        if request.headers.get("If-None-Match") == f'"{self.revision}"':
            return web.Response(status=304)
        Policy.model_validate(self.policy())
        return web.json_response(self.policy())

    async def _commands(self, request: web.Request) -> web.Response:
        self._known(request)
        assert self._woken is not None
        after = int(request.query["after"])
        if not self.commands[after:]:
            self._woken.clear()
            try:
                async with asyncio.timeout(float(request.query["wait"])):
                    await self._woken.wait()
            except TimeoutError:
                pass
        found = Commands.model_validate({"commands": self.commands[after:]})
        return web.Response(text=found.model_dump_json(), content_type="application/json")

    async def _events(self, request: web.Request) -> web.Response:
        self._known(request)
        body = EventsIn.model_validate_json(await request.read())
        if UUID(request.match_info["run"]) in self.fails_at:
            return web.json_response({"title": "a mistake of the server", "status": 500}, status=500)
        known = self.events.setdefault(UUID(request.match_info["run"]), {})
        for event in body.events:
            known.setdefault(event.sequence, event)
        return web.Response(text=EventsOut(taken=max(known)).model_dump_json(), content_type="application/json")

    async def _exchange(self, request: web.Request) -> web.Response:
        self._known(request)
        data = await request.read()
        self.exchanges[UUID(request.match_info["exchange"])] = (request.content_type, data)
        return web.Response(status=204)
