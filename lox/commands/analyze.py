"""``lox analyze``: questions to a whole repository. Each is `command` in lox/commands/analyze_<name>.py."""

from __future__ import annotations

from importlib import import_module

import click

from lox.settings import Group

# Name → what the help says; imported when it is used.
COMMANDS = {
    "space": "Show where space goes: by path, owner, extension, age, host or tag.",
    "churn": "Show in which folders content comes and goes.",
    "dedup": "Show where deduplication comes from.",
    "compressibility": "Show how well each kind of file compresses.",
    "forecast": "Forecast how many stored bytes there will be, and what a policy would leave.",
    "what-if": "Estimate what other chunk sizes would give.",
    "export": "Write the repository as Parquet files.",
}


class _LazyGroup(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"lox.commands.analyze_{cmd_name.replace('-', '_')}").command
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            raise click.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group("analyze", cls=_LazyGroup, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Ask where space goes, what changes, and what would help.

    Bytes are of three kinds that look alike: 'logical' ones are those of files as you see them, 'unique' what is left
    of them after deduplication, 'stored' what lies in the store, compressed and sealed.
    """
