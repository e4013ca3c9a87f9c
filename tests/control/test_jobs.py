"""Jobs: the fields of the product text with their defaults, schedules checked at save, runs asked for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from control.jobs.schedule import InvalidSchedule, check_schedule, next_times
from tests.control.hosts import JOB, Host, add_job, add_repository, enrolled
from tests.control.servers import Tenant

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def host(tenant: Tenant) -> Host:
    add_repository(tenant)
    return enrolled(tenant)


def test_the_job_of_the_product_text(tenant: Tenant, host: Host) -> None:
    made = tenant.api("POST", "/api/v1/backup-jobs", {"agent_uuid": host.uuid, **JOB})
    assert made.status == 201
    assert {name: made.body[name] for name in JOB} == JOB
    due = datetime.fromisoformat(made.body["next_run_at"])
    assert (due.hour, due.minute) == (2, 0) and timedelta(0) < due - datetime.now(UTC) <= timedelta(days=1)
    assert made.body == tenant.api.ok("GET", f"/api/v1/backup-jobs/{made.body['uuid']}")


def test_defaults_are_those_of_the_product_text(tenant: Tenant, host: Host) -> None:
    body = {"agent_uuid": host.uuid, "name": "least", "job_type": "file", "source_paths": ["/etc"]}
    made = tenant.api.ok("POST", "/api/v1/backup-jobs", body)
    wanted = {
        "backup_mode": "incremental", "schedule_cron": None, "retention_count": 7, "compression_enabled": True,
        "encryption_enabled": False, "deduplication_enabled": True, "bandwidth_limit_mbps": None, "pre_script": None,
        "post_script": None, "next_run_at": None, "missed_run_policy": "run_once", "overlap_policy": "skip",
    }  # fmt: skip
    assert {name: made[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("job_type", "block", "changed-block tracking"),
        ("job_type", "image", "images of whole disks"),
        ("job_type", "database", "databases"),
        ("job_type", "tape", "'file', 'block', 'image' or 'database'"),
        ("schedule_cron", "61 * * * *", "bad minute"),
        ("schedule_cron", "0 2 * *", "wrong number of fields"),
        ("schedule_cron", "0 0 31 2 *", "bad day-of-month"),
        ("schedule_cron", "@reboot", "no nickname"),
        ("schedule_cron", "* * * * * *", "five fields"),
        ("timezone", "Mars/Olympus", "no time zone"),
        ("source_paths", ["var/www"], "absolute"),
        ("source_paths", [], "at least 1"),
        ("retention_count", 0, "greater than or equal to 1"),
        ("pre_script", "/bin/sh -c x", "match pattern"),
        ("repository_uuid", NOBODY, "no such repository"),
        ("agent_uuid", NOBODY, "no such agent"),
        ("retention_cuont", 3, "no such field"),
    ],
)
def test_what_a_job_cannot_be(tenant: Tenant, host: Host, field: str, value: object, says: str) -> None:
    answer = tenant.api("POST", "/api/v1/backup-jobs", {"agent_uuid": host.uuid, **JOB, field: value})
    assert answer.status == 422
    assert says in answer.body["detail"], answer.body
    assert answer.body["errors"][0]["pointer"].startswith(f"#/{field}")


def test_nicknames_of_cron_are_what_they_stand_for(tenant: Tenant, host: Host) -> None:
    job = add_job(tenant, host, schedule_cron="@daily", timezone="Europe/Berlin")
    assert job["schedule_cron"] == "0 0 * * *"
    changed = tenant.api.ok("PATCH", f"/api/v1/backup-jobs/{job['uuid']}", {"schedule_cron": "@Hourly"})
    assert changed["schedule_cron"] == "0 * * * *" and changed["next_run_at"].endswith(":00:00Z")


def test_an_encrypted_job_needs_an_encrypted_repository(tenant: Tenant, host: Host) -> None:
    open_one = add_repository(tenant, encryption="none", default=False)
    answer = tenant.api(
        "POST", "/api/v1/backup-jobs", {"agent_uuid": host.uuid, **JOB, "repository_uuid": open_one["uuid"]}
    )
    assert answer.status == 422 and answer.body["errors"][0]["pointer"] == "#/encryption_enabled"


def test_a_change_touches_what_is_given_and_reaches_the_agent(tenant: Tenant, host: Host) -> None:
    job = add_job(tenant, host)
    host.commands()
    before = host.policy()["revision"]
    path = f"/api/v1/backup-jobs/{job['uuid']}"
    changed = tenant.api.ok("PATCH", path, {"schedule_cron": None, "retention_count": 3})
    assert (changed["schedule_cron"], changed["retention_count"], changed["next_run_at"]) == (None, 3, None)
    assert {name: changed[name] for name in JOB if name not in ("schedule_cron", "retention_count")} == {
        name: JOB[name] for name in JOB if name not in ("schedule_cron", "retention_count")
    }
    host.command("refresh_policy")
    policy = host.policy()
    mine = {one["uuid"]: one for one in policy["jobs"]}
    assert policy["revision"] > before and mine[job["uuid"]]["retention_count"] == 3
    assert host.beat().body["policy_revision"] == policy["revision"]
    assert tenant.api("PATCH", path, {"name": None}).status == 422
    assert tenant.api("PATCH", path, {"schedule_cron": "nonsense"}).status == 422
    assert tenant.api.ok("GET", path) == changed


def test_a_policy_that_did_not_change_is_not_sent_again(host: Host) -> None:
    revision = host.policy()["revision"]
    answer = host.client("GET", "/api/v1/agent/policy", If_None_Match=f'"{revision}"')
    assert answer.status == 304


def test_a_removed_job_leaves_the_policy(tenant: Tenant, host: Host) -> None:
    job = add_job(tenant, host)
    assert job["uuid"] in [one["uuid"] for one in host.policy()["jobs"]]
    assert tenant.api("DELETE", f"/api/v1/backup-jobs/{job['uuid']}").status == 204
    assert job["uuid"] not in [one["uuid"] for one in host.policy()["jobs"]]
    assert tenant.api("GET", f"/api/v1/backup-jobs/{job['uuid']}").status == 404


def test_a_vault_repository_has_the_address_of_this_server(tenant: Tenant, host: Host) -> None:
    vault = tenant.api.ok("POST", "/api/v1/repositories", {"name": "vault", "vault": True, "quota_bytes": 1 << 30})
    assert vault["url"] == f"lox+https://127.0.0.1:{tenant.api.server.port}/{vault['uuid']}"
    job = add_job(tenant, host, repository_uuid=vault["uuid"])
    assert {one["uuid"]: one["vault"] for one in host.policy()["repositories"]}[vault["uuid"]] is True
    assert tenant.api("DELETE", f"/api/v1/repositories/{vault['uuid']}").status == 409
    tenant.api.ok("DELETE", f"/api/v1/backup-jobs/{job['uuid']}")
    assert tenant.api("DELETE", f"/api/v1/repositories/{vault['uuid']}").status == 204


def test_a_url_with_a_password_is_refused(tenant: Tenant) -> None:
    answer = tenant.api("POST", "/api/v1/repositories", {"name": "x", "url": "s3://key:secret@bucket/x"})
    assert answer.status == 422 and "credentials" in answer.body["detail"]


def test_run_now_is_a_command_and_a_queued_run(tenant: Tenant, host: Host) -> None:
    job = add_job(tenant, host)
    run = tenant.api("POST", f"/api/v1/backup-jobs/{job['uuid']}/run", {"mode": "full"})
    assert run.status == 202 and run.body["status"] == "queued"
    assert host.command("run_job") == {
        "kind": "run_job", "job_uuid": job["uuid"], "run_uuid": run.body["uuid"], "mode": "full",
    }  # fmt: skip


def test_next_runs_are_told_in_times_and_words(tenant: Tenant, host: Host) -> None:
    job = add_job(tenant, host, schedule_cron="30 2 * * 1-5", timezone="Europe/Berlin")
    found = tenant.api.ok("GET", f"/api/v1/backup-jobs/{job['uuid']}/next-runs?count=3")
    assert found["explained"] == "At 02:30 on Monday through Friday" and len(found["times"]) == 3
    tenant.api.ok("PATCH", f"/api/v1/backup-jobs/{job['uuid']}", {"enabled": False})
    assert tenant.api.ok("GET", f"/api/v1/backup-jobs/{job['uuid']}/next-runs")["times"] == []


def test_lists_go_on_where_they_ended(tenant: Tenant, host: Host) -> None:
    made = {add_job(tenant, host, name=f"page {number}")["uuid"] for number in range(3)}
    found, cursor = [], ""
    while True:
        part = tenant.api.ok("GET", f"/api/v1/backup-jobs?agent={host.uuid}&limit=2{cursor}")
        found += [job["uuid"] for job in part["items"]]
        if part["next"] is None:
            break
        cursor = f"&cursor={part['next']}"
    assert len(found) == len(set(found)) and made <= set(found)
    assert found[:3] == sorted(found[:3], reverse=True), "newest first"
    assert tenant.api("GET", "/api/v1/backup-jobs?cursor=nonsense").status == 422


def test_times_that_summer_time_skips_run_right_after() -> None:
    before = datetime(2026, 3, 28, 12, tzinfo=UTC)
    assert next_times("30 2 * * *", "Europe/Berlin", before, 2) == [
        datetime(2026, 3, 29, 1, 0, tzinfo=UTC), datetime(2026, 3, 30, 0, 30, tzinfo=UTC),
    ]  # fmt: skip
    twice = next_times("30 2 * * *", "Europe/Berlin", datetime(2026, 10, 24, 12, tzinfo=UTC), 2)
    assert (twice[1] - twice[0]) > timedelta(hours=20), "an hour that comes twice runs it once"


def test_a_schedule_that_never_comes_is_refused() -> None:
    with pytest.raises(InvalidSchedule):
        check_schedule("0 0 30 2 *", "UTC")
