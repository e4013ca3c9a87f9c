"""Callers who mean harm, or only send what nobody thought of: what they do stays theirs."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest

from control.api.limits import caller_of
from tests.control.hosts import JOB, add_job, add_repository, enrolled, registration
from tests.control.postgres import Cluster
from tests.control.servers import Client, RunningServer, Tenant, make_tenant, running

WRONG = "lox_cred_" + 32 * "0" + "_" + 51 * "a"
NUL = {"event": "log", "text": "a\0b"}


@pytest.mark.slow
def test_who_guesses_holds_up_nobody_else_at_the_same_address(tmp_path: Path) -> None:
    with running(tmp_path, LOX_SERVER_RATE_LIMITS="true") as server, ThreadPoolExecutor(8) as pool:
        tenant = make_tenant(server, "Alpha")
        host = enrolled(tenant)
        made = [tenant.api.ok("POST", "/api/v1/agents", {"hostname": f"h{n}", "os": "linux"}) for n in range(80)]
        guess = Client(server, WRONG)
        seen = Counter(pool.map(lambda _: guess("GET", "/api/v1/agent/policy").status, range(400)))
        assert set(seen) == {401, 429}, "guesses run into the limit"
        assert host.beat().status == 200
        ask = Client(server)
        rolled_out = Counter(
            pool.map(
                lambda one: ask("POST", "/api/v1/agent/register", registration(one, machine_id=one["uuid"])).status,
                made,
            )
        )
        assert rolled_out == {200: 80}, "a roll-out behind one address is no attack"


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("", ""),
    ],
)
def test_one_customer_is_one_caller(address: str, caller: str) -> None:
    assert caller_of(address) == caller


@pytest.mark.slow
def test_no_text_or_number_of_one_agent_keeps_postgresql_from_storing_those_of_others(
    tmp_path: Path, postgres: Cluster
) -> None:
    with running(tmp_path, database=str(postgres.database())) as server:
        tenant = make_tenant(server, "Alpha")
        add_repository(tenant)
        odd, good = enrolled(tenant, "odd"), enrolled(tenant, "good")
        job = add_job(tenant, odd)
        run = str(uuid4())
        started = {"event": "started", "kind": "backup", "job_uuid": job["uuid"]}
        missing = {"event": "finished", "status": "success", "summary": {"missing_paths": ["x\0y"]}}
        assert odd.tell(run, started, NUL, missing).status == 200
        assert "\ufffd" in tenant.api.ok("GET", f"/api/v1/runs/{run}/log")["items"][0]["text"]
        odd.beats = 1 << 40
        assert odd.beat().status == 422
        assert odd.tell(str(uuid4()), started, {**missing, "summary": {"problems": 1 << 40}}).status == 422
        assert tenant.api("GET", "/api/v1/agents?hostname=a%00b").status == 422
        paths = {**JOB, "agent_uuid": odd.uuid, "source_paths": ["/a\0b"]}
        assert tenant.api("POST", "/api/v1/backup-jobs", paths).status == 422
        assert good.beat().status == 200
    assert "could not be written" not in server.log.read_text()


def test_the_same_key_in_another_tenant_is_another_request(
    server: RunningServer, tenant: Tenant, other_tenant: Tenant
) -> None:
    root, key, body = server.root(), uuid4().hex, {"name": "main", "vault": True}
    first = root("POST", "/api/v1/repositories", body, Lox_Tenant=str(tenant.uuid), Idempotency_Key=key)
    second = root("POST", "/api/v1/repositories", body, Lox_Tenant=str(other_tenant.uuid), Idempotency_Key=key)
    assert (first.status, second.status) == (201, 422)
    assert second.body["type"] == "urn:lox:problem:idempotency-key-reused"
