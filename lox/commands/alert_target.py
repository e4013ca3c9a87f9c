"""``lox alert target``: who is told of alerts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from lox.escape import safe
from lox.output import output_of
from lox.remote.asking import NONE, client_of, event_fields, found, server_option, show_list, show_one
from lox.settings import Group, option, stacked
from model.errors import NotDelivered, UsageError

KIND = "alert-targets"
COLUMNS = (
    ("UUID", "uuid"), ("NAME", "name"), ("KIND", "kind"), ("ADDRESS", "address"), ("ENABLED", "enabled"),
    ("SENT", "sent"), ("WAITING", "waiting"), ("LAST", "last_sent_at"), ("ERROR", "error"),
)  # fmt: skip
MESSAGE_COLUMNS = (
    ("TIME", "created_at"), ("STATE", "state"), ("ATTEMPTS", "attempts"), ("WHAT", "headline"), ("DETAIL", "detail"),
)  # fmt: skip
_WHERE, _WHAT, _WHEN = "Where to", "What", "When"


@click.group("target", cls=Group, subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Say who is told of alerts: webhooks, people by mail, chat services.

    TARGET is a UUID, the beginning of one, or a name.
    """


def _choice(function: Callable[..., Any]) -> Any:
    """Options of add and change that say where to, of what, and when."""
    many: dict[str, Any] = {"multiple": True, "section": _WHAT}
    return stacked(
        option("--webhook", metavar="URL", section=_WHERE,
               help="POST signed JSON to this; '-' reads the URL from stdin."),
        option("--apprise", metavar="URL", section=_WHERE,
               help="A service that apprise knows, as ntfys://ntfy.sh/topic; '-' reads the URL from stdin."),
        option("--mail", "recipients", metavar="ADDRESS", multiple=True, section=_WHERE, help="Mail; may be repeated."),
        option("--smtp", metavar="HOST[:PORT]", section=_WHERE, help="The mail server that takes it. [port: 587]"),
        option("--sender", metavar="ADDRESS", section=_WHERE, help="Whom the mail is from."),
        option("--security", type=click.Choice(["starttls", "tls", "none"]), section=_WHERE,
               help="Of the way to the mail server. [default: starttls]"),
        option("--username", metavar="NAME", section=_WHERE, help="Log in to the mail server."),
        option("--password-file", metavar="FILE", section=_WHERE,
               help="The password is the first line of this file; '-' reads it from stdin."),
        option("--kind", "kinds", metavar="KIND", help="Only these; may be repeated. [default: all]", **many),
        option("--severity", "least_severity", type=click.Choice(["warning", "critical"]), section=_WHAT,
               help="Only these and graver ones. [default: warning]"),
        option("--agent", "agents", metavar="AGENT", help="Those about this agent; may be repeated.", **many),
        option("--job", "jobs", metavar="JOB", help="Those about this job; may be repeated.", **many),
        option("--ends/--no-ends", "resolved", default=None, section=_WHAT, help="Tell of ends too. [default: yes]"),
        option("--remind", "remind_hours", metavar="HOURS|none", section=_WHEN,
               help="Tell again of what is open and nobody acknowledged. [default: none]"),
        option("--wait", "wait_seconds", type=click.IntRange(0), metavar="SECONDS", section=_WHEN,
               help="How long a first alert waits for more. [default: 30]"),
        option("--quiet-time", "quiet_seconds", type=click.IntRange(0), metavar="SECONDS", section=_WHEN,
               help="Between two messages. [default: 300]"),
    )(function)  # fmt: skip


@command.command("add")
@click.argument("name", metavar="NAME")
@_choice
@server_option
@click.pass_context
def add(ctx: click.Context, /, name: str, server: str | None, **asked: Any) -> None:
    """Add a target: who is told of alerts, of which, and how.

    The secret that signs what a webhook gets is shown only now. Try it: lox alert target test NAME.
    """
    client = client_of(server)
    body = {"name": name, **_body(client, asked)}
    if not {"webhook", "mail", "apprise"} & body.keys():
        raise UsageError("where are messages to go?", hint="give --webhook, --mail or --apprise")
    show_one(ctx, "alert_target", client.post(KIND, body=body))


@command.command("list")
@server_option
@click.pass_context
def list_targets(ctx: click.Context, /, server: str | None) -> None:
    """List the targets, and whether messages reach them."""
    empty = "No targets: nobody is told. 'lox alert target add NAME --webhook URL' makes one."
    show_list(ctx, "alert_target", client_of(server).pages(KIND), COLUMNS, empty)


@command.command("show")
@click.argument("target", metavar="TARGET")
@server_option
@click.pass_context
def show(ctx: click.Context, /, target: str, server: str | None) -> None:
    """Show one target."""
    client = client_of(server)
    show_one(ctx, "alert_target", client.get(KIND, found(client, KIND, target)["uuid"]))


