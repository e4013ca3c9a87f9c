"""Who may do what with whose objects, for every route that the server has: a new route is in here by itself.

A route whose path has a parameter that `World` does not know fails; so does one that asks nobody who they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from control.api.routes import NOBODY, Route, parameters
from control.app import all_routes
from control.auth.roles import ROLES, SCOPES, TENANT_ROLES
from tests.control.servers import PASSWORD, Client, RunningServer, Tenant, log_in
from tests.control.world import World, make_world

ROUTES = sorted(all_routes(), key=lambda route: (route.path, route.method))
GUARDED = [route for route in ROUTES if route.principals != NOBODY]
OPEN = {
    ("GET", "/healthz"), ("GET", "/readyz"), ("GET", "/api/v1/openapi.json"), ("POST", "/api/v1/auth/login"),
    ("POST", "/api/v1/agent/register"), ("GET", "/agent"), ("GET", "/agent.ps1"), ("GET", "/files/{name}"),
    ("GET", "/ca.crt"),
}  # fmt: skip
AT_ONCE = 8
NOT_THERE = (404, 410)
Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture(scope="module")
def world(tenant: Tenant) -> World:
    return make_world(tenant)


@pytest.fixture(scope="module")
def foreign(other_tenant: Tenant) -> World:
    return make_world(other_tenant)


def path_of(route: Route, ids: dict[str, str]) -> str:
    """The path with its parameters filled in."""
    path = route.path
    for name in parameters(route.path):
        assert name in ids, f"{route.method} {route.path}: tests/control/world.py makes no {name}"
        start = path.index("{" + name)
        path = path[:start] + ids[name] + path[path.index("}", start) + 1 :]
    return path


def name_of(route: Route) -> str:
    return f"{route.method} {route.path}"


def query_of(route: Route) -> str:
    """What has to be in the query."""
    needed = route.query.model_json_schema().get("required", []) if route.query else []
    values = {"path": "/", "size": "1", "blake3": 64 * "0"}
    return "?" + "&".join(f"{name}={values[name]}" for name in needed) if needed else ""


def asked(server: RunningServer, work: Callable[[Ask], Iterable[Awaitable[Any]]]) -> None:
    """Runs what `work` gives, some at a time, over few connections. Fails with all that failed."""

    async def everything() -> list[BaseException]:
        room = asyncio.Semaphore(AT_ONCE)
        connector = aiohttp.TCPConnector(ssl=server.context(), limit=AT_ONCE)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(server.url, connector=connector, cookie_jar=jar) as session:

            async def ask(method: str, path: str, client: Client, body: object = None) -> tuple[int, Any]:
                headers = {"Authorization": f"Bearer {client.token}"} if client.token else {}
                if client.cookie:
                    headers = {"Cookie": f"__Host-lox_session={client.cookie}", "Lox-Csrf": "1"}
                async with room, session.request(
                    method, path, json=body, headers={**headers, **client.headers}
                ) as answer:  # fmt: skip
                    text = await answer.text()
                    return answer.status, await answer.json(
                        content_type=None
                    ) if "json" in answer.content_type else text

            done = await asyncio.gather(*work(ask), return_exceptions=True)
        return [one for one in done if isinstance(one, BaseException)]

    failures = asyncio.run(everything())
    assert not failures, "\n".join(str(failure) for failure in failures)


async def expect(ask: Ask, route: Route, client: Client, ids: dict[str, str], wanted: Iterable[int], why: str) -> Any:
    path, body = path_of(route, ids) + query_of(route), None if route.body is None else dict(route.example or {})
    status, answer = await ask(route.method, path, client, body)
    assert status in wanted, f"{name_of(route)} as {why}: {status} {answer}"
    return answer


def test_only_these_ask_nobody_who_they_are() -> None:
    assert {(route.method, route.path) for route in ROUTES if route.principals == NOBODY} == OPEN
    unscoped = {name_of(route) for route in GUARDED if route.scope is None and "agent" not in route.principals}
    assert unscoped == {"GET /api/v1/auth/me", "POST /api/v1/auth/logout", "POST /api/v1/auth/password"}


def test_what_changes_something_is_in_the_audit_log() -> None:
    silent = {"POST /api/v1/auth/logout", "POST /api/v1/auth/password"}  # the second writes it by itself
    people = [route for route in GUARDED if route.method != "GET" and "agent" not in route.principals]
    assert {name_of(route) for route in people if route.audit is None} == silent


def test_without_a_token_nothing(server: RunningServer, world: World) -> None:
    ids = dict(world.ids)
    bad = [Client(server), Client(server, "lox_api_" + 32 * "0" + "_" + 51 * "0"), Client(server, "nonsense")]
    asked(server, lambda ask: [expect(ask, route, who, ids, [401], "nobody") for route in GUARDED for who in bad])


def test_every_scope_is_needed_where_it_is_said(server: RunningServer, world: World) -> None:
    """A token with all scopes but one is refused by all routes that need this one, and by no other for that reason."""
    scopes = sorted({route.scope for route in GUARDED if route.scope} - {"tenants:write"})
    tokens = {scope: world.tenant.token(*(ROLES["admin"] - {scope})) for scope in scopes}

    async def refused(ask: Ask, route: Route) -> None:
        answer = await expect(ask, route, tokens[str(route.scope)], dict(world.ids), [403], "one without the scope")
        assert route.method == "HEAD" or answer["detail"] == f"this needs the scope {route.scope}"

    asked(server, lambda ask: [refused(ask, route) for route in GUARDED if route.scope in tokens])
    asked(
        server,
        lambda ask: [
            expect(ask, route, world.tenant.api, dict(world.ids), [403], "an admin of one tenant")
            for route in GUARDED
            if route.scope == "tenants:write"
        ],
    )


@pytest.mark.parametrize("role", TENANT_ROLES)
def test_a_role_may_what_its_scopes_say(server: RunningServer, world: World, role: str) -> None:
    email = f"{role}-{uuid4().hex[:8]}@example.org"
    world.tenant.api.ok("POST", "/api/v1/users", {"email": email, "role": role, "password": PASSWORD})
    person = log_in(server, email)
    nowhere = dict.fromkeys(world.ids, str(uuid4()))
    routes = [route for route in GUARDED if route.scope and not (route.scope in ROLES[role] and _creates(route))]

    async def right(ask: Ask, route: Route) -> None:
        allowed = route.scope in ROLES[role]
        wanted = [200, 204, 404, 409, 410, 412, 422] if allowed else [403]
        await expect(ask, route, person, nowhere, wanted, f"a {role}")

    asked(server, lambda ask: [right(ask, route) for route in routes])


def _creates(route: Route) -> bool:
    return route.method == "POST" and not parameters(route.path)


def test_what_belongs_to_another_tenant_is_not_there(server: RunningServer, world: World, foreign: World) -> None:
    """With all scopes of one's own tenant: the same answer as for what nobody has. And nothing of it changed."""
    before = _everything(foreign)
    nowhere = dict.fromkeys(foreign.ids, str(uuid4())) | {"name": foreign.ids["name"]}
    routes = [route for route in GUARDED if parameters(route.path) and route.scope != "tenants:write"]

    async def missing(ask: Ask, route: Route) -> None:
        who = Client(server, world.host.credential) if "agent" in route.principals else world.tenant.api
        one = await expect(ask, route, who, dict(foreign.ids), NOT_THERE, "another tenant")
        other = await expect(ask, route, who, nowhere, NOT_THERE, "another tenant, of what nobody has")
        if isinstance(one, dict):
            assert {**one, "instance": ""} == {**other, "instance": ""}, name_of(route)

    # An agent names its own runs: one that nobody has is begun, and one of another tenant is refused.
    asked(server, lambda ask: [missing(ask, route) for route in routes if route.path != _EVENTS])
    begun = next(route for route in GUARDED if route.path == _EVENTS)
    agent = Client(server, world.host.credential)
    asked(server, lambda ask: [expect(ask, begun, agent, dict(foreign.ids), NOT_THERE, "an agent of another tenant")])
    assert _everything(foreign) == before


