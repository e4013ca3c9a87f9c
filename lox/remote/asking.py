"""What commands that ask a server share: which server, which object a name means, and how times are shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from lox.escape import safe
from lox.output import output_of, table
from lox.settings import option
from model.errors import NotFound, UsageError

if TYPE_CHECKING:
    from lox.remote.client import Client, Fields

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_UUID_BEGIN = re.compile(r"[0-9a-f][0-9a-f-]{3,35}", re.IGNORECASE)
NONE = "none"  # on the command line: no value
Columns = Sequence[tuple[str, str]]  # heading and key of a field

server_option = option("--server", metavar="URL", help="Ask this server. [env: LOX_SERVER; default: the last login]")


def client_of(named: str | None) -> Client:
    """Talks to the server that is meant, within the tenant of LOX_TENANT. Raises UsageError if there is none."""
    from lox.remote.client import Client
    from lox.remote.servers import TENANT, Servers

    client = Client(Servers().chosen(named))
    tenant = os.environ.get(TENANT)
    return within(client, tenant) if tenant else client


def within(client: Client, tenant: str) -> Client:
    """The same, acting within a tenant: a UUID, the beginning of one, or a name. Raises NotFound, UsageError."""
    from dataclasses import replace

    from lox.remote.client import Client

    uuid = tenant.lower()
    if not UUID.fullmatch(tenant):
        uuid = str(found(Client(replace(client.server, tenant="")), "tenants", tenant)["uuid"])
    return Client(replace(client.server, tenant=uuid))


def found(client: Client, kind: str, name: str, keys: Sequence[str] = ("name",)) -> Fields:
    """The one object of `kind` (the last part of the path of their list) that `name` means: its UUID, the beginning
    of it, or one of its `keys`. Raises NotFound, UsageError if there are several."""
    if UUID.fullmatch(name):
        fields: Fields = client.get(kind, name)
        return fields
    items = list(client.pages(kind))
    same = [item for item in items if name in [item.get(key) for key in keys]]
    if not same and _UUID_BEGIN.fullmatch(name):
        same = [item for item in items if item["uuid"].startswith(name.lower())]
    if len(same) > 1:
        uuids = ", ".join([item["uuid"] for item in same[:5]])
        raise UsageError("several have this name", subject=name, hint=f"name one by its UUID: {uuids}")
    if not same:
        noun = kind.replace("-", " ").removesuffix("s").replace("repositorie", "repository")
        raise NotFound(f"the server has no such {noun}", subject=name)
    return same[0]


def show_list(ctx: click.Context, kind: str, items: Iterable[Fields], columns: Columns, empty: str) -> None:
    """One JSON line or one row of a table for each; `kind` is what the lines are called."""
    output, listed = output_of(ctx), list(items)
    output.events(kind, map(event_fields, listed))
    if listed:
        rows = [[cell(item.get(key)) for _, key in columns] for item in listed]
        output.lines(table([heading for heading, _ in columns], rows))
    else:
        output.note(empty)


def show_one(ctx: click.Context, kind: str, item: Fields) -> None:
    """One JSON line, or a line for each field that says something."""
    output = output_of(ctx)
    output.event(kind, **event_fields(item))
    told = {name.replace("_", " "): cell(value) for name, value in item.items()}
    width = max(map(len, told), default=0)
    output.lines([f"{name:<{width}}  {text}" for name, text in told.items() if text])


def event_fields(item: Fields) -> Fields:
    """The fields of an answer as those of a JSON line, whose own names they must not take."""
    return {f"{name}_" if name in ("type", "schema") else name: value for name, value in item.items()}


def cell(value: Any) -> str:
    """A value for people, safe for a terminal; empty for none."""
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(cell, value))
    if isinstance(value, dict):
        return ", ".join([f"{name} {cell(part)}" for name, part in value.items() if cell(part)])
    return safe(local_time(value) if isinstance(value, str) else str(value))


def local_time(text: str) -> str:
    """A UTC time of the server in local time; other text as it is."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", text):
        return text
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return text


def given(asked: dict[str, Any]) -> Fields:
    """The options that were given, as fields of a request. ``none`` takes a value away."""
    said = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    return {name: None if value == NONE else value for name, value in said.items() if value not in (None, [])}
