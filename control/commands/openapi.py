"""lox-server openapi."""

from __future__ import annotations

import json

import click


@click.command()
def command() -> None:
    """Print the OpenAPI document of the API."""
    from control.api.openapi import document
    from control.app import all_routes

    click.echo(json.dumps(document(all_routes()), indent=2, sort_keys=False))
