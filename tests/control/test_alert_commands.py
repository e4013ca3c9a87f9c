"""``lox alert`` against a real server: what an operator does who has a terminal and no browser."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.control import receivers
from tests.control.hosts import add_job, add_repository, enrolled
from tests.control.receivers import Receiver
from tests.control.servers import Tenant
from tests.control.test_alert_targets import fail
from tests.packaging.project import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receivers.web() as found:
        yield found


def test_an_operator_sets_up_tries_and_looks(tenant: Tenant, hook: Receiver, tmp_path: Path) -> None:
    server = tenant.api.server

    def lox(*arguments: str, stdin: str = "", code: int = 0) -> list[dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "lox", "--json", *arguments], input=stdin, capture_output=True, text=True,
            env={"LOX_CONFIG_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return [json.loads(line) for line in (done.stdout or done.stderr).splitlines()]

    lox("login", server.url, "--token-file", "-", "--ca-file", str(server.ca), stdin=f"{tenant.api.token}\n")
    add_repository(tenant)
    host = enrolled(tenant)
    job = add_job(tenant, host, name="nightly")
    options = ("--webhook", "-", "--job", "nightly", "--remind", "24", "--wait", "0", "--quiet-time", "0", "--no-ends")
    (made,) = lox("alert", "target", "add", "on call", *options, stdin=hook.url + "\n")[:1]
    assert made["secret"].startswith("whsec_") and (made["remind_hours"], made["resolved"]) == (24, False)
    (tried,) = lox("alert", "target", "test", "on call")[:1]
    assert tried["sent"] and json.loads(hook.next().body)["type"] == "test"
    fail(host, job)
    (told,) = json.loads(hook.next().body)["alerts"]
    (listed,) = [one for one in lox("alert", "list", "--job", "nightly") if one["type"] == "alert"]
    assert (listed["uuid"], listed["kind"], listed["state"]) == (told["uuid"], "failed", "open")
    lox("alert", "ack", listed["uuid"])
    assert [one for one in lox("alert", "list", "--job", "nightly") if one["type"] == "alert"] == []
    (shown,) = lox("alert", "show", listed["uuid"][:30])[:1]
    assert shown["acknowledged_at"]
    (message,) = lox("alert", "target", "messages", "on call")[:1]
    assert message["headline"] == "CRITICAL: nightly failed: cannot store: no room left"
    changed = lox("alert", "target", "change", "on call", "--name", "calm", "--remind", "none", "--off")[0]
    assert (changed["name"], changed["remind_hours"], changed["enabled"]) == ("calm", None, False)
    assert lox("alert", "target", "rotate-secret", "calm")[0]["secret"] != made["secret"]
    hook.statuses = [500]
    refused = lox("alert", "target", "test", "calm", code=1)
    assert "127.0.0.1 answered 500" in str(refused)
    assert "give --mail ADDRESS" in str(lox("alert", "target", "add", "x", "--mail", "a@example.com", code=2))
    lox("alert", "target", "delete", "calm")
    assert [one for one in lox("alert", "target", "list") if one["type"] == "alert_target"] == []
