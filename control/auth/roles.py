"""What a principal may do: scopes, and the roles that are sets of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

SCOPES: Final = {
    "agents:read": "see agents",
    "agents:write": "add, change and remove agents, rotate their credentials",
    "jobs:read": "see jobs",
    "jobs:write": "make, change and remove jobs",
    "jobs:run": "run and cancel jobs",
    "runs:read": "see runs, backups and what they tell",
    "restores:write": "restore and download from backups",
    "repositories:read": "see repositories",
    "repositories:write": "add, change and remove repositories",
    "vault:get": "read what repositories in the vault hold",
    "vault:put": "add to repositories in the vault",
    "vault:delete": "delete from repositories in the vault",
    "alerts:read": "see alerts",
    "alerts:write": "acknowledge alerts, say whom to tell",
    "tokens:write": "make and revoke API tokens of one's own tenant",
    "users:write": "add, change and remove people of one's own tenant",
    "audit:read": "read the audit log",
    "tenants:write": "make, change and suspend tenants",
}

_READ = {scope for scope in SCOPES if scope.endswith(":read")} - {"audit:read"}
_OPERATE = _READ | {"agents:write", "jobs:write", "jobs:run", "restores:write", "alerts:write"}
_ADMINISTER = set(SCOPES) - {"tenants:write"}

ROLES: Final[dict[str, frozenset[str]]] = {
    "viewer": frozenset(_READ),
    "operator": frozenset(_OPERATE),
    "admin": frozenset(_ADMINISTER),
    "superadmin": frozenset(SCOPES),
}
AGENT_SCOPES: Final = frozenset({"vault:get", "vault:put", "vault:delete"})
"""What an agent may besides the routes for agents; it deletes only where it is the maintenance agent."""
TENANT_ROLES: Final = ("viewer", "operator", "admin")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `kind` is user, token or agent; `tenant_id` is None for those who stand above tenants."""

    kind: str
    uuid: UUID
    name: str
    tenant_id: UUID | None
    scopes: frozenset[str]
    session: UUID | None = None

    def may(self, scope: str) -> bool:
        """Whether `scope` is among what this principal may."""
        return scope in self.scopes
