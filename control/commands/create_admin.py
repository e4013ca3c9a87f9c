"""lox-server create-admin."""

from __future__ import annotations

import asyncio
import secrets
import sys
from typing import TYPE_CHECKING

import click
from pydantic import TypeAdapter, ValidationError

from control.cli import Options
from model.errors import UsageError
from model.wire.people import Email

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from control.auth.tables import UserRow
    from control.settings import ServerSettings


def password_from(stdin: bool) -> tuple[str, bool]:
    """The password of a person, from the first line of stdin or made by us; and whether it was made."""
    if stdin:
        return sys.stdin.readline().rstrip("\n"), False
    return secrets.token_urlsafe(18), True


def email_of(text: str) -> str:
    """An address in lower case. Raises UsageError."""
    try:
        return str(TypeAdapter(Email).validate_python(text))
    except ValidationError:
        raise UsageError("this is no address", subject=text, hint="write it as name@example.org") from None


@click.command("create-admin")
@click.argument("email")
@click.option("--tenant", metavar="NAME", default="Default", help="Its tenant, made if need be. [default: Default]")
@click.option("--superadmin", is_flag=True, help="Of no tenant: one who makes tenants.")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin; otherwise one is made and shown.")
@click.option("--token", "with_token", is_flag=True, help="Make and show an API token too, for 'lox login'.")
@click.pass_obj
def command(
    options: Options, email: str, tenant: str, superadmin: bool, password_stdin: bool, with_token: bool
) -> None:
    """Make an administrator, and a tenant for them."""
    if superadmin and with_token:
        raise click.UsageError("API tokens belong to a tenant: there is none with --superadmin")
    password, made = password_from(password_stdin)
    address = email_of(email)
    token = asyncio.run(_create(options.settings(), address, None if superadmin else tenant, password, with_token))
    where = "above all tenants" if superadmin else f"of tenant {tenant}"
    shown = {**({"password": password} if made else {}), **({"token": token} if token else {})}
    lines = [f"made {address}, administrator {where}", *(f"{name}: {value}" for name, value in shown.items())]
    lines += ["This is shown once."] if shown else []
    options.tell("\n".join(lines), email=address, tenant=None if superadmin else tenant, **shown)


async def _create(
    settings: ServerSettings, email: str, tenant: str | None, password: str, with_token: bool
) -> str | None:
    from sqlalchemy import select

    from control.api.problems import Invalid
    from control.audit import record
    from control.auth.passwords import Passwords
    from control.auth.tables import TenantRow, UserRow
    from control.db.migrate import migrate
    from control.db.opening import engine_of, transaction

    try:
        kept = await Passwords().hash(password)
    except Invalid as error:
        raise UsageError("this password cannot be used", why=error.detail) from None
    async with engine_of(settings) as engine:
        await migrate(engine)
    async with transaction(settings) as db:
        if await db.scalar(select(UserRow.uuid).where(UserRow.email == email)):
            raise UsageError("there is somebody of this address", subject=email, hint="see: lox-server reset-password")
        owner = None
        if tenant is not None:
            owner = await db.scalar(select(TenantRow).where(TenantRow.name == tenant))
            if owner is None:
                owner = TenantRow(name=tenant)
                db.add(owner)
                await db.flush()
        role = "admin" if owner else "superadmin"
        user = UserRow(tenant_id=owner.uuid if owner else None, email=email, role=role, password=kept)
        db.add(user)
        await db.flush()
        await record(db, user.tenant_id, None, "user.create", user.uuid, "local", {"email": email, "role": role})
        return await _token(db, user) if with_token else None


async def _token(db: AsyncSession, user: UserRow) -> str:
    """A token that may all that the administrator may."""
    from control.audit import record
    from control.auth.roles import ROLES
    from control.auth.secrets import API, make_secret
    from control.auth.tables import TokenRow
    from control.db.base import new_id

    assert user.tenant_id is not None
    secret, name, scopes = make_secret(API, new_id()), f"command line of {user.email}"[:200], sorted(ROLES["admin"])
    db.add(
        TokenRow(
            uuid=secret.uuid, tenant_id=user.tenant_id, name=name, scopes=scopes, secret_hash=secret.hash,
            made_by=user.uuid,
        )
    )  # fmt: skip
    await record(db, user.tenant_id, None, "token.create", secret.uuid, "local", {"name": name, "scopes": scopes})
    return secret.text
