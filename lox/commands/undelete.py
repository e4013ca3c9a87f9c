"""``lox undelete``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lox.contents import ID_SHOWN, tell_unreadable
from lox.escape import safe, shown
from lox.opening import open_repository
from lox.output import Output, output_of, table
from lox.settings import command as command_of
from lox.settings import option
from lox.units import format_time, plural, rfc3339
from model.errors import UsageError
from model.exits import ExitCode

if TYPE_CHECKING:
    from model.errors import LoxError
    from repository.repository import Repository
    from repository.trash import Trashed


@command_of("undelete")
@click.argument("snapshots", metavar="[SNAP]...", nargs=-1)
@option("--all", "everything", is_flag=True, help="Bring back all of them.")
@option("--list", "listing", is_flag=True, help="List what is in the trash; change nothing.")
@click.pass_context
def command(ctx: click.Context, /, snapshots: tuple[str, ...], everything: bool, listing: bool) -> ExitCode:
    """Bring forgotten snapshots back from the trash.

    A snapshot comes back as it was, under its old id, with its tags and its comment. The trash keeps what was
    forgotten until it is purged; until then all its data stays in the repository.
    """
    if (bool(snapshots) + everything + listing) != 1:
        raise UsageError("name snapshots, or use --all or --list", hint="lox undelete --list shows what there is")
    repository = open_repository(ctx, ["repository.trash"])
    from repository.cache_dir import default_cache_dir
    from repository.sessions import open_session
    from repository.trash import load_trash

    output = output_of(ctx)
    unreadable: list[tuple[str, LoxError]] = []
    if listing:
        _list(output, load_trash(repository, lambda name, error: unreadable.append((name, error)), default_cache_dir()))
        return tell_unreadable(output, unreadable)
    with open_session(
        repository, "undelete"
    ) as session:  # before the trash is read: the data of what is in it then stays
        session.require_deletes("lox undelete")
        trash = load_trash(repository, lambda name, error: unreadable.append((name, error)), default_cache_dir())
        return _bring_back(output, repository, trash, snapshots, unreadable)


def _bring_back(
    output: Output,
    repository: Repository,
    trash: list[Trashed],
    snapshots: tuple[str, ...],
    unreadable: list[tuple[str, LoxError]],
) -> ExitCode:
    """Those that are named, or all."""
    from repository.trash import choose_trashed, undelete

    chosen = (
        trash
        if not snapshots
        else list({one.id: one for one in (choose_trashed(trash, s) for s in snapshots)}.values())
    )
    for one in chosen:
        was_gone = undelete(repository, one)
        output.event("snapshot", id=one.id, action="undeleted" if was_gone else "unchanged")
        if not output.quiet:
            output.line(f"{one.id[:ID_SHOWN]}  {'is back' if was_gone else 'was in its place already'}")
    code = tell_unreadable(output, unreadable)
    output.event("summary", undeleted=len(chosen), exit_code=int(code))
    output.note(f"{plural(len(chosen), 'snapshot')} brought back")
    return code


def _list(output: Output, trash: list[Trashed]) -> None:
    for one in trash:
        snapshot = one.snapshot
        output.event(
            "trashed",
            id=one.id,
            time=rfc3339(snapshot.time),
            host=snapshot.host,
            forgotten=rfc3339(one.time),
            rule=one.rule,
        )
    rows = [
        (
            one.id[:ID_SHOWN],
            format_time(one.snapshot.time),
            safe(one.snapshot.host),
            format_time(one.time),
            safe(one.rule),
            ", ".join([shown(path) for path in one.snapshot.paths]),
        )
        for one in trash
    ]
    if rows:
        output.lines(table(("SNAPSHOT", "TIME", "HOST", "FORGOTTEN", "BY", "PATHS"), rows))
    output.note(f"{plural(len(trash), 'snapshot')} in the trash")
