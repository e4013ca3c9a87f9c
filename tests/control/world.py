"""One of everything in a tenant: what the parameters of paths, and fields that name objects, can be filled with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

from tests.control.hosts import Host, add_job, add_repository, back_up, enrolled, registration
from tests.control.servers import PASSWORD, Client, Tenant

SELECTED = {"restore_type": "file", "target_path": "/srv/restore", "selected_files": ["/etc/nginx/nginx.conf"]}


@dataclass(frozen=True)
class World:
    """`ids`: an object of this tenant for each parameter."""

    tenant: Tenant
    host: Host
    ids: Mapping[str, str]


def make_world(tenant: Tenant) -> World:
    """Makes them, through the API."""
    api, mark = tenant.api, uuid4().hex[:12]
    repository = add_repository(tenant)
    host = enrolled(tenant, f"host-{mark}.example.com")
    job = add_job(tenant, host, name=f"job {mark}")
    run = back_up(host, job, f"snapshot{mark}")
    (backup,) = [one for one in api.ok("GET", "/api/v1/machine-backups")["items"] if one["run_uuid"] == run]
    restore = api.ok("POST", f"/api/v1/machine-backups/{backup['uuid']}/restore", SELECTED)
    thief = registration(host.agent, machine_id="another-machine")
    refused = Client(api.server)("POST", "/api/v1/agent/register", thief)
    assert refused.status == 401, refused.body
    target = {"name": mark, "webhook": {"url": "https://localhost:9/none"}, "enabled": False}
    user = {"email": f"{mark}@example.org", "role": "viewer", "password": PASSWORD}
    return World(
        tenant,
        host,
        {
            "agent_uuid": host.uuid,
            "repository_uuid": repository["uuid"],
            "maintenance_agent_uuid": host.uuid,
            "job_uuid": job["uuid"],
            "run_uuid": run,
            "backup_uuid": backup["uuid"],
            "restore_uuid": restore["uuid"],
            "alert_uuid": api.ok("GET", "/api/v1/alerts")["items"][0]["uuid"],
            "target_uuid": api.ok("POST", "/api/v1/alert-targets", target)["uuid"],
            "user_uuid": api.ok("POST", "/api/v1/users", user)["uuid"],
            "token_uuid": api.ok("POST", "/api/v1/api-tokens", {"name": mark, "scopes": ["runs:read"]})["uuid"],
            "tenant_uuid": str(tenant.uuid),
            "exchange_uuid": str(uuid4()),
            "name": f"packs/{mark}",
        },
    )
