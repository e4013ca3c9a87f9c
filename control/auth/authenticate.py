"""From a request to a principal."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from aiohttp import web
from sqlalchemy import update

from control.api.problems import Forbidden, Problem, Unauthenticated, Unknown
from control.auth.roles import ROLES, Principal
from control.auth.secrets import API, SESSION, Secret, parse_secret
from control.auth.tables import SessionRow, TenantRow, TokenRow, UserRow
from control.db.base import now
from control.services import Services

COOKIE, CSRF, TENANT = "__Host-lox_session", "Lox-Csrf", "Lox-Tenant"
USE_NOTED_EVERY = timedelta(minutes=1)
_SAFE = {"GET", "HEAD", "OPTIONS"}


async def principal_of(services: Services, request: web.Request) -> Principal:
    """Who asks. Raises Unauthenticated; Forbidden for a cookie without the header that only our own pages send."""
    text, cookie = _carried(request)
    secret = parse_secret(text)
    authenticator = services.authenticators.get(secret.kind) if secret else None
    if secret is None or authenticator is None or (cookie and secret.kind != SESSION):
        raise Unauthenticated
    principal = await authenticator(services, secret)
    if principal is None:
        raise Unauthenticated
    if cookie and request.method not in _SAFE and request.headers.get(CSRF) != "1":
        raise Forbidden(f"with a cookie, what changes something needs the header {CSRF}: 1")
    return principal


def _carried(request: web.Request) -> tuple[str, bool]:
    """The secret that came, and whether in a cookie."""
    given = request.headers.get("Authorization", "")
    if given[:7].lower() == "bearer ":
        return given[7:].strip(), False
    return request.cookies.get(COOKIE, ""), True


async def tenant_of(services: Services, principal: Principal | None, request: web.Request) -> UUID:
    """Within which tenant it acts. Raises Problem if one above tenants names none, Unknown if it is not there."""
    assert principal is not None
    given = request.headers.get(TENANT)
    if principal.tenant_id is not None:
        if given is not None and given != str(principal.tenant_id):
            raise Unknown("tenant")
        return principal.tenant_id
    if given is None:
        raise Problem(f"name a tenant in the header {TENANT}", status=422, kind="tenant-missing")
    try:
        wanted = UUID(given)
    except ValueError:
        raise Unknown("tenant") from None
    async with services.sessions() as db:
        if await db.get(TenantRow, wanted) is None:
            raise Unknown("tenant")
    return wanted


async def of_token(services: Services, secret: Secret) -> Principal | None:
    """The bearer of an API token."""
    async with services.sessions() as db:
        row = await db.get(TokenRow, secret.uuid)
        tenant = await db.get(TenantRow, row.tenant_id) if row else None
    if row is None or not secret.matches(row.secret_hash) or tenant is None or tenant.suspended:
        return None
    moment = now()
    if row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= moment):
        return None
    if row.last_used_at is None or moment - row.last_used_at > USE_NOTED_EVERY:
        async with services.sessions.begin() as db:
            await db.execute(update(TokenRow).where(TokenRow.uuid == row.uuid).values(last_used_at=moment))
    return Principal("token", row.uuid, row.name, row.tenant_id, frozenset(row.scopes))


async def of_session(services: Services, secret: Secret) -> Principal | None:
    """The person who logged in."""
    async with services.sessions() as db:
        row = await db.get(SessionRow, secret.uuid)
        user = await db.get(UserRow, row.user_uuid) if row else None
        tenant = await db.get(TenantRow, user.tenant_id) if user and user.tenant_id else None
    if row is None or user is None or not secret.matches(row.secret_hash) or row.expires_at <= now() or user.disabled:
        return None
    if user.tenant_id is not None and (tenant is None or tenant.suspended):
        return None
    return Principal("user", user.uuid, user.email, user.tenant_id, ROLES[user.role], row.uuid)


AUTHENTICATORS = {API: of_token, SESSION: of_session}