_EVENTS = "/api/v1/agent/runs/{run_uuid}/events"


def _everything(world: World) -> dict[str, Any]:
    """All that can be read of a tenant, but for what time changes."""
    found = {}
    for route in GUARDED:
        if route.method == "GET" and "/api/v1/a" not in route.path and route.query is None and _is_plain(route):
            found[route.path] = world.tenant.api.ok(route.method, path_of(route, dict(world.ids)))
    assert len(found) >= 5
    return found


def _is_plain(route: Route) -> bool:
    return "user" in route.principals and any(route.returns.values()) and "{name" not in route.path


def test_lists_show_nothing_of_another_tenant(server: RunningServer, world: World, foreign: World) -> None:
    secret = [value for name, value in foreign.ids.items() if name not in ("exchange_uuid", "name")]
    lists = [route for route in GUARDED if route.method == "GET" and not parameters(route.path)]

    async def clean(ask: Ask, route: Route) -> None:
        who = Client(server, world.host.credential) if "user" not in route.principals else world.tenant.api
        answer = str(await expect(ask, route, who, {}, [200], "another tenant"))
        assert not [uuid for uuid in secret if uuid in answer], name_of(route)

    asked(server, lambda ask: [clean(ask, route) for route in lists if route.scope != "tenants:write"])


