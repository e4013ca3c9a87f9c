"""The command ``lox``: its list of commands, each imported when it is used."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from lox import __version__
from lox.settings import Group

# Name → what the help says. Each is `command` in lox/commands/<name>.py, so that `lox --help` imports none of them.
COMMANDS = {
    "init": "Create a repository.",
    "backup": "Back up files and folders into a new snapshot.",
    "snapshots": "List the snapshots.",
    "ls": "List what a snapshot holds.",
    "find": "Find files by name in all snapshots.",
    "diff": "Show what changed between two snapshots.",
    "stats": "Show what the repository holds and saves.",
    "restore": "Restore a snapshot or some of its files.",
    "copy": "Copy snapshots into another repository.",
    "dump": "Write a file, or a folder as an archive, to stdout.",
    "tag": "Add and remove tags of snapshots.",
    "comment": "Write a comment on a snapshot.",
    "pin": "Keep snapshots until a date or for ever, whatever a policy says.",
    "unpin": "Let policies decide about pinned or held snapshots again.",
    "forget": "Move snapshots to the trash, by a policy or by name.",
    "undelete": "Bring forgotten snapshots back from the trash.",
    "prune": "Give back the room of what no snapshot needs.",
    "check": "Verify that everything stored is there and intact.",
    "repair": "Make a damaged repository usable again.",
    "runs": "List what ran on this host, the newest last.",
    "run": "Show what one run did, or how two differ.",
    "top": "Show what runs now, and what limits it.",
    "plan": "Show the graph of stages of a backup, a restore or a copy.",
    "key": "List, add, remove, change, test and rotate keys.",
    "store": "Find out what a store does, or copy a repository to another.",
    "bench": "Measure what this host can do at best, stage by stage.",
    "debug": "Tools for drills and tests.",
    "help": "Explain a topic.",
    "completion": "Print a completion script for your shell.",
    "version": "Print the version of the program and its parts.",
}

EPILOG = """\b
The repository is named by --repo or LOX_REPOSITORY. The password is taken from the
first of LOX_PASSWORD_FILE, LOX_PASSWORD_COMMAND, LOX_PASSWORD that is set, else
asked for. 'lox help' lists what else there is to read."""


class LazyGroup(Group):
    """Commands by name, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"lox.commands.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            # The base class looks for similar names among commands it has imported: none of ours.
            raise click.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"lox {__version__}")
        ctx.exit()


def build() -> LazyGroup:
    """The root command."""
    version = click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_print_version,
        help="Print the version.",
    )
    attributes: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
    return LazyGroup(
        "lox",
        params=[version],
        help="LOX Backup: deduplicated, client-side encrypted backups that tell you what limits them.",
        epilog=EPILOG,
        context_settings=attributes,
        subcommand_metavar="COMMAND [ARGS]...",
    )
