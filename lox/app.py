"""The command ``lox``: its list of commands, each imported when it is used."""

from __future__ import annotations

from typing import Any

import click

from lox import __version__
from lox.lazy import LazyGroup

# Name → what the help says. Each is `command` in lox/commands/<name>.py, so that `lox --help` imports none of them.
COMMANDS = {
    "init": "Create a repository.",
    "backup": "Back up files and folders into a new snapshot.",
    "snapshots": "List the snapshots.",
    "ls": "List what a snapshot holds.",
    "find": "Find files by name in all snapshots.",
    "diff": "Show what changed between two snapshots.",
    "why": "Explain why a file or folder is in a snapshot as it is.",
    "stats": "Show what the repository holds and saves.",
    "analyze": "Ask where space goes, what changes, and what would help.",
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
    "pipeline": "Show, check, explain, compare, tune and make pipeline profiles.",
    "key": "List, add, remove, change, test and rotate keys.",
    "store": "Find out what a store does, or copy a repository to another.",
    "login": "Remember a server and a token for it.",
    "logout": "Forget the token of a server.",
    "whoami": "Show who you are to a server, and what you may do there.",
    "agent": "List, add, install and remove agents of a server.",
    "job": "List, make, change, delete and run jobs of a server.",
    "repository": "List, add, change and remove repositories of a server.",
    "alert": "Show alerts of a server, and say who is told of them.",
    "restores": "Let agents of a server restore, and look at how it went.",
    "debug": "Tools for drills and tests.",
    "help": "Explain a topic.",
    "completion": "Print a completion script for your shell.",
    "version": "Print the version of the program and its parts.",
}

EPILOG = """\b
The repository is named by --repo or LOX_REPOSITORY. The password is taken from the
first of LOX_PASSWORD_FILE, LOX_PASSWORD_COMMAND, LOX_PASSWORD that is set, else
asked for. 'lox help' lists what else there is to read."""


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
        known=COMMANDS,
        prefix="lox.commands.",
        params=[version],
        help="LOX Backup: deduplicated, client-side encrypted backups that tell you what limits them.",
        epilog=EPILOG,
        context_settings=attributes,
        subcommand_metavar="COMMAND [ARGS]...",
    )