@command.command("change")
@click.argument("target", metavar="TARGET")
@option("--name", metavar="TEXT", help="Another name.")
@option("--on/--off", "enabled", default=None, help="Tell it, or do not.")
@_choice
@server_option
@click.pass_context
def change(ctx: click.Context, /, target: str, server: str | None, **asked: Any) -> None:
    """Change where a target is or what it is told. What waits for it is tried again at once.

    Of a mail target, --mail, --smtp and --sender are given together.
    """
    client = client_of(server)
    more = {"name": asked.pop("name"), "enabled": asked.pop("enabled")}
    body = {**_body(client, asked), **{name: value for name, value in more.items() if value is not None}}
    if not body:
        raise UsageError("this changes nothing", hint="see: lox alert target change --help")
    show_one(ctx, "alert_target", client.patch(KIND, found(client, KIND, target)["uuid"], body=body))


@command.command("test")
@click.argument("target", metavar="TARGET")
@server_option
@click.pass_context
def test(ctx: click.Context, /, target: str, server: str | None) -> None:
    """Send a message to a target now, and tell what came of it."""
    client, output = client_of(server), output_of(ctx)
    tried = client.post(KIND, found(client, KIND, target)["uuid"], "test")
    output.event("alert_test", **event_fields(tried))
    if not tried["sent"]:
        raise NotDelivered("the message did not get there", subject=target, why=safe(tried["detail"]))
    output.line(f"sent in {tried['seconds']:.1f} s: {safe(tried['detail'])}")


@command.command("messages")
@click.argument("target", metavar="TARGET")
@option("--last", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="How many.")
@server_option
@click.pass_context
def messages(ctx: click.Context, /, target: str, last: int, server: str | None) -> None:
    """List messages to a target, the newest first."""
    client = client_of(server)
    listed = client.pages(KIND, found(client, KIND, target)["uuid"], "deliveries", most=last)
    show_list(ctx, "alert_delivery", listed, MESSAGE_COLUMNS, "No messages.")


@command.command("rotate-secret")
@click.argument("target", metavar="TARGET")
@server_option
@click.pass_context
def rotate_secret(ctx: click.Context, /, target: str, server: str | None) -> None:
    """Make a new secret for a webhook. For a day the old one signs beside it."""
    client = client_of(server)
    show_one(ctx, "signing_secret", client.post(KIND, found(client, KIND, target)["uuid"], "rotate-secret"))


@command.command("delete")
@click.argument("target", metavar="TARGET")
@server_option
@click.pass_context
def delete(ctx: click.Context, /, target: str, server: str | None) -> None:
    """Remove a target, and what waits for it."""
    client, output = client_of(server), output_of(ctx)
    one = found(client, KIND, target)
    client.delete(KIND, one["uuid"])
    output.event("deleted", uuid=one["uuid"], name=one["name"])
    output.line(f"deleted alert target {safe(one['name'])}")


def _body(client: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request, of the options that were given."""
    if [asked["webhook"], asked["apprise"], asked["password_file"]].count("-") > 1:
        raise UsageError("stdin cannot be read twice", hint="put one of them in a file")
    body: dict[str, Any] = {}
    for way in ("webhook", "apprise"):
        if asked[way] is not None:
            body[way] = {"url": _line("-") if asked[way] == "-" else asked[way]}
    if asked["recipients"] or asked["smtp"] or asked["sender"]:
        body["mail"] = _mail(asked)
    elif asked["username"] or asked["password_file"] or asked["security"]:
        raise UsageError("this is for mail", hint="give --mail, --smtp and --sender with it")
    body |= {name: list(asked[name]) for name in ("kinds",) if asked[name]}
    for name in ("least_severity", "resolved", "wait_seconds", "quiet_seconds"):
        if asked[name] is not None:
            body[name] = asked[name]
    if asked["remind_hours"] is not None:
        body["remind_hours"] = _hours(asked["remind_hours"])
    if asked["agents"]:
        body["agent_uuids"] = [found(client, "agents", name, ("name", "hostname"))["uuid"] for name in asked["agents"]]
    if asked["jobs"]:
        body["job_uuids"] = [found(client, "backup-jobs", name)["uuid"] for name in asked["jobs"]]
    return body


def _mail(asked: dict[str, Any]) -> dict[str, Any]:
    if not (asked["recipients"] and asked["smtp"] and asked["sender"]):
        raise UsageError("mail needs more", hint="give --mail ADDRESS, --smtp HOST[:PORT] and --sender ADDRESS")
    host, colon, port = asked["smtp"].partition(":")
    if colon and not port.isdecimal():
        raise UsageError("this is no port", subject=asked["smtp"], hint="write HOST or HOST:PORT")
    mail = {
        "host": host, "port": int(port) if colon else None, "sender": asked["sender"],
        "recipients": list(asked["recipients"]), "security": asked["security"], "username": asked["username"],
        "password": _line(asked["password_file"]) if asked["password_file"] else None,
    }  # fmt: skip
    return {name: value for name, value in mail.items() if value is not None}


def _hours(text: str) -> int | None:
    if text == NONE:
        return None
    if not text.isdecimal():
        raise UsageError("this is no number of hours", subject=text, hint="write a number, or none")
    return int(text)


def _line(file: str) -> str:
    """The first line of a file, or of stdin."""
    if file == "-":
        return sys.stdin.readline(8192).rstrip("\r\n")
    from lox.remote.servers import read_text

    return read_text(file, "the password").partition("\n")[0].rstrip("\r")
