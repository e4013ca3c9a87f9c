"""lox-server reset-password."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from control.cli import Options
from control.commands.create_admin import email_of, password_from
from model.errors import UsageError

if TYPE_CHECKING:
    from control.settings import ServerSettings


@click.command("reset-password")
@click.argument("email")
@click.option("--password-stdin", is_flag=True, help="Read the password from stdin; otherwise one is made and shown.")
@click.pass_obj
def command(options: Options, email: str, password_stdin: bool) -> None:
    """Give a person a new password.

    Their sessions end, and they may log in again if they were locked out.
    """
    password, made = password_from(password_stdin)
    address = email_of(email)
    asyncio.run(_reset(options.settings(), address, password))
    shown = f"\npassword: {password}\nIt is shown once." if made else ""
    options.tell(f"new password for {address}{shown}", email=address, **({"password": password} if made else {}))


async def _reset(settings: ServerSettings, email: str, password: str) -> None:
    from sqlalchemy import delete, select

    from control.api.problems import Invalid
    from control.audit import record
    from control.auth.passwords import Passwords
    from control.auth.tables import SessionRow, UserRow
    from control.db.opening import transaction

    try:
        kept = await Passwords().hash(password)
    except Invalid as error:
        raise UsageError("this password cannot be used", why=error.detail) from None
    async with transaction(settings) as db:
        user = await db.scalar(select(UserRow).where(UserRow.email == email))
        if user is None:
            raise UsageError("there is nobody of this address", subject=email)
        user.password, user.disabled = kept, False
        await db.execute(delete(SessionRow).where(SessionRow.user_uuid == user.uuid))
        await record(db, user.tenant_id, None, "user.password", user.uuid, "local", {"email": email})
