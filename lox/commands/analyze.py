"""``lox analyze``: questions to a whole repository. Each is `command` in lox/commands/analyze_<name>.py."""

from __future__ import annotations

import click

from lox.lazy import LazyGroup

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


@click.group(
    "analyze", cls=LazyGroup, known=COMMANDS, prefix="lox.commands.analyze_", subcommand_metavar="COMMAND [ARGS]..."
)
def command() -> None:
    """Ask where space goes, what changes, and what would help.

    Bytes are of three kinds that look alike: 'logical' ones are those of files as you see them, 'unique' what is left
    of them after deduplication, 'stored' what lies in the store, compressed and sealed.
    """
