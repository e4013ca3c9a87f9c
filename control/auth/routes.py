"""Routes of people: log in and out, tenants, users, API tokens."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.call import Call
from control.api.problems import Conflict, Forbidden, Invalid, Problem, Unauthenticated, Unknown
from control.api.routes import NOBODY, Routes
from control.audit import record
from control.auth.authenticate import COOKIE
from control.auth.roles import ROLES, SCOPES, Principal
from control.auth.secrets import API, SESSION, make_secret
from control.auth.tables import SessionRow, TenantRow, TokenRow, UserRow
from control.db.base import new_id, now
from control.pages import ListQuery, page
from model.wire.base import Page
from model.wire.people import (
    LoginIn,
    Me,
    NewToken,
    PasswordIn,
    Tenant,
    TenantIn,
    TenantPatch,
    Token,
    TokenIn,
    User,
    UserIn,
    UserPatch,
)  # fmt: skip

routes = Routes()
USER = frozenset({"user"})
Shown = TypeVar("Shown", bound=BaseModel)
SESSIONS_MAX = 20  # of one person; the oldest give way


@routes.add(
    "POST", "/api/v1/auth/login", principals=NOBODY, body=LoginIn, returns={200: Me}, limit="login", secret=True,
    example={"email": "admin@example.org", "password": "correct horse battery"},
)  # fmt: skip
async def login(call: Call) -> web.Response:
    """Log in with a password; the answer sets a cookie"""
    given, services = call.body(LoginIn), call.services
    services.limits.take("login", given.email)
    async with call.reading() as db:
        user = await db.scalar(select(UserRow).where(UserRow.email == given.email))
    kept = user.password if user is not None and not user.disabled else None
    if not await services.passwords.verify(given.password.get_secret_value(), kept) or user is None:
        async with services.sessions.begin() as db:
            tenant, subject = (user.tenant_id, user.uuid) if user else (None, None)
            await record(db, tenant, None, "login.refused", subject, call.remote, {"email": given.email})
        raise Unauthenticated("wrong address or password")
    secret, ends = make_secret(SESSION, new_id()), now() + timedelta(hours=services.settings.session_hours)
    me = Principal("user", user.uuid, user.email, user.tenant_id, ROLES[user.role], secret.uuid)
    async with services.sessions.begin() as db:
        await _drop_old_sessions(db, user.uuid)
        db.add(SessionRow(uuid=secret.uuid, user_uuid=user.uuid, secret_hash=secret.hash, expires_at=ends))
        found = await db.get(UserRow, user.uuid)
        if found is not None:
            found.last_login_at = now()
        await record(db, user.tenant_id, me, "login", user.uuid, call.remote)
    answer = web.Response(text=_me(me).model_copy(update={"session_expires_at": ends}).model_dump_json())
    answer.content_type = "application/json"
    age = services.settings.session_hours * 3600
    answer.set_cookie(COOKIE, secret.text, max_age=age, path="/", secure=True, httponly=True, samesite="Strict")
    return answer


async def _drop_old_sessions(db: AsyncSession, user: UUID) -> None:
    await db.execute(delete(SessionRow).where(SessionRow.expires_at <= now()))
    mine = select(SessionRow.uuid).where(SessionRow.user_uuid == user).order_by(SessionRow.uuid.desc())
    for uuid in (await db.scalars(mine.offset(SESSIONS_MAX - 1))).all():
        await db.execute(delete(SessionRow).where(SessionRow.uuid == uuid))


@routes.add("POST", "/api/v1/auth/logout", principals=USER, tenant=False)
async def logout(call: Call) -> web.Response:
    """Log out"""
    async with call.transaction() as db:
        await db.execute(delete(SessionRow).where(SessionRow.uuid == call.principal.session))
    answer = web.Response(status=204)
    answer.del_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="Strict")
    return answer


@routes.add("GET", "/api/v1/auth/me", returns={200: Me}, tenant=False)
async def me(call: Call) -> Me:
    """Who I am and what I may"""
    return _me(call.principal)


def _me(who: Principal) -> Me:
    return Me(kind=who.kind, uuid=who.uuid, name=who.name, tenant_uuid=who.tenant_id, scopes=sorted(who.scopes))


@routes.add(
    "POST", "/api/v1/auth/password", principals=USER, tenant=False, body=PasswordIn, limit="login", secret=True,
    example={"old": "correct horse battery", "new": "staple correct horse"},
)  # fmt: skip
async def change_password(call: Call) -> None:
    """Change one's own password; other sessions end"""
    given, passwords = call.body(PasswordIn), call.services.passwords
    async with call.reading() as db:
        user = await db.get(UserRow, call.principal.uuid)
    if user is None or not await passwords.verify(given.old.get_secret_value(), user.password):
        raise Invalid("old", "this is not your password")
    made = await passwords.hash(given.new.get_secret_value())
    async with call.services.sessions.begin() as db:
        found = await db.get_one(UserRow, user.uuid)
        found.password = made
        others = (SessionRow.user_uuid == user.uuid) & (SessionRow.uuid != call.principal.session)
        await db.execute(delete(SessionRow).where(others))
        await record(db, user.tenant_id, call.principal, "user.password", user.uuid, call.remote)


