"""``lox completion bash|zsh|fish``."""

from __future__ import annotations

import click

from lox.settings import command as command_of

PLACES = {
    "bash": 'eval "$(lox completion bash)"            # in ~/.bashrc',
    "zsh": 'eval "$(lox completion zsh)"             # in ~/.zshrc, after compinit',
    "fish": "lox completion fish | source               # in ~/.config/fish/config.fish",
}


@command_of("completion", epilog="\b\nTo switch it on:\n" + "\n".join([f"  {line}" for line in PLACES.values()]))
@click.argument("shell", type=click.Choice(list(PLACES)))
@click.pass_context
def command(ctx: click.Context, /, shell: str) -> None:
    """Print a completion script for your shell."""
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root()
    click.echo(kind(root.command, {}, "lox", "_LOX_COMPLETE").source())
