"""``lox comment``."""

from __future__ import annotations

import click

from lox.noting import note
from lox.settings import command as command_of
from model.errors import UsageError

COMMENT_MAX = 4000  # characters


@command_of("comment")
@click.argument("snapshot", metavar="SNAP")
@click.argument("text")
@click.pass_context
def command(ctx: click.Context, /, snapshot: str, text: str) -> None:
    """Write a comment on a snapshot.

    It takes the place of the one there was; an empty TEXT removes it.
    """
    text = text.strip()
    if len(text) > COMMENT_MAX or not all(letter.isprintable() or letter in "\n\t" for letter in text):
        raise UsageError("not a usable comment", hint=f"use up to {COMMENT_MAX:,} printable characters")
    from repository.annotations import Changes

    note(ctx, [snapshot], lambda: Changes(comment=text))
