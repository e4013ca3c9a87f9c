"""Repositories that are removed: at once for whoever uses them, for good only some days later."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4

import pytest

from control.vault.vault import Vault
from repository.store import open_store
from tests.control.hosts import Host, add_job, add_repository, back_up, enrolled
from tests.control.servers import RunningServer, Tenant, make_tenant, running


def fill(server: RunningServer, host: Host, repository: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts objects into a repository of the vault, as an agent does."""
    token = server.data_dir / f"credential-{host.uuid}"
    token.write_text(host.credential)
    monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(token))
    monkeypatch.setenv("LOX_VAULT_CA_FILE", str(server.ca))
    store = open_store(f"lox+https://127.0.0.1:{server.port}/{repository}")
    for number in range(5):
        store.put(f"packs/{number:02}", [os.urandom(1000)])


def folder(server: RunningServer, tenant: Tenant, repository: str) -> Path:
    return server.data_dir / "vault" / str(tenant.uuid) / repository


def test_what_is_in_use_is_not_removed_unless_told(tenant: Tenant) -> None:
    api, host, repository = tenant.api, enrolled(tenant, f"host-{uuid4().hex[:8]}"), add_repository(tenant)
    job, path = add_job(tenant, host), f"/api/v1/repositories/{repository['uuid']}"
    assert job["repository_uuid"] is None, "its data goes to the default"
    refused = api("DELETE", path)
    assert refused.status == 409 and job["name"] in refused.body["detail"] and "force" in refused.body["hint"]
    back_up(host, job, f"snapshot{uuid4().hex[:8]}")
    assert api.ok("GET", f"/api/v1/machine-backups?repository={repository['uuid']}")["items"]
    api.ok("DELETE", path + "?force=true")
    assert api.ok("GET", f"/api/v1/backup-jobs/{job['uuid']}")["enabled"] is False, "it would have nowhere to go"
    assert host.policy()["jobs"] == [] and host.policy()["repositories"] == []
    assert api.ok("GET", f"/api/v1/machine-backups?repository={repository['uuid']}")["items"] == []
    newest = api.ok("GET", "/api/v1/audit?limit=1")["items"][0]
    assert (newest["action"], newest["details"]["backups"]) == ("repository.delete", 1)


def test_a_removed_repository_is_nowhere_and_can_be_brought_back(
    server: RunningServer, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    api, host = tenant.api, enrolled(tenant, f"host-{uuid4().hex[:8]}")
    repository = add_repository(tenant, url=None, vault=True)["uuid"]
    job = add_job(tenant, host, repository_uuid=repository)
    back_up(host, job, f"snapshot{uuid4().hex[:8]}")
    fill(server, host, repository, monkeypatch)
    api.ok("DELETE", f"/api/v1/repositories/{repository}?force=true")
    objects = f"/api/v1/vault/{repository}/objects"
    assert [api("GET", path).status for path in (f"/api/v1/repositories/{repository}", objects)] == [404, 404]
    (shown,) = [one for one in api.ok("GET", "/api/v1/repositories?removed=true")["items"] if one["uuid"] == repository]
    assert shown["purged_after"] > shown["removed_at"]
    api.ok("POST", f"/api/v1/repositories/{repository}/recover")
    assert len(api.ok("GET", objects)["items"]) == 5
    assert api.ok("GET", f"/api/v1/machine-backups?repository={repository}")["items"]
    assert api("POST", f"/api/v1/repositories/{repository}/recover").status == 409


@pytest.mark.slow
def test_after_its_days_the_room_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path, LOX_SERVER_REMOVED_DAYS="0") as server:
        tenant = make_tenant(server, "Alpha")
        api, host = tenant.api, enrolled(tenant)
        gone, kept = (add_repository(tenant, url=None, vault=True)["uuid"] for _ in range(2))
        for repository in (gone, kept):
            fill(server, host, repository, monkeypatch)
        back_up(host, add_job(tenant, host, repository_uuid=gone), "snapshot1")
        api.ok("DELETE", f"/api/v1/repositories/{gone}?force=true")
        assert folder(server, tenant, gone).exists()
        server.stop()
        server.start()  # it looks when it begins, and every minute
        end = time.monotonic() + 60
        while api.ok("GET", "/api/v1/repositories?removed=true")["items"] and time.monotonic() < end:
            time.sleep(0.1)
        assert not folder(server, tenant, gone).exists()
        assert list((server.data_dir / "vault" / ".removed").iterdir()) == []
        assert len(api.ok("GET", f"/api/v1/vault/{kept}/objects")["items"]) == 5
        assert api("POST", f"/api/v1/repositories/{gone}/recover").status == 404
        newest = api.ok("GET", "/api/v1/audit?limit=1")["items"][0]
        assert newest["action"] == "repository.purge" and newest["actor_kind"] == "nobody"
        assert (newest["details"]["backups"], newest["details"]["bytes"] >= 5000) == (1, True)


def test_deleting_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    vault, tenant, repository = Vault(str(tmp_path)), uuid4(), uuid4()
    shelf = vault.shelf(tenant, repository, None)
    for number in range(25):
        shelf.objects.put(f"packs/{number % 3}/{number}", [b"x" * 100])
    shelf.objects.put("config", [b"y"])
    size, more = vault.give_up(tenant, repository, most=7)
    assert more and size < 2501 and not (tmp_path / str(tenant) / str(repository)).exists()
    again, total = Vault(str(tmp_path)), size
    while more:
        size, more = again.give_up(tenant, repository, most=7)
        total += size
    assert total == 2501 and list((tmp_path / ".removed").iterdir()) == []
    again.tidy()
    assert again.give_up(tenant, repository) == (0, False), "once more is harmless"


def test_who_maintains_a_repository_hears_of_it(tenant: Tenant) -> None:
    first, second = (enrolled(tenant, f"host-{uuid4().hex[:8]}") for _ in range(2))
    made = add_repository(tenant, default=False, maintenance_agent_uuid=first.uuid)
    told = [[one["uuid"] for one in host.policy()["repositories"] if one["maintenance"]] for host in (first, second)]
    assert told == [[made["uuid"]], []]
    before = [host.policy()["revision"] for host in (first, second)]
    tenant.api.ok("PATCH", f"/api/v1/repositories/{made['uuid']}", {"maintenance_agent_uuid": second.uuid})
    assert [host.policy()["revision"] for host in (first, second)] == [revision + 1 for revision in before]
