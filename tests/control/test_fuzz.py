"""The whole API under generated requests: valid ones, invalid ones, and none that the server fails on."""

from __future__ import annotations

from itertools import count
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis.errors import Unsatisfiable

from control.api.openapi import document
from control.api.routes import Route
from control.app import all_routes
from tests.control.servers import Client, RunningServer, Tenant
from tests.control.world import World, make_world

EXAMPLES = 8  # of each operation, valid, and as many broken
LINE_MAX = 6_000  # longer request lines are refused by the HTTP parser, which knows no routes
SECONDS = 30  # of one request
ASKS_AN_AGENT = ("/files", "/download", "/estimate")  # which is not there, and would be waited for

pytestmark = pytest.mark.slow


def _bearer(route: Route, world: World, root: Client) -> Client:
    if "agent" in route.principals and "user" not in route.principals:
        return Client(root.server, world.host.credential)
    return root if route.scope == "tenants:write" else world.tenant.api


def _headers(client: Client) -> dict[str, str]:
    if client.cookie:
        return {"Cookie": f"__Host-lox_session={client.cookie}", "Lox-Csrf": "1"}
    return {"Authorization": f"Bearer {client.token}"}


def test_no_request_makes_the_server_fail(server: RunningServer, tenant: Tenant) -> None:
    """And what is refused is refused with a problem."""
    schemathesis = pytest.importorskip("schemathesis")
    import requests

    world, session, sent = make_world(tenant), requests.Session(), count()
    routes = {(route.method, _plain(route.path)): route for route in all_routes()}
    schema = schemathesis.openapi.from_dict(document(all_routes(), server.url))
    failures: list[str] = []

    def check(operation: Any, mode: Any) -> None:
        route = routes[operation.method.upper(), operation.path]
        headers, keep = _headers(_bearer(route, world, server.root())), route.method == "DELETE"
        asks = route.path.endswith(ASKS_AN_AGENT)

        @settings(
            max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
            phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(operation.as_strategy(generation_mode=mode))
        def run(case: Any) -> None:
            if not (keep or asks) and next(sent) % 3:
                real = {name: value for name, value in world.ids.items() if name in (case.path_parameters or {})}
                case.path_parameters = {**(case.path_parameters or {}), **real}
            if isinstance((case.query or {}).get("wait"), int | float):
                case.query = {**case.query, "wait": 0}  # a long poll is meant to take long
            given_headers = {**dict(case.headers or {}), **headers}
            given_headers.pop("Lox-Tenant", None)
            case.headers = given_headers
            assume(len(urlencode(case.query or {}, doseq=True)) < LINE_MAX)
            answer = case.call(base_url=server.url, session=session, timeout=SECONDS, verify=str(server.ca))
            text = f"{route.method} {answer.request.url} {str(answer.request.body)[:300]}: {answer.status_code} "
            assert answer.status_code < 500, text + answer.text[:300]
            if answer.status_code >= 400:
                assert "application/problem+json" in str(answer.headers.get("content-type")), text

        try:
            run()
        except Unsatisfiable:  # a request without parameters and body cannot be broken
            assert mode is schemathesis.GenerationMode.NEGATIVE
        except AssertionError as error:
            failures.append(str(error).splitlines()[0])

    done = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in schemathesis.GenerationMode:
            check(operation, mode)
        done += 1
    assert not failures, "\n".join(failures)
    assert done == len(routes) and next(sent) > 4 * done


def _plain(path: str) -> str:
    return path.replace(":.+}", "}")
