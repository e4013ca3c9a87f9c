"""Alerts reach people: a real server tells a real web server and a real mail server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.agent import processes
from tests.control import receivers
from tests.control.hosts import Host, add_job, add_repository, back_up, enrolled
from tests.control.receivers import Mailbox, Posted, Receiver
from tests.control.servers import RunningServer, Tenant

TARGETS = "/api/v1/alert-targets"
eventually = partial(processes.eventually, seconds=90.0)
AT_ONCE: dict[str, Any] = {"wait_seconds": 0, "quiet_seconds": 0}


@pytest.fixture
def mine(tenant: Tenant) -> Iterator[Tenant]:
    """A tenant without targets: each test has its own."""
    yield tenant
    for target in tenant.api.ok("GET", TARGETS)["items"]:
        tenant.api.ok("DELETE", f"{TARGETS}/{target['uuid']}")


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receivers.web() as found:
        yield found


@pytest.fixture(scope="module")
def box(pem: tuple[Path, Path]) -> Iterator[Mailbox]:
    with receivers.mail(*pem) as found:
        yield found


def with_job(tenant: Tenant) -> tuple[Host, dict[str, Any]]:
    add_repository(tenant)
    host = enrolled(tenant, f"web-{uuid4().hex[:6]}")
    return host, add_job(tenant, host)


def fail(host: Host, job: dict[str, Any], why: str = "no room left") -> None:
    told = {"event": "finished", "status": "failed", "exit_code": 1, "error": {"what": "cannot store", "why": why}}
    started = {"event": "started", "kind": "backup", "job_uuid": job["uuid"]}
    assert host.tell(str(uuid4()), started, told).status == 200


def add_webhook(tenant: Tenant, hook: Receiver, **choice: Any) -> dict[str, Any]:
    body = {"name": "on call", "webhook": {"url": hook.url}, **AT_ONCE, **choice}
    return dict(tenant.api.ok("POST", TARGETS, body))


def said(posted: Posted) -> dict[str, Any]:
    return dict(json.loads(posted.body))


def example() -> Any:
    """The function of docs/alerts.md that checks a signature."""
    text = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.S)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/alerts.md", "exec"), names)
    return names["verified"]


def test_a_webhook_hears_of_the_opening_and_the_end(mine: Tenant, hook: Receiver) -> None:
    made = add_webhook(mine, hook)
    host, job = with_job(mine)
    fail(host, job)
    first = hook.next()
    told = said(first)
    assert (told["type"], told["total"], told["events"], told["kinds"]) == ("alerts", 1, {"opened": 1}, {"failed": 1})
    (alert,) = told["alerts"]
    assert alert["text"] == "Daily Web Files failed: cannot store: no room left" and alert["severity"] == "critical"
    assert (alert["job_uuid"], alert["job_name"]) == (job["uuid"], "Daily Web Files")
    assert alert["agent_name"] == host.agent["name"] and told["tenant"]["name"] == mine.name
    fail(host, job)
    back_up(host, job, "again1")
    told = said(hook.next())
    assert told["events"] == {"resolved": 1} and told["alerts"][0]["uuid"] == alert["uuid"], (
        "the second failure counted"
    )
    assert told["alerts"][0]["resolved_at"]
    verified = example()
    assert verified(made["secret"], first.headers, first.body) == json.loads(first.body)
    assert first.headers["webhook-id"] == json.loads(first.body)["id"]
    for wrong in ({"webhook-timestamp": "1"}, {"webhook-id": "other"}):
        with pytest.raises(ValueError):
            verified(made["secret"], {**first.headers, **wrong}, first.body)
    with pytest.raises(ValueError):
        verified(made["secret"], first.headers, first.body + b" ")


def test_a_rotated_secret_signs_beside_the_old_one(mine: Tenant, hook: Receiver) -> None:
    made = add_webhook(mine, hook)
    path = f"{TARGETS}/{made['uuid']}"
    secret = mine.api.ok("POST", f"{path}/rotate-secret")["secret"]
    assert mine.api.ok("POST", f"{path}/test")["sent"]
    posted, verified = hook.next(), example()
    assert secret != made["secret"] and said(posted)["type"] == "test"
    for one in (secret, made["secret"]):
        assert verified(one, posted.headers, posted.body)["id"] == posted.headers["webhook-id"]


def test_mail_comes_over_tls_with_a_login(mine: Tenant, box: Mailbox) -> None:
    login = {"username": box.login[0], "password": box.login[1]}
    sent = {"host": "127.0.0.1", "port": box.port, "sender": "lox@example.com", "recipients": ["ops@example.com"]}
    made = mine.api.ok("POST", TARGETS, {"name": "mail", "mail": {**sent, **login}, **AT_ONCE})
    host, job = with_job(mine)
    fail(host, job, "broken\nBcc: thief@example.com\x1b[31m")
    came = box.next()
    assert str(came["Subject"]).startswith("[LOX Backup] CRITICAL: Daily Web Files failed: cannot store: broken\\n")
    assert came["X-Envelope-To"] == "ops@example.com" and came["Bcc"] is None
    assert host.agent["name"] in came.get_content() and "\x1b" not in came.get_content()
    (delivery,) = mine.api.ok("GET", f"{TARGETS}/{made['uuid']}/deliveries")["items"]
    assert came["Message-ID"] == f"<{delivery['uuid']}@example.com>"
    box.wrong = ("gone@example.com",)
    mine.api.ok("PATCH", f"{TARGETS}/{made['uuid']}", {"mail": {**sent, "username": login["username"],
        "recipients": ["ops@example.com", "gone@example.com"]}})  # fmt: skip
    tried = mine.api.ok("POST", f"{TARGETS}/{made['uuid']}/test")
    assert tried["sent"] and "refused gone@example.com" in tried["detail"], "the kept password was used"
    box.next()
    other = {"mail": {**sent, "host": "mail.example.com", "username": login["username"]}}
    refused = mine.api("PATCH", f"{TARGETS}/{made['uuid']}", other)
    assert refused.status == 422 and "goes to no other server" in refused.body["detail"]
    other["mail"] |= {"host": "127.0.0.1", "password": "wrong"}
    mine.api.ok("PATCH", f"{TARGETS}/{made['uuid']}", other)
    tried = mine.api.ok("POST", f"{TARGETS}/{made['uuid']}/test")
    assert not tried["sent"] and "535" in tried["detail"]


@pytest.mark.slow
def test_chat_services_by_apprise(mine: Tenant, hook: Receiver) -> None:
    body = {"name": "chat", "apprise": {"url": f"ntfy://127.0.0.1:{hook.port}/topic"}, **AT_ONCE}
    made = mine.api.ok("POST", TARGETS, body)
    assert made["address"] == "ntfy://…" and made["secret"] is None
    tried = mine.api.ok("POST", f"{TARGETS}/{made['uuid']}/test")
    assert tried["sent"], tried
    assert "this is a test of an alert target" in hook.next().body.decode()
    hook.statuses, hook.location = [307], "http://127.0.0.2:9/elsewhere"
    tried = mine.api.ok("POST", f"{TARGETS}/{made['uuid']}/test")
    assert not tried["sent"] and "not of the internet" in tried["detail"], "where a redirect leads is looked at too"
    for url, why in (("syslog://localhost", "none of the services"), ("slack://x", "does not understand")):
        refused = mine.api("POST", TARGETS, {**body, "apprise": {"url": url}})
        assert refused.status == 422 and why in refused.body["detail"]
    leak = {"url": "discord://111111111111111111/abcdefghijklmnopqrstuvwxyz?template=/etc/passwd"}
    refused = mine.api("POST", TARGETS, {**body, "apprise": leak})
    if refused.status == 201:
        refused = mine.api("POST", f"{TARGETS}/{refused.body['uuid']}/test")
    assert "files cannot be read here" in refused.body["detail"]


def test_what_is_told_can_be_chosen(mine: Tenant, hook: Receiver) -> None:
    host, job = with_job(mine)
    other = add_job(mine, host, name="Other")
    made = [
        add_webhook(mine, hook, name="warnings", kinds=["missing_paths"]),
        add_webhook(mine, hook, name="other job", job_uuids=[other["uuid"]], resolved=False),
        add_webhook(mine, hook, name="off", enabled=False),
    ]
    fail(host, job)
    back_up(host, job, "chosen1", missing_paths=["/srv"])
    assert said(hook.next())["kinds"] == {"missing_paths": 1}
    fail(host, other)
    assert said(hook.next())["alerts"][0]["job_name"] == "Other"
    back_up(host, other, "chosen2")
    back_up(host, job, "chosen3")
    assert said(hook.next())["events"] == {"resolved": 1}
    assert eventually(lambda: [mine.api.ok("GET", f"{TARGETS}/{one['uuid']}")["sent"] for one in made] == [2, 1, 0])
    assert [mine.api.ok("GET", f"{TARGETS}/{one['uuid']}")["waiting"] for one in made] == [0, 0, 0]
    assert hook.came.empty()


def test_what_fails_is_tried_again_under_the_same_id(mine: Tenant, hook: Receiver) -> None:
    made = add_webhook(mine, hook)
    path = f"{TARGETS}/{made['uuid']}"
    hook.statuses = [503] * 8
    host, job = with_job(mine)
    fail(host, job)
    first = hook.next()
    shown = eventually(lambda: (one := mine.api.ok("GET", path))["error"] and one)
    assert shown["error"] == "127.0.0.1 answered 503" and (shown["waiting"], shown["sent"]) == (1, 0)
    (delivery,) = mine.api.ok("GET", f"{path}/deliveries")["items"]
    assert delivery["state"] == "waiting" and delivery["attempts"] >= 1
    assert delivery["due_at"] > delivery["created_at"]
    hook.statuses.clear()
    mine.api.ok("PATCH", path, {"name": "mended"})
    second = hook.next()
    assert (second.headers["webhook-id"], second.body) == (first.headers["webhook-id"], first.body)
    shown = eventually(lambda: (one := mine.api.ok("GET", path))["sent"] and one)
    assert (shown["waiting"], shown["error"], shown["failing_since"]) == (0, None, None)
    metrics = mine.api.ok("GET", "/metrics")
    assert 'lox_server_alert_messages_total{result="sent",target="webhook"} 1.0' in metrics
    assert 'lox_server_alert_messages_waiting{target="webhook"} 0.0' in metrics


def test_secrets_go_in_and_never_come_out(mine: Tenant, server: RunningServer, hook: Receiver, box: Mailbox) -> None:
    made = [
        add_webhook(mine, hook),
        mine.api.ok("POST", TARGETS, {"name": "mail", "mail": {
            "host": "mail.example.com", "username": "u", "password": "s3cret-password", "sender": "a@example.com",
            "recipients": ["b@example.com"]}}),
        mine.api.ok("POST", TARGETS, {"name": "chat", "apprise": {"url": "ntfy://u:s3cret-password@127.0.0.1:9/t"}}),
    ]  # fmt: skip
    mine.api.ok("PATCH", f"{TARGETS}/{made[0]['uuid']}", {"webhook": {"url": hook.url + "/s3cret-other"}})
    secret = made[0].pop("secret")
    read = str([mine.api.ok("GET", f"{TARGETS}/{one['uuid']}") for one in made])
    read += str(mine.api.ok("GET", TARGETS)) + str(mine.api.ok("GET", "/api/v1/audit")) + str(made)
    kept = b"".join(file.read_bytes() for file in server.data_dir.iterdir() if "sqlite3" in file.name)
    assert secret.startswith("whsec_")
    for hidden in ("s3cret", secret):
        assert hidden not in read and hidden not in server.log.read_text() and hidden.encode() not in kept
    assert (server.data_dir / "secrets.key").stat().st_mode & 0o777 == 0o600


def test_other_tenants_agents_and_jobs_cannot_be_named(mine: Tenant, other_tenant: Tenant, hook: Receiver) -> None:
    host, job = with_job(other_tenant)
    made = add_webhook(mine, hook)
    for field, uuid in (("agent_uuids", host.uuid), ("job_uuids", job["uuid"])):
        for one in (uuid, str(uuid4())):
            body = {"name": "x", "webhook": {"url": hook.url}, field: [one]}
            for answer in (
                mine.api("POST", TARGETS, body),
                mine.api("PATCH", f"{TARGETS}/{made['uuid']}", {field: [one]}),
            ):
                assert answer.status == 422 and answer.body["detail"].startswith(f"{field}/0: there is no such")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "webhook, mail and apprise"),
        ({"webhook": {"url": "https://10.0.0.1/x"}}, "webhook/url"),
        ({"webhook": {"url": "https://[::ffff:169.254.169.254]/x"}}, "webhook/url"),
        ({"webhook": {"url": "https://user:pw@hooks.example.com/x"}}, "webhook/url"),
        ({"webhook": {"url": "ftp://hooks.example.com/x"}}, "webhook/url"),
        ({"mail": {"host": "127.0.0.2", "sender": "a@b.c", "recipients": ["a@b.c"]}}, "mail/host"),
        (
            {
                "mail": {
                    "host": "m.example",
                    "security": "none",
                    "username": "u",
                    "password": "p",
                    "sender": "a@b.c",
                    "recipients": ["a@b.c"],
                }
            },
            "mail",
        ),
        ({"mail": {"host": "m.example", "sender": "a@b.c\nBcc: x", "recipients": ["a@b.c"]}}, "mail/sender"),
    ],
)
def test_what_no_target_can_be(tenant: Tenant, body: dict[str, Any], field: str) -> None:
    answer = tenant.api("POST", TARGETS, {"name": "x", **body})
    assert answer.status == 422 and field in answer.body["detail"], answer.body


@pytest.mark.parametrize("host", ["0", "2130706434", "0x7f.2"])
def test_names_that_lead_back_are_refused_when_it_is_sent(tenant: Tenant, host: str) -> None:
    made = tenant.api.ok("POST", TARGETS, {"name": host, "webhook": {"url": f"https://{host}/latest"}})
    tried = tenant.api.ok("POST", f"{TARGETS}/{made['uuid']}/test")
    assert not tried["sent"] and "not of the internet" in tried["detail"]


def test_a_redirect_is_not_followed(mine: Tenant, hook: Receiver) -> None:
    made = add_webhook(mine, hook)
    hook.statuses, hook.location = [307], hook.url
    tried = mine.api.ok("POST", f"{TARGETS}/{made['uuid']}/test")
    assert not tried["sent"] and "redirects are not followed" in tried["detail"]
    assert hook.next() and hook.came.empty()
