"""``lox pipeline schema``."""

from __future__ import annotations

import json

import click

from lox.output import output_of
from lox.settings import command as command_of


@command_of("schema")
@click.pass_context
def command(ctx: click.Context, /) -> None:
    """Print the JSON Schema of profiles, for editors.

    Editors with a YAML language server take it from the first line of a profile: # yaml-language-server: $schema=FILE
    """
    from pipelines.profile_schema import schema

    output = output_of(ctx)
    output.event("schema", document=json.loads(schema()))
    output.line(schema())
