"""Nobody comes to more rights than they were given, and what is checked still holds when it is done."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.control.servers import PASSWORD, Client, RunningServer, Tenant, log_in, make_tenant

MORE = "another good password"


def _user(tenant: Tenant, name: str, role: str) -> str:
    body = {"email": f"{name}@{tenant.name.lower()}.example.org", "role": role, "password": PASSWORD}
    return str(tenant.admin.ok("POST", "/api/v1/users", body)["uuid"])


def test_who_may_only_manage_people_makes_no_administrator(tenant: Tenant) -> None:
    weak = tenant.token("users:write", "agents:read")
    body = {"email": "climber@example.org", "role": "admin", "password": PASSWORD}
    assert weak("POST", "/api/v1/users", body).status == 403
    viewer = _user(tenant, "viewer", "viewer")
    assert weak("PATCH", f"/api/v1/users/{viewer}", {"role": "admin"}).status == 403


def test_nor_takes_one_over_by_a_new_password(tenant: Tenant) -> None:
    admin = _user(tenant, "second", "admin")
    weak = tenant.token("users:write", "agents:read")
    assert weak("PATCH", f"/api/v1/users/{admin}", {"password": MORE}).status == 403
    assert weak("PATCH", f"/api/v1/users/{admin}", {"role": "viewer"}).status == 403
    assert weak("DELETE", f"/api/v1/users/{admin}").status == 403
    assert log_in(tenant.admin.server, f"second@{tenant.name.lower()}.example.org").ok("GET", "/api/v1/auth/me")["name"]


def test_administrators_who_remove_each_other_at_once_leave_one(server: RunningServer) -> None:
    tenant = make_tenant(server, "Duel")
    people = [_user(tenant, f"duel{number}", "admin") for number in range(6)]
    people += [user["uuid"] for user in tenant.admin.ok("GET", "/api/v1/users")["items"] if user["uuid"] not in people]
    with ThreadPoolExecutor(len(people)) as pool:
        calls = [pool.submit(tenant.api, "PATCH", f"/api/v1/users/{uuid}", {"role": "viewer"}) for uuid in people]
        statuses = sorted(call.result().status for call in calls)
    assert statuses == [200] * (len(people) - 1) + [409]
    roles = [user["role"] for user in tenant.api.ok("GET", "/api/v1/users")["items"]]
    assert roles.count("admin") == 1


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_no_calendar_has_is_refused(tenant: Tenant, moment: str) -> None:
    body = {"name": f"at the edge {moment}", "scopes": ["runs:read"], "expires_at": moment}
    answer = tenant.api("POST", "/api/v1/api-tokens", body)
    assert (answer.status, answer.body["errors"][0]["pointer"]) == (422, "#/expires_at")


def test_what_no_text_can_hold_is_refused(tenant: Tenant) -> None:
    assert tenant.api("GET", "/api/v1/audit?action=a%00b").status == 422
    answer = Client(tenant.admin.server, tenant.api.token)("POST", "/api/v1/users", {"email": "a\0@b"})
    assert answer.status == 422
