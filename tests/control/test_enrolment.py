"""A registration token becomes the credential of one host, once."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta

from tests.control.hosts import Host, enrolled, registration
from tests.control.servers import Client, RunningServer, Tenant


def add(tenant: Tenant, hostname: str = "db-1") -> dict[str, str]:
    return dict(tenant.api.ok("POST", "/api/v1/agents", {"hostname": hostname, "os": "linux"}))


def alerts(tenant: Tenant, agent: str, kind: str) -> list[dict[str, object]]:
    return list(tenant.api.ok("GET", f"/api/v1/alerts?agent={agent}&kind={kind}")["items"])


def test_a_token_is_shown_once_and_lasts_a_day(tenant: Tenant) -> None:
    made = add(tenant)
    assert made["registration_token"].startswith("lox_agt_") and made["registration_token"] in made["install_command"]
    left = datetime.fromisoformat(made["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23, minutes=59) < left <= timedelta(hours=24)
    shown = tenant.api.ok("GET", f"/api/v1/agents/{made['uuid']}")
    assert shown["status"] == "registered" and "registration_token" not in shown


def test_a_host_gets_a_credential_and_is_online(tenant: Tenant) -> None:
    host = enrolled(tenant)
    shown = tenant.api.ok("GET", f"/api/v1/agents/{host.uuid}")
    assert shown["status"] == "online" and shown["version"] == "1.2.3"
    assert host.policy()["jobs"] == []


def test_secrets_are_not_in_the_database(server: RunningServer, tenant: Tenant) -> None:
    host = enrolled(tenant)
    dump = "\n".join(sqlite3.connect(server.data_dir / "server.sqlite3").iterdump())
    for secret in (host.credential, host.agent["registration_token"]):
        assert secret not in dump and secret.rsplit("_", 1)[1] not in dump


def test_a_token_works_once_and_its_reuse_is_told(tenant: Tenant, server: RunningServer) -> None:
    made = add(tenant)
    body = registration(made)
    assert Client(server)("POST", "/api/v1/agent/register", body, Idempotency_Key="k1").status == 200
    thief = Client(server)("POST", "/api/v1/agent/register", registration(made, machine_id="fedcba9876543210"),
                           Idempotency_Key="k1")  # fmt: skip
    assert thief.status == 401
    found = alerts(tenant, made["uuid"], "token_reuse")
    assert len(found) == 1 and found[0]["severity"] == "critical"


def test_the_same_host_may_repeat_a_lost_registration(tenant: Tenant, server: RunningServer) -> None:
    made = add(tenant)
    first = Client(server).ok("POST", "/api/v1/agent/register", registration(made), Idempotency_Key="k1")
    again = Client(server).ok("POST", "/api/v1/agent/register", registration(made), Idempotency_Key="k1")
    assert Host(server, made, first["credential"]).beat().status == 401, "of two credentials the first is not valid"
    assert Host(server, made, again["credential"]).beat().status == 200
    assert alerts(tenant, made["uuid"], "token_reuse") == []
    late = Client(server)("POST", "/api/v1/agent/register", registration(made), Idempotency_Key="k1")
    assert late.status == 401, "once the credential was used, nobody lost an answer"


def test_a_wrong_expired_or_replaced_token_is_refused(tenant: Tenant, server: RunningServer) -> None:
    made = add(tenant)
    other = add(tenant)
    swapped = registration(made, registration_token=other["registration_token"])
    assert Client(server)("POST", "/api/v1/agent/register", swapped).status == 401
    mistyped = registration(made, registration_token=made["registration_token"][:-1] + "_")
    assert Client(server)("POST", "/api/v1/agent/register", mistyped).status == 401
    reissued = tenant.api.ok("POST", f"/api/v1/agents/{made['uuid']}/install-command")
    assert Client(server)("POST", "/api/v1/agent/register", registration(made)).status == 401
    with sqlite3.connect(server.data_dir / "server.sqlite3") as database:
        database.execute("UPDATE registration_tokens SET expires_at = '2020-01-01 00:00:00'")
    fresh = registration(made, registration_token=reissued["registration_token"])
    answer = Client(server)("POST", "/api/v1/agent/register", fresh)
    assert answer.status == 401 and "expired" in answer.body["detail"]


def test_a_reinstalled_host_takes_over_and_the_old_credential_is_dead(tenant: Tenant, server: RunningServer) -> None:
    host = enrolled(tenant)
    reissued = tenant.api.ok("POST", f"/api/v1/agents/{host.uuid}/install-command")
    body = registration(host.agent, registration_token=reissued["registration_token"], machine_id="aaaabbbbccccdddd")
    new = Host(server, host.agent, Client(server).ok("POST", "/api/v1/agent/register", body)["credential"])
    assert new.beat().status == 200
    assert host.beat().status == 401
    assert new.beat().status == 200, "the old one does no harm to the new one"


def rotate(tenant: Tenant, host: Host) -> str:
    """Has the host fetch a new credential, and returns it."""
    answer = tenant.api("POST", f"/api/v1/agents/{host.uuid}/rotate-token")
    assert answer.status == 202 and answer.body["rotation_pending"]
    assert host.command("rotate_credential") == {"kind": "rotate_credential"}
    return str(host.beat().body["credential"])


def test_rotation_overlaps_and_then_the_old_credential_dies(tenant: Tenant, server: RunningServer) -> None:
    host = enrolled(tenant)
    new = rotate(tenant, host)
    assert new != host.credential and host.beat().status == 200, "the old one works until the new one is used"
    assert tenant.api.ok("GET", f"/api/v1/agents/{host.uuid}")["rotation_pending"]
    renewed = Host(server, host.agent, new, beats=host.beats)
    assert renewed.beat().body["credential"] is None
    assert host.beat().status == 200, "a request that was under way"
    assert not tenant.api.ok("GET", f"/api/v1/agents/{host.uuid}")["rotation_pending"]
    assert tenant.api.ok("GET", f"/api/v1/agents/{host.uuid}")["status"] == "online"


def test_a_retired_credential_that_is_used_again_revokes_both(tenant: Tenant, server: RunningServer) -> None:
    host = enrolled(tenant)
    renewed = Host(server, host.agent, rotate(tenant, host), beats=host.beats)
    assert renewed.beat().status == 200
    with sqlite3.connect(server.data_dir / "server.sqlite3") as database:  # half a minute later
        database.execute("UPDATE agent_credentials SET retired_at = datetime(retired_at, '-31 seconds')")
    assert host.beat().status == 401
    assert renewed.beat().status == 401
    assert tenant.api.ok("GET", f"/api/v1/agents/{host.uuid}")["status"] == "revoked"
    (found,) = alerts(tenant, host.uuid, "token_reuse")
    assert found["severity"] == "critical"
    assert tenant.api("POST", f"/api/v1/agents/{host.uuid}/rotate-token").status == 409


def test_a_lost_answer_to_a_heartbeat_does_not_lose_the_agent(tenant: Tenant, server: RunningServer) -> None:
    host = enrolled(tenant)
    first = rotate(tenant, host)
    second = str(host.beat().body["credential"])
    assert second != first
    assert Host(server, host.agent, first, beats=host.beats).beat().status == 200, "either may be the one it stored"
    assert Host(server, host.agent, second).beat().status == 401


def test_a_removed_agent_is_out_at_once(tenant: Tenant) -> None:
    host = enrolled(tenant)
    assert tenant.api("DELETE", f"/api/v1/agents/{host.uuid}").status == 204
    assert host.beat().status == 401
    assert tenant.api("GET", f"/api/v1/agents/{host.uuid}").status == 404
