"""``lox version``."""

from __future__ import annotations

import click

from lox import __version__
from lox.output import output_of
from lox.settings import command as command_of

PARTS = ("cryptography", "zstandard", "lz4", "blake3", "numpy", "pyarrow", "ray", "rich", "click")


@command_of("version")
@click.pass_context
def command(ctx: click.Context, /) -> None:
    """Print the version of the program and its parts."""
    import platform
    from importlib import metadata

    import kernels

    output = output_of(ctx)
    parts = {}
    for name in PARTS:
        try:
            parts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            parts[name] = "not installed"
    python = platform.python_version()
    output.event("version", version=__version__, python=python, kernels=kernels.VARIANT, parts=parts)
    output.line(f"lox {__version__}")
    output.line(f"python {python}, {platform.system()} {platform.machine()}, kernels: {kernels.VARIANT}")
    output.line(", ".join([f"{name} {version}" for name, version in parts.items()]))
