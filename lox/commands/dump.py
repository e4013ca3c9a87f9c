"""``lox dump``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

from lox.commands.restore import snapshot_path
from lox.contents import Catalogue
from lox.settings import command as command_of
from lox.settings import option
from lox.types import BytesType
from model.entries import order_key
from model.errors import UsageError


@command_of("dump")
@click.argument("snapshot", metavar="SNAP")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=BytesType())
@option("--archive", type=click.Choice(["tar", "zip"]),
        help="Write files and folders, with all below them, as an archive; a zip has no owners.")  # fmt: skip
@click.pass_context
def command(ctx: click.Context, /, snapshot: str, paths: tuple[bytes, ...], archive: str | None) -> None:
    """Write a file, or a folder as an archive, to stdout.

    lox dump latest /etc/passwd | diff - /etc/passwd
    """
    wanted = above_all(map(snapshot_path, paths))
    if archive is None and len(wanted) > 1:
        raise UsageError("several files are dumped as an archive", hint="add --archive tar")
    if sys.stdout.isatty():
        raise UsageError("the terminal is no place for this", hint="send it to a file with >, or through a pipe")
    catalogue = Catalogue.open(ctx)
    from repository.sessions import reading_session

    found = catalogue.snapshot(snapshot)
    sys.stdout.flush()
    # A buffered writer of our own: click and the locale have no say in bytes.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=1 << 20)
    with out, reading_session(catalogue.repository, "dump"):  # whoever reads on may take hours
        if archive is None:
            from pipelines.dump import dump

            dump(catalogue.repository, found, wanted[0], out, catalogue.tell_damage)
        elif archive == "tar":
            from pipelines.archive import dump_tar

            dump_tar(catalogue.repository, found, wanted, out, catalogue.tell_damage)
        else:
            from pipelines.archive_zip import dump_zip

            dump_zip(catalogue.repository, found, wanted, out, catalogue.tell_damage)


def above_all(paths: Iterable[bytes]) -> list[bytes]:
    """`paths` without those below others, so that nothing is written twice."""
    chosen: list[bytes] = []
    for path in sorted(set(paths), key=order_key):
        if not any(not above or path.startswith(above + b"/") for above in chosen):
            chosen.append(path)
    return chosen
