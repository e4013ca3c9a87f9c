"""``lox debug damage``: tools for drills and tests."""

from __future__ import annotations

import click

from lox.escape import safe
from lox.opening import store_of
from lox.output import output_of
from lox.settings import Group, option, settings_of
from model.errors import NoRepository, UsageError
from model.exits import ExitCode


@click.group("debug", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Tools for drills and tests. Keep away from repositories you need."""


@command.command("damage")
@option("--seed", type=int, required=True, help="Equal seeds do equal damage to equal repositories.")
@option("--packs", type=click.IntRange(1), metavar="N", help="Damage this many packs, chosen by the seed.")
@option("--object", "objects", multiple=True, metavar="NAME", help="Damage this object; may be repeated.")
@option(
    "--kind",
    type=click.Choice(["flip", "truncate", "delete", "swap"]),
    required=True,
    help="Flip a bit, cut the end off, remove it, or exchange it with another of its kind.",
)
@option("--i-know-what-i-do", is_flag=True, help="Really do it.")
@click.pass_context
def damage_objects(
    ctx: click.Context,
    /,
    seed: int,
    packs: int | None,
    objects: tuple[str, ...],
    kind: str,
    i_know_what_i_do: bool,
) -> int:
    """Damage stored objects on purpose, to see check, repair and restore at work.

    What is damaged may be lost for good. Needs no password. Prints what it did.
    """
    if not i_know_what_i_do:
        raise UsageError("this destroys what is stored", hint="add --i-know-what-i-do if the repository may be lost")
    if (packs is None) == (not objects):
        raise UsageError("what to damage is not clear", hint="give either --packs or --object")
    from repository.config import CONFIG_NAME
    from repository.damaging import choose_packs, damage
    from repository.store.base import is_part

    for name in objects:
        if not all(is_part(part) for part in name.split("/")):
            raise UsageError("not a name of an object", subject=safe(name), hint="write it as in packs/ab/abcd...")
    store, output = store_of(settings_of(ctx)), output_of(ctx)
    if not store.exists(CONFIG_NAME):
        raise NoRepository("no repository here", subject=store.url)
    names = list(objects) or choose_packs(store, packs or 0, seed)
    for harm in damage(store, names, kind, seed):
        output.event("harm", object=harm.name, what=harm.what)
        output.line(f"{harm.name}: {harm.what}")
    return ExitCode.OK