def test_bodies_cannot_name_objects_of_another_tenant(server: RunningServer, world: World, foreign: World) -> None:
    """Every field of every body that names an object: one of another tenant is as unknown as one that nobody has."""
    cases = [
        (route, field)
        for route in GUARDED
        if route.body is not None and "user" in route.principals
        for field in route.body.model_fields
        if field.endswith("_uuid")
    ]
    assert {field for _, field in cases} >= {"agent_uuid", "repository_uuid", "maintenance_agent_uuid"}

    async def refused(ask: Ask, route: Route, field: str) -> None:
        answers = []
        for uuid in (foreign.ids[field], str(uuid4())):
            body = {**dict(route.example or {}), "agent_uuid": world.ids["agent_uuid"], field: uuid}
            body = {name: value for name, value in body.items() if name in route.body.model_fields}  # type: ignore[union-attr]
            answers.append(await ask(route.method, path_of(route, dict(world.ids)), world.tenant.api, body))
        (status, one), (_, other) = answers
        assert status in (404, 422), f"{name_of(route)} took {field} of another tenant: {status} {one}"
        assert {**one, "instance": ""} == {**other, "instance": ""}, name_of(route)

    asked(server, lambda ask: [refused(ask, route, field) for route, field in cases])


def test_agents_and_people_do_not_change_places(server: RunningServer, world: World) -> None:
    agent, ids = Client(server, world.host.credential), dict(world.ids)
    people = [route for route in GUARDED if "agent" not in route.principals]
    agents = [route for route in GUARDED if "user" not in route.principals]
    asked(server, lambda ask: [expect(ask, route, agent, ids, [403], "an agent") for route in people])
    asked(server, lambda ask: [expect(ask, route, world.tenant.api, ids, [403], "a token") for route in agents])


def test_nobody_acts_within_another_tenant(server: RunningServer, world: World, foreign: World) -> None:
    intruder = Client(server, world.tenant.api.token, headers={"Lox-Tenant": str(foreign.tenant.uuid)})
    routes = [route for route in GUARDED if route.tenant and "user" in route.principals]
    ids = dict(foreign.ids)
    asked(server, lambda ask: [expect(ask, route, intruder, ids, [404], "an intruder") for route in routes])


def test_every_scope_has_a_role_and_a_meaning() -> None:
    used = {route.scope for route in GUARDED if route.scope}
    assert used <= set(SCOPES) and set(SCOPES) == set().union(*ROLES.values())
