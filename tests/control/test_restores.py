"""Restores, and streams through an agent: looked up, downloaded, estimated, broken off."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from tests.control.hosts import Host, add_job, add_repository, back_up, beside, enrolled, waits
from tests.control.servers import Client, Tenant


@pytest.fixture(scope="module")
def host(tenant: Tenant) -> Host:
    add_repository(tenant)
    return enrolled(tenant)


@pytest.fixture(scope="module")
def job(tenant: Tenant, host: Host) -> dict[str, Any]:
    return add_job(tenant, host)


@pytest.fixture(scope="module")
def backup(tenant: Tenant, host: Host, job: dict[str, Any]) -> dict[str, Any]:
    back_up(host, job, "snap1")
    return dict(tenant.api.ok("GET", f"/api/v1/machine-backups?agent={host.uuid}")["items"][0])


async def _send(host: Host, exchange: str, content: Any, kind: str) -> int:
    headers = {"Authorization": f"Bearer {host.credential}", "Content-Type": kind}
    connector = aiohttp.TCPConnector(ssl=host.server.context())
    async with (
        aiohttp.ClientSession(host.server.url, connector=connector) as session,
        session.post(f"/api/v1/agent/exchanges/{exchange}", data=content, headers=headers) as answer,
    ):
        return answer.status


def send(host: Host, exchange: str, content: bytes, kind: str) -> int:
    """Answer an exchange."""
    return asyncio.run(_send(host, exchange, content, kind))


async def _fetch(client: Client, path: str) -> tuple[int, bytes, dict[str, str]]:
    connector = aiohttp.TCPConnector(ssl=client.server.context())
    headers = {"Authorization": f"Bearer {client.token}"}
    async with (
        aiohttp.ClientSession(client.server.url, connector=connector, headers=headers) as session,
        session.get(path) as answer,
    ):
        return answer.status, await answer.read(), dict(answer.headers)


def test_the_restores_of_the_product_text(tenant: Tenant, host: Host, backup: dict[str, Any]) -> None:
    path = f"/api/v1/machine-backups/{backup['uuid']}/restore"
    full = tenant.api("POST", path, {"restore_type": "full", "overwrite_existing": True, "preserve_permissions": True})
    assert full.status == 202 and full.body["status"] == "queued" and full.body["target_path"] is None
    command = host.command("restore")
    assert (command["restore_uuid"], command["snapshot"]) == (full.body["uuid"], "snap1")
    assert command["overwrite_existing"] and command["repository"]["url"] == "/srv/backup"
    files = ["/etc/nginx/nginx.conf", "/var/www/html/index.php"]
    some = tenant.api("POST", path, {"restore_type": "file", "target_path": "/srv/restore", "selected_files": files})
    assert some.status == 202
    command = host.command("restore")
    assert (command["selected_files"], command["target_path"]) == (files, "/srv/restore")
    assert command["preserve_permissions"] is True and command["overwrite_existing"] is False


def test_a_restore_is_a_run(tenant: Tenant, host: Host, backup: dict[str, Any]) -> None:
    body = {"restore_type": "full", "target_path": "/srv/x"}
    restore = tenant.api.ok("POST", f"/api/v1/machine-backups/{backup['uuid']}/restore", body)
    host.tell(restore["uuid"], {"event": "started", "kind": "restore"})
    done = {"event": "finished", "status": "success", "summary": {"files": 3, "bytes": 30}}
    host.tell(restore["uuid"], done)
    shown = tenant.api.ok("GET", f"/api/v1/restores/{restore['uuid']}")
    assert (shown["status"], shown["kind"], shown["target_path"]) == ("success", "restore", "/srv/x")
    assert shown["machine_backup_uuid"] == backup["uuid"] and shown["summary"]["files"] == 3
    listed = tenant.api.ok("GET", "/api/v1/restores?status=success")["items"]
    assert restore["uuid"] in [one["uuid"] for one in listed]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"restore_type": "volume"}, "block-level"),
        ({"restore_type": "instant"}, "live volume"),
        ({"restore_type": "file"}, "selected_files"),
        ({"restore_type": "full", "selected_files": ["/etc"]}, "restores everything"),
        ({"restore_type": "full", "target_path": "srv/restore"}, "absolute"),
        ({"restore_type": "full", "agent_uuid": "00000000-0000-4000-8000-000000000000"}, "no such agent"),
    ],
)
def test_what_a_restore_cannot_be(tenant: Tenant, backup: dict[str, Any], body: dict[str, Any], says: str) -> None:
    answer = tenant.api("POST", f"/api/v1/machine-backups/{backup['uuid']}/restore", body)
    assert answer.status == 422 and says in answer.body["detail"]


def test_a_restore_to_another_agent(tenant: Tenant, backup: dict[str, Any]) -> None:
    other = enrolled(tenant, "spare-1")
    body = {"restore_type": "full", "target_path": "/srv/x", "agent_uuid": other.uuid}
    restore = tenant.api.ok("POST", f"/api/v1/machine-backups/{backup['uuid']}/restore", body)
    assert restore["agent_uuid"] == other.uuid and other.command("restore")["snapshot"] == "snap1"


def test_files_are_looked_up_through_the_agent(tenant: Tenant, host: Host, backup: dict[str, Any]) -> None:
    lines = b"".join(json.dumps({"path": f"/etc/{n}", "kind": "file", "bytes": n}).encode() + b"\n" for n in range(3))
    with beside() as submit:
        asked = submit(_fetch_now, tenant.api, f"/api/v1/machine-backups/{backup['uuid']}/files?path=/etc&limit=3")
        command = host.command("browse")
        assert (command["path"], command["snapshot"], command["limit"]) == ("/etc", "snap1", 3)
        assert waits(asked), "until the agent answers"
        assert send(host, command["exchange_uuid"], lines, "application/x-ndjson") == 204
        status, body, headers = asked.result(20)
    assert (status, body, headers["Content-Type"]) == (200, lines, "application/x-ndjson")


def _fetch_now(client: Client, path: str) -> tuple[int, bytes, dict[str, str]]:
    return asyncio.run(_fetch(client, path))


def test_a_download_is_a_stream_of_any_length(tenant: Tenant, host: Host, backup: dict[str, Any]) -> None:
    content = os.urandom(5 << 20)
    with beside() as submit:
        path = f"/api/v1/machine-backups/{backup['uuid']}/download?path=/etc&path=/var/www&format=tar"
        asked = submit(_fetch_now, tenant.api, path)
        command = host.command("download")
        assert (command["paths"], command["format"]) == (["/etc", "/var/www"], "tar")
        assert send(host, command["exchange_uuid"], content, "application/x-tar") == 204
        status, body, headers = asked.result(20)
    assert status == 200 and body == content and "backup.tar" in headers["Content-Disposition"]


def test_a_stream_that_breaks_off_does_not_look_whole(tenant: Tenant, host: Host, backup: dict[str, Any]) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        raise ConnectionResetError("the agent dies")

    with beside() as submit:
        asked = submit(_fetch_now, tenant.api, f"/api/v1/machine-backups/{backup['uuid']}/download?path=/etc")
        command = host.command("download")
        with pytest.raises((aiohttp.ClientError, ConnectionResetError)):
            asyncio.run(_send(host, command["exchange_uuid"], half(), "application/x-tar"))
        with pytest.raises(aiohttp.ClientError):
            asked.result(20)


def test_what_the_agent_could_not_do_is_told(tenant: Tenant, host: Host, backup: dict[str, Any]) -> None:
    problem = json.dumps({"status": 404, "detail": "there is no /nowhere in this snapshot"}).encode()
    with beside() as submit:
        asked = submit(_fetch_now, tenant.api, f"/api/v1/machine-backups/{backup['uuid']}/files?path=/nowhere")
        send(host, host.command("browse")["exchange_uuid"], problem, "application/problem+json")
        status, body, _ = asked.result(20)
    assert status == 404 and b"no /nowhere" in body


def test_an_exchange_is_for_the_agent_that_was_asked(tenant: Tenant, host: Host, backup: dict[str, Any]) -> None:
    other = enrolled(tenant, "curious")
    with beside() as submit:
        asked = submit(_fetch_now, tenant.api, f"/api/v1/machine-backups/{backup['uuid']}/files")
        exchange = host.command("browse")["exchange_uuid"]
        assert send(other, exchange, b"forged", "application/x-ndjson") == 410
        assert waits(asked)
        assert send(host, exchange, b"{}\n", "application/x-ndjson") == 204
        assert asked.result(20)[1] == b"{}\n"
    assert send(host, exchange, b"late", "application/x-ndjson") == 410
    assert send(host, str(uuid4()), b"never asked", "application/x-ndjson") == 410


def test_an_offline_agent_is_not_waited_for(tenant: Tenant, job: dict[str, Any]) -> None:
    sleeper = enrolled(tenant, "sleeper")
    back_up(sleeper, add_job(tenant, sleeper), "snap2")
    (backup,) = tenant.api.ok("GET", f"/api/v1/machine-backups?agent={sleeper.uuid}")["items"]
    tenant.api.ok("DELETE", f"/api/v1/agents/{sleeper.uuid}")
    answer = tenant.api("GET", f"/api/v1/machine-backups/{backup['uuid']}/files")
    assert answer.status == 409, "it made a backup, so it is revoked, and named as such"
    assert tenant.api.ok("GET", f"/api/v1/agents/{sleeper.uuid}")["status"] == "revoked"


def test_an_estimate_comes_from_the_agent(tenant: Tenant, host: Host, job: dict[str, Any]) -> None:
    with beside() as submit:
        asked = submit(tenant.api, "POST", f"/api/v1/backup-jobs/{job['uuid']}/estimate")
        command = host.command("estimate")
        assert command["job"]["source_paths"] == job["source_paths"]
        found = json.dumps({"files": 12, "bytes": 345, "bytes_new": 5, "seconds": 0.5}).encode()
        send(host, command["exchange_uuid"], found, "application/json")
        answer = asked.result(20)
    assert answer.status == 200 and (answer.body["files"], answer.body["bytes_new"]) == (12, 5)
