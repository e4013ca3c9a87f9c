"""People, tokens, sessions: who gets in, and what they may."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from control.auth.passwords import Passwords
from tests.control.servers import PASSWORD, Client, RunningServer, Tenant, log_in, make_tenant, running


def test_a_person_logs_in_and_out(server: RunningServer, tenant: Tenant) -> None:
    person = log_in(server, tenant.email)
    assert person.ok("GET", "/api/v1/auth/me")["name"] == tenant.email
    person.ok("POST", "/api/v1/auth/logout")
    assert person("GET", "/api/v1/auth/me").status == 401


def test_a_wrong_password_and_an_unknown_person_look_the_same(server: RunningServer, tenant: Tenant) -> None:
    answers = [
        Client(server)("POST", "/api/v1/auth/login", {"email": email, "password": "not this one, no"})
        for email in (tenant.email, "nobody@example.org")
    ]
    assert [answer.status for answer in answers] == [401, 401]
    assert answers[0].body["detail"] == answers[1].body["detail"] == "wrong address or password"


def test_a_cookie_alone_changes_nothing(tenant: Tenant) -> None:
    """What another site makes a browser send has the cookie, not the header."""
    answer = tenant.admin("POST", "/api/v1/api-tokens", {"name": "x", "scopes": ["runs:read"]}, Lox_Csrf="")
    assert (answer.status, answer.body["type"]) == (403, "urn:lox:problem:forbidden")


def test_a_token_may_what_its_scopes_say(tenant: Tenant) -> None:
    reader = tenant.token("users:write")
    assert reader("GET", "/api/v1/users").status == 200
    answer = reader("GET", "/api/v1/api-tokens")
    assert (answer.status, answer.body["detail"]) == (403, "this needs the scope tokens:write")


def test_a_token_cannot_make_a_stronger_one(tenant: Tenant) -> None:
    weak = tenant.token("tokens:write")
    answer = weak("POST", "/api/v1/api-tokens", {"name": "strong", "scopes": ["users:write"]})
    assert (answer.status, answer.body["detail"]) == (403, "you do not hold users:write yourself")


def test_a_revoked_token_is_worth_nothing(tenant: Tenant) -> None:
    made = tenant.admin.ok("POST", "/api/v1/api-tokens", {"name": "short-lived", "scopes": ["runs:read"]})
    bearer = Client(tenant.admin.server, made["token"])
    assert bearer("GET", "/api/v1/auth/me").status == 200
    tenant.admin.ok("DELETE", f"/api/v1/api-tokens/{made['uuid']}")
    assert bearer("GET", "/api/v1/auth/me").status == 401


def test_a_locked_out_person_is_out_at_once(server: RunningServer, tenant: Tenant) -> None:
    body = {"email": "leaver@example.org", "role": "operator", "password": PASSWORD}
    made = tenant.admin.ok("POST", "/api/v1/users", body)
    person = log_in(server, "leaver@example.org")
    tenant.admin.ok("PATCH", f"/api/v1/users/{made['uuid']}", {"disabled": True})
    assert person("GET", "/api/v1/auth/me").status == 401
    assert Client(server)("POST", "/api/v1/auth/login", {"email": body["email"], "password": PASSWORD}).status == 401


def test_the_last_administrator_stays(tenant: Tenant) -> None:
    admin = next(user for user in tenant.admin.ok("GET", "/api/v1/users")["items"] if user["role"] == "admin")
    for answer in (
        tenant.api("PATCH", f"/api/v1/users/{admin['uuid']}", {"role": "viewer"}),
        tenant.api("DELETE", f"/api/v1/users/{admin['uuid']}"),
    ):
        assert (answer.status, answer.body["detail"]) == (409, "this is the last administrator of the tenant")


def test_secrets_are_nowhere_in_data_or_log(server: RunningServer, tenant: Tenant) -> None:
    made = tenant.admin.ok("POST", "/api/v1/api-tokens", {"name": "seen once", "scopes": ["runs:read"]})
    secret = made["token"].encode()
    Client(server, made["token"])("GET", "/api/v1/auth/me")
    for file in [path for path in server.data_dir.rglob("*") if path.is_file()]:
        assert secret not in file.read_bytes() and PASSWORD.encode() not in file.read_bytes(), file


@pytest.mark.slow
def test_a_server_that_was_killed_comes_back_with_what_it_had(tmp_path: Path) -> None:
    with running(tmp_path / "server") as server:
        tenant = make_tenant(server, "Gamma")
        tenant.admin.ok("POST", "/api/v1/api-tokens", {"name": "kept", "scopes": ["runs:read"]})
        server.stop(signal.SIGKILL)
        server.start()
        assert "kept" in [token["name"] for token in tenant.admin.ok("GET", "/api/v1/api-tokens")["items"]]
        assert server.stop() == 0


def test_people_who_log_in_at_the_same_time_are_all_answered(tenant: Tenant) -> None:
    """Two derivations with several lanes at once waited for each other for ever, and with them all who came after."""
    server = tenant.admin.server
    with ThreadPoolExecutor(6) as pool:
        wrong = [
            pool.submit(Client(server), "POST", "/api/v1/auth/login", {"email": tenant.email, "password": "x"})
            for _ in range(4)
        ]
        right = [pool.submit(log_in, server, tenant.email) for _ in range(2)]
        assert [one.result(240).status for one in wrong] == [401] * 4
        assert all(one.result(240).cookie for one in right)


def test_a_password_that_was_kept_with_more_lanes_is_known() -> None:
    kept = Argon2id(salt=b"0123456789abcdef", length=32, iterations=1, lanes=2, memory_cost=64).derive_phc_encoded(
        b"old"
    )
    passwords = Passwords()

    async def all_at_once() -> list[bool]:
        return await asyncio.gather(*(passwords.verify(text, kept) for text in ["old", "new"] * 8))

    assert asyncio.run(all_at_once()) == [True, False] * 8
