"""What a message says: as JSON, as a headline, and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from model.names import visible
from model.wire.base import rfc3339

LISTED_MAX = 100  # alerts that one message spells out
HEADLINE_MAX = 180
_WORDS = {"opened": "", "open": "still open: ", "resolved": "resolved: "}


def content_of(kind: str, tenant: tuple[UUID, str], server: str, items: Sequence[dict[str, Any]], at: Any) -> Any:
    """The JSON of a message that tells of `items`, which are alerts with their `event`."""
    order = {"critical": 0, "warning": 1}
    ordered = sorted(items, key=lambda one: (one["event"] == "resolved", order[one["severity"]], one["raised_at"]))
    counts = Counter(one["event"] for one in items)
    kinds = Counter(one["kind"] for one in items if one["event"] != "resolved")
    return {
        "type": kind,
        "time": rfc3339(at),
        "server": server,
        "tenant": {"uuid": str(tenant[0]), "name": tenant[1]},
        "total": len(items),
        "events": dict(sorted(counts.items())),
        "kinds": dict(sorted(kinds.items())),
        "alerts": ordered[:LISTED_MAX],
    }


def headline(content: dict[str, Any]) -> str:
    """One line."""
    if content["type"] == "test":
        return "this is a test of an alert target"
    if content["total"] == 1:
        return _cut(_line(content["alerts"][0]))
    words = [f"{number} {kind}" for kind, number in content["kinds"].items()]
    ended = content["events"].get("resolved", 0)
    told = f"{content['total'] - ended} alerts" if content["total"] > ended else ""
    told = "still open: " + told if content["type"] == "reminder" else told
    told += f" ({', '.join(words)})" if words else ""
    return _cut("; ".join(filter(None, [told, f"{ended} resolved" if ended else ""])))


def text_of(content: dict[str, Any]) -> str:
    """The whole of it for people."""
    lines = [f"{content['tenant']['name']} at {content['server']}", ""]
    if content["type"] == "test":
        lines += ["This message was sent to try an alert target. Nothing is wrong."]
    for one in content["alerts"]:
        lines.append(_line(one))
        where = [f"{name} {one[key]}" for name, key in (("agent", "agent_name"), ("job", "job_name")) if one.get(key)]
        ended = f", resolved {_when(one['resolved_at'])}" if one.get("resolved_at") else ""
        lines.append("    " + ", ".join([one["kind"], *where, f"since {_when(one['raised_at'])}"]) + ended)
    left = content["total"] - len(content["alerts"])
    if left:
        lines.append(f"... and {left} more")
    return "\n".join(clean(line) for line in lines) + "\n"


def clean(text: str) -> str:
    """`text`, parts of which hosts wrote, on one line and without what a terminal would obey."""
    return text if text.isascii() and text.isprintable() else "".join(visible(one, double=False) for one in text)


def _when(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"


def _line(alert: dict[str, Any]) -> str:
    grave = "CRITICAL: " if alert["severity"] == "critical" and alert["event"] != "resolved" else ""
    return f"{_WORDS[alert['event']]}{grave}{alert['text']}"


def _cut(text: str) -> str:
    text = clean(text)
    return text if len(text) <= HEADLINE_MAX else text[: HEADLINE_MAX - 1] + "…"