@routes.add(
    "POST", "/api/v1/tenants", scope="tenants:write", tenant=False, body=TenantIn, returns={201: Tenant},
    example={"name": "Example"}, audit="tenant.create",
)  # fmt: skip
async def create_tenant(call: Call) -> Tenant:
    """Make a tenant"""
    async with call.transaction() as db:
        row = TenantRow(name=call.body(TenantIn).name)
        if await db.scalar(select(TenantRow.uuid).where(TenantRow.name == row.name)):
            raise Conflict("there is a tenant of this name")
        db.add(row)
        await db.flush()
        call.subject = row.uuid
    return Tenant.model_validate(row, from_attributes=True)


@routes.add("GET", "/api/v1/tenants", scope="tenants:write", tenant=False, query=ListQuery, returns={200: Page[Tenant]})
async def list_tenants(call: Call) -> Page[Tenant]:
    """List tenants"""
    async with call.reading() as db:
        order = (TenantRow.created_at, TenantRow.uuid)
        return await page(db, select(TenantRow), order, call.query(ListQuery), Page[Tenant], _shown(Tenant))


@routes.add(
    "PATCH", "/api/v1/tenants/{tenant_uuid}", scope="tenants:write", tenant=False, body=TenantPatch,
    returns={200: Tenant}, example={"suspended": True}, audit="tenant.change",
)  # fmt: skip
async def change_tenant(call: Call) -> Tenant:
    """Rename or suspend a tenant"""
    given = call.body(TenantPatch)
    async with call.transaction() as db:
        row = await db.get(TenantRow, call.uuid("tenant_uuid"))
        if row is None:
            raise Unknown("tenant")
        _apply(row, given.model_dump(exclude_none=True))
        call.details = given.model_dump(exclude_none=True)
    return Tenant.model_validate(row, from_attributes=True)


@routes.add(
    "POST", "/api/v1/users", scope="users:write", body=UserIn, returns={201: User}, audit="user.create",
    example={"email": "operator@example.org", "role": "operator", "password": "correct horse battery"},
)  # fmt: skip
async def create_user(call: Call) -> User:
    """Add a person"""
    given = call.body(UserIn)
    _allow_role(call, given.role)
    made = await call.services.passwords.hash(given.password.get_secret_value())
    async with call.transaction() as db:
        if await db.scalar(select(UserRow.uuid).where(UserRow.email == given.email)):
            raise Conflict("this address is taken")
        row = UserRow(tenant_id=call.tenant, email=given.email, role=given.role, password=made)
        db.add(row)
        await db.flush()
        call.subject, call.details = row.uuid, {"email": row.email, "role": row.role}
    return User.model_validate(row, from_attributes=True)


@routes.add("GET", "/api/v1/users", scope="users:write", query=ListQuery, returns={200: Page[User]})
async def list_users(call: Call) -> Page[User]:
    """List people"""
    async with call.reading() as db:
        query = select(UserRow).where(UserRow.tenant_id == call.tenant)
        order = (UserRow.created_at, UserRow.uuid)
        return await page(db, query, order, call.query(ListQuery), Page[User], _shown(User))


@routes.add(
    "PATCH", "/api/v1/users/{user_uuid}", scope="users:write", body=UserPatch, returns={200: User},
    example={"role": "viewer"}, audit="user.change",
)  # fmt: skip
async def change_user(call: Call) -> User:
    """Change a person's role or password, or lock them out; their sessions end"""
    given = call.body(UserPatch)
    changes = given.model_dump(exclude_none=True, exclude={"password"})
    made = await call.services.passwords.hash(given.password.get_secret_value()) if given.password else None
    async with call.transaction() as db:
        row = await _user(db, call)
        for role in (row.role, given.role or row.role):
            _allow_role(call, role)
        if row.role == "admin" and (changes.get("role", "admin") != "admin" or changes.get("disabled")):
            await _keep_an_admin(db, row)
        _apply(row, changes | ({"password": made} if made else {}))
        await db.execute(delete(SessionRow).where(SessionRow.user_uuid == row.uuid))
        call.details = changes | ({"password": "changed"} if made else {})
    return User.model_validate(row, from_attributes=True)


