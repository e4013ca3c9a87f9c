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
@click.pass_obj
def command(options: Options, email: str, tenant: str, superadmin: bool, password_stdin: bool) -> None:
    """Make an administrator, and a tenant for them."""
    password, made = password_from(password_stdin)
    address = email_of(email)
    asyncio.run(_create(options.settings(), address, None if superadmin else tenant, password))
    where = "above all tenants" if superadmin else f"of tenant {tenant}"
    shown = f"\npassword: {password}\nIt is shown once." if made else ""
    fields: dict[str, object] = {"email": address, "tenant": None if superadmin else tenant}
    options.tell(f"made {address}, administrator {where}{shown}", **fields, **({"password": password} if made else {}))


async def _create(settings: ServerSettings, email: str, tenant: str | None, password: str) -> None:
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
