"""``lox pipeline``: the profiles of backups, restores and copies."""

from __future__ import annotations

from lox.lazy import LazyGroup

COMMANDS = {
    "list": "List the profiles that have names.",
    "show": "Show a profile as it is written, or every value with where it comes from.",
    "validate": "Check profiles: each fault with file, line and column.",
    "explain": "Explain what a profile comes to on this host.",
    "graph": "Draw the graph of stages of a backup, a restore or a copy.",
    "diff": "Show in which values two profiles differ.",
    "bench": "Measure what each stage costs on this host, and keep it for explain.",
    "tune": "Find out by real backups which settings of a profile are fastest for these files on this host.",
    "schema": "Print the JSON Schema of profiles, for editors.",
    "new": "Make a profile of your own from another one.",
}

command = LazyGroup(
    "pipeline",
    known=COMMANDS,
    prefix="lox.commands.pipeline_",
    help="""Show, check, explain, compare, tune and make pipeline profiles.

    A profile says how a backup, a restore or a copy is run: with how many lanes and how much memory, how hard it
    compresses, what it does about files it cannot read. 'lox help configuration' explains every key.""",
    subcommand_metavar="COMMAND [ARGS]...",
)