@routes.add("DELETE", "/api/v1/users/{user_uuid}", scope="users:write", audit="user.delete")
async def delete_user(call: Call) -> None:
    """Remove a person"""
    async with call.transaction() as db:
        row = await _user(db, call)
        _allow_role(call, row.role)
        if row.role == "admin":
            await _keep_an_admin(db, row)
        call.details = {"email": row.email}
        await db.delete(row)


async def _user(db: AsyncSession, call: Call) -> UserRow:
    row = await db.get(UserRow, call.uuid("user_uuid"))
    if row is None or row.tenant_id != call.tenant:
        raise Unknown("user")
    return row


def _allow_role(call: Call, role: str) -> None:
    """Nobody makes, or takes over, somebody who may more than they do."""
    missing = sorted(scope for scope in ROLES[role] if not call.principal.may(scope))
    if missing:
        raise Forbidden(f"you do not hold {missing[0]} yourself, which the role {role} has")


async def _keep_an_admin(db: AsyncSession, row: UserRow) -> None:
    await db.execute(select(TenantRow.uuid).where(TenantRow.uuid == row.tenant_id).with_for_update())  # one at a time
    others = (UserRow.tenant_id == row.tenant_id) & (UserRow.role == "admin") & (UserRow.uuid != row.uuid)
    if not await db.scalar(select(func.count()).select_from(UserRow).where(others & ~UserRow.disabled)):
        raise Conflict("this is the last administrator of the tenant")


@routes.add(
    "POST", "/api/v1/api-tokens", scope="tokens:write", body=TokenIn, returns={201: NewToken}, secret=True,
    example={"name": "grafana", "scopes": ["runs:read"]}, audit="token.create",
)  # fmt: skip
async def create_token(call: Call) -> NewToken:
    """Make an API token; its secret is shown once"""
    given = call.body(TokenIn)
    for number, scope in enumerate(given.scopes):
        if scope not in SCOPES:
            raise Invalid(f"scopes/{number}", f"there is no scope {scope!r}", "there are " + ", ".join(SCOPES))
        if not call.principal.may(scope):
            raise Forbidden(f"you do not hold {scope} yourself")
    if given.expires_at is not None and given.expires_at <= now():
        raise Invalid("expires_at", "this is in the past")
    secret = make_secret(API, new_id())
    async with call.transaction() as db:
        if await db.scalar(select(TokenRow.uuid).where(TokenRow.tenant_id == call.tenant, TokenRow.name == given.name)):
            raise Conflict("there is a token of this name")
        row = TokenRow(
            uuid=secret.uuid, tenant_id=call.tenant, name=given.name, scopes=sorted(set(given.scopes)),
            secret_hash=secret.hash, made_by=call.principal.uuid, expires_at=given.expires_at,
        )  # fmt: skip
        db.add(row)
        await db.flush()
        call.subject, call.details = row.uuid, {"name": row.name, "scopes": row.scopes}
    return NewToken(**Token.model_validate(row, from_attributes=True).model_dump(), token=secret.text)


@routes.add("GET", "/api/v1/api-tokens", scope="tokens:write", query=ListQuery, returns={200: Page[Token]})
async def list_tokens(call: Call) -> Page[Token]:
    """List API tokens"""
    async with call.reading() as db:
        query = select(TokenRow).where(TokenRow.tenant_id == call.tenant)
        order = (TokenRow.created_at, TokenRow.uuid)
        return await page(db, query, order, call.query(ListQuery), Page[Token], _shown(Token))


@routes.add("DELETE", "/api/v1/api-tokens/{token_uuid}", scope="tokens:write", audit="token.revoke")
async def revoke_token(call: Call) -> None:
    """Revoke an API token"""
    async with call.transaction() as db:
        row = await db.get(TokenRow, call.uuid("token_uuid"))
        if row is None or row.tenant_id != call.tenant:
            raise Unknown("token")
        if row.revoked_at is None:
            row.revoked_at = now()


def _shown(model: type[Shown]) -> Callable[[object], Shown]:
    return partial(model.model_validate, from_attributes=True)


def _apply(row: object, changes: dict[str, object]) -> None:
    if not changes:
        raise Problem("this changes nothing", status=422, kind="invalid")
    for name, value in changes.items():
        setattr(row, name, value)
