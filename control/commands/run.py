"""lox-server run."""

from __future__ import annotations

from pathlib import Path

import click

from control.cli import Options


@click.command()
@click.option("--listen", metavar="[HOST]:PORT", help="Where to listen. [default: :8443]")
@click.option("--public-url", metavar="URL", help="What agents and people call this server.")
@click.option("--certificate", type=click.Path(path_type=Path), help="Certificate and its chain, PEM.")
@click.option("--key", type=click.Path(path_type=Path), help="Key of the certificate, PEM.")
@click.option("--processes", type=click.IntRange(1, 64), help="How many processes serve; more than 1 needs PostgreSQL.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warn", "error"]), help="How much is logged.")
@click.pass_obj
def command(
    options: Options,
    listen: str | None,
    public_url: str | None,
    certificate: Path | None,
    key: Path | None,
    processes: int | None,
    log_level: str | None,
) -> int:
    """Be the server until stopped; what the service runs.

    The first start makes the data folder, an authority and a certificate (unless real ones are named), and the
    database. 'lox-server create-admin' makes somebody who can log in.
    """
    from control.serving import serve

    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key go together")
    options.given |= {"listen": listen, "public_url": public_url, "processes": processes, "log_level": log_level}
    if certificate is not None:
        options.given["tls"] = {"certificate": certificate, "key": key}
    return serve(options.settings())
