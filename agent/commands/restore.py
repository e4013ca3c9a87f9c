"""``lox-agent restore``."""

from __future__ import annotations

import os

import click

from agent.app import Settings
from agent.commands.browse import hand_over
from model.errors import UsageError


@click.command("restore")
@click.argument("job")
@click.argument("snapshot", metavar="[SNAP]", default="latest")
@click.argument("paths", metavar="[PATH]...", nargs=-1)
@click.option("--target", "-t", metavar="DIR", help="Restore below this folder.")
@click.option("--in-place", is_flag=True, help="Restore to where the files came from.")
@click.option("--overwrite", type=click.Choice(["always", "if-changed", "if-newer", "never"]), default="if-changed",
              show_default=True, help="What to do with files that exist.")  # fmt: skip
@click.option("--dry-run", "-n", is_flag=True, help="Show what would be done, change nothing.")
@click.pass_obj
def command(
    settings: Settings, job: str, snapshot: str, paths: tuple[str, ...], target: str | None, in_place: bool,
    overwrite: str, dry_run: bool,
) -> None:  # fmt: skip
    """Restore from a backup of a job of this host.

    JOB is the name or the id of a job; SNAP an id as 'lox-agent browse JOB' shows it, or 'latest'. No server is needed,
    and whoever may read the agent's key may restore to anywhere: this is 'lox restore' with the job's repository.
    """
    if in_place == (target is not None):
        raise UsageError("where to restore?", hint="name --target DIR, or --in-place to put files where they came from")
    where = ["--in-place"] if target is None else ["--target", os.path.abspath(target)]
    line = ["restore", "--overwrite", overwrite, *where, *(["--dry-run"] if dry_run else [])]
    hand_over(settings, job, lambda chosen: [*line, "--", chosen, *paths], snapshot)
