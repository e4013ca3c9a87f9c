"""lox-server check."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from control.cli import Options
from model.exits import ExitCode

if TYPE_CHECKING:
    from control.audit import Verdict
    from control.settings import ServerSettings


@click.command()
@click.pass_obj
def command(options: Options) -> int:
    """Check settings, database, certificate, audit log and secrets.

    Tells the newest hash of each audit log: noted elsewhere, it shows later whether rows were taken out or changed.
    """
    from control import tls

    settings = options.settings()
    verdicts = asyncio.run(_verdicts(settings))
    files = tls.certificates(settings)
    tls.server_context(files)
    shown = tls.fingerprint(files.authority or files.certificate)
    options.tell(f"url: {settings.url}", what="settings", url=settings.url)
    kind = "authority" if files.authority else "certificate"
    options.tell(f"{kind}: {files.authority or files.certificate}, sha256:{shown}", what=kind, sha256=shown)
    for name, verdict in verdicts.items():
        fields = {"what": "audit", "tenant": name, "rows": verdict.rows, "head": verdict.head.hex()}
        state = "intact" if verdict.broken is None else f"BROKEN at row {verdict.broken}: {verdict.why}"
        options.tell(
            f"audit of {name}: {verdict.rows} rows, {state}, head {verdict.head.hex()}",
            **fields, intact=verdict.broken is None, why=verdict.why,
        )  # fmt: skip
    targets, closed = asyncio.run(_targets(settings))
    state = f"the secrets of {closed} cannot be opened, give them again" if closed else "their secrets can be opened"
    options.tell(f"alert targets: {targets}; {state}", what="alert targets", targets=targets, closed=closed)
    broken = closed > 0 or any(verdict.broken is not None for verdict in verdicts.values())
    return ExitCode.DAMAGE_FOUND if broken else ExitCode.OK


async def _targets(settings: ServerSettings) -> tuple[int, int]:
    """How many alert targets there are, and how many have secrets that the server's key does not open."""
    from sqlalchemy import select

    from control.alerts.tables import AlertTargetRow
    from control.alerts.targets import about
    from control.db.opening import transaction
    from control.sealing import Sealer
    from model.errors import ConfigError

    sealer, count, closed = Sealer(settings.data_dir), 0, 0
    async with transaction(settings) as db:
        for row in await db.scalars(select(AlertTargetRow)):
            count += 1
            try:
                sealer.open(about(row), row.sealed)
            except ConfigError:
                closed += 1
    return count, closed


async def _verdicts(settings: ServerSettings) -> dict[str, Verdict]:
    from sqlalchemy import select

    from control.audit import verify
    from control.auth.tables import TenantRow
    from control.db.opening import transaction

    async with transaction(settings) as db:
        found = {"the server": await verify(db, None)}
        for tenant in (await db.scalars(select(TenantRow).order_by(TenantRow.uuid))).all():
            found[f"tenant {tenant.name}"] = await verify(db, tenant.uuid)
    return found
