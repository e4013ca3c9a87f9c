"""lox-server migrate."""

from __future__ import annotations

import asyncio

import click

from control.cli import Options


@click.command()
@click.pass_obj
def command(options: Options) -> None:
    """Bring the database to the form that this version needs.

    'run' does it by itself. All of it happens, or nothing.
    """
    from control.db.migrate import Forms, migrate
    from control.db.opening import engine_of

    async def work() -> Forms:
        async with engine_of(options.settings()) as engine:
            return await migrate(engine)

    before = asyncio.run(work())
    text = "nothing to do" if before.is_current else f"migrated from {before.found or 'nothing'} to {before.needed}"
    options.tell(text, before=before.found, now=before.needed)
