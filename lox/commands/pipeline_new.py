"""``lox pipeline new``."""

from __future__ import annotations

import click

from lox.escape import safe
from lox.output import output_of
from lox.settings import command as command_of
from lox.settings import option


@command_of("new")
@click.argument("name")
@option("--from", "parent", metavar="PROFILE", default="default", show_default=True, help="The profile it starts from.")
@option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="A value that is to differ; may be repeated.")
@option("--description", default="", help="What it is for.")
@click.pass_context
def command(ctx: click.Context, /, name: str, parent: str, sets: tuple[str, ...], description: str) -> None:
    """Make a profile of your own from another one.

    It is written to your folder of profiles, or, if NAME has a slash or ends in .yaml, to that file; never over one
    that is there.
    """
    import os

    from pipelines.profile import load
    from pipelines.profile_files import SUFFIX, find
    from pipelines.profile_write import new_path, profile_text, write_new

    output = output_of(ctx)
    changed = load(parent, sets)
    changes = {path: value.value for path, value in changed.values.items() if value.place.file.startswith("--set ")}
    known = find(parent)
    text = profile_text(os.path.abspath(known.path) if known.place == "file" else known.name, changes, description)
    path = name if os.sep in name or name.endswith(SUFFIX) else new_path(name)
    write_new(path, text)
    output.event("summary", path=path, exit_code=0)
    output.line(f"wrote {safe(path)}")
