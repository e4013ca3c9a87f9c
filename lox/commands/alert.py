"""``lox alert``: what an operator of a server should look at, and who else is told of it."""

from __future__ import annotations

from typing import Any

import click

from lox.commands.alert_target import command as targets
from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import client_of, event_fields, found, server_option, show_list, show_one
from lox.settings import Group, option

KIND = "alerts"
COLUMNS = (
    ("UUID", "uuid"), ("SEVERITY", "severity"), ("KIND", "kind"), ("SINCE", "raised_at"), ("TIMES", "count"),
    ("STATE", "state"), ("TEXT", "text"),
)  # fmt: skip


@click.group("alert", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Show alerts of a server, and say who is told of them.

    ALERT is a UUID, or the beginning of one.
    """


@command.command("list")
@option("--all", "everything", is_flag=True, help="Also those that ended or that somebody looks after.")
@option("--kind", metavar="KIND", help="Only these: failed, overdue, offline, ...")
@option("--agent", metavar="AGENT", help="Only those about this agent.")
@option("--job", metavar="JOB", help="Only those about this job.")
@option("--last", type=click.IntRange(1), default=50, show_default=True, metavar="N", help="How many.")
@server_option
@click.pass_context
def list_alerts(ctx: click.Context, /, everything: bool, last: int, server: str | None, **asked: str | None) -> None:
    """List alerts that are open, the newest first."""
    client = client_of(server)
    agent, job = asked["agent"], asked["job"]
    query: dict[str, Any] = {
        "kind": asked["kind"], "open": None if everything else "true",
        "agent": found(client, "agents", agent, ("name", "hostname"))["uuid"] if agent else None,
        "job": found(client, "backup-jobs", job)["uuid"] if job else None,
    }  # fmt: skip
    alerts = [{**one, "state": _state(one)} for one in client.pages(KIND, most=last, **query)]
    show_list(ctx, "alert", alerts, COLUMNS, "No alerts." if everything else "No open alerts.")


@command.command("show")
@click.argument("alert", metavar="ALERT")
@server_option
@click.pass_context
def show(ctx: click.Context, /, alert: str, server: str | None) -> None:
    """Show one alert."""
    show_one(ctx, "alert", found(client_of(server), KIND, alert, ()))


@command.command("ack")
@click.argument("alerts", metavar="ALERT...", nargs=-1, required=True)
@server_option
@click.pass_context
def acknowledge(ctx: click.Context, /, alerts: tuple[str, ...], server: str | None) -> None:
    """Say that somebody looks after alerts: nobody is reminded of them any more."""
    client, output = client_of(server), output_of(ctx)
    for name in alerts:
        done = client.post(KIND, found(client, KIND, name, ())["uuid"], "acknowledge")
        output.event("acknowledged", **event_fields(done))
        output.line(f"acknowledged {safe(done['text'])}")


def _state(alert: dict[str, Any]) -> str:
    if alert.get("resolved_at"):
        return "ended"
    return "acknowledged" if alert.get("acknowledged_at") else "open"


command.add_command(targets)
