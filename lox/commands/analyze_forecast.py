"""``lox analyze forecast``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from lox.analyzing import open_view, step
from lox.forgetting import parse_every
from lox.output import Output, output_of, table
from lox.settings import command as command_of
from lox.settings import option
from lox.types import SizeType
from lox.units import format_count, format_size, format_time, plural, rfc3339
from model.errors import UsageError
from model.exits import ExitCode

if TYPE_CHECKING:
    from lox.analysis.forecast import Forecast, Kept
    from repository.retention import Policy

DAY = 86_400 * 10**9
STEPS = 6  # rows of the table


@command_of("forecast")
@option("--days", type=click.IntRange(1, 36_500), default=365, show_default=True, help="How far to look ahead.")
@option("--capacity", type=SizeType(), metavar="SIZE", help="Tell when the store has reached this size.")
@option("--policy", "policies", multiple=True, metavar="RULES",
        help="Tell what would be left under daily=7,weekly=4,...; may be repeated.")  # fmt: skip
@option("--every", default="1d", show_default=True, metavar="SPAN", help="With --policy: how often a backup is made.")
@click.pass_context
def command(
    ctx: click.Context, /, days: int, capacity: int | None, policies: tuple[str, ...], every: str
) -> ExitCode:  # fmt: skip
    """Forecast how many stored bytes the repository will have.

    From what each snapshot that is left was the first to store; first backups of a source are left out, and so is what
    backups without deduplication stored again, which prune takes back. Between LOW and HIGH lie nine of ten futures
    drawn from past days. With --policy it is told what snapshots a policy would leave after these days, and how many
    stored bytes these would need; rules are those of 'lox forget': last, hourly, daily, weekly, monthly, yearly, and
    within=30d.
    """
    wanted = [parse_policy(text) for text in policies]
    interval = parse_every(every, days)
    view, damage = open_view(ctx, ["lox.analysis.forecast"])
    from lox.analysis.forecast import Retention, forecast, growth
    from repository.retention import candidates_of

    output, now = output_of(ctx), time.time_ns()
    with step(output) as progress:
        grown = growth(view, progress)
        stored = sum(view.objects.values())
        found = forecast(grown, stored, now, days, capacity)
        _show(output, found, stored, now)
        if wanted:
            retention = Retention(view, progress)
            candidates = candidates_of(view.repository, view.snapshots, view.annotations, now)
            kept = [retention.after(candidates, policy, now, days, interval) for policy in wanted]
    if wanted:
        _show_kept(output, policies, kept, days)
    output.event("summary", stored=stored, stored_per_day=round(found.per_day), exit_code=int(damage.code))
    return damage.code


def parse_policy(text: str) -> Policy:
    """``daily=7,weekly=4,within=30d``. Raises UsageError."""
    from repository.retention import COUNTS, Policy, Span

    counts: dict[str, Any] = {}
    within = None
    for rule in text.split(","):
        name, _, value = (part.strip() for part in rule.partition("="))
        if name == "within":
            within = Span.parse(value)
        elif name in COUNTS and value.isascii() and value.isdigit():
            counts[name] = int(value[:9])
        else:
            raise UsageError("not a rule of a policy", subject=rule, hint="write daily=7,weekly=4,within=30d")
    policy = Policy(**counts, within=within)
    policy.check(())
    return policy


def _show(output: Output, found: Forecast, stored: int, now: int) -> None:
    rows = found.days.drop_columns(["time"]).to_pylist()  # Python's times are not as fine
    output.events(
        "day",
        ({**row, "time": rfc3339(now + row["day"] * DAY)} for row in rows),
    )
    output.line(f"{format_size(stored)} stored now; {format_size(found.per_day)} more each day on average")
    chosen = sorted({max(1, round(len(rows) * step / STEPS)) for step in range(1, STEPS + 1)})
    lines = [
        (
            format_count(row["day"]),
            format_time(now + row["day"] * DAY)[:10],
            *(format_size(row[name]) for name in ("stored_low", "stored_median", "stored_high")),
        )
        for row in (rows[day - 1] for day in chosen)
    ]
    output.lines(table(("DAYS", "DATE", "STORED LOW", "STORED MEDIAN", "STORED HIGH"), lines, right=range(5)))
    if found.capacity is None:
        return
    ends = {"early": found.full_early, "median": found.full_median, "late": found.full_late}
    output.event("capacity", capacity=found.capacity, **{f"days_{name}": day for name, day in ends.items()})
    if found.full_early is None:
        output.line(f"{format_size(found.capacity)} are not reached within {plural(len(rows), 'day')}")
        return
    words = [_when(day, len(rows), now) for day in ends.values()]
    output.line(f"{format_size(found.capacity)} are reached {words[1]}; nine of ten futures: {words[0]} to {words[2]}")


def _when(day: int | None, days: int, now: int) -> str:
    if day is None:
        return f"after more than {plural(days, 'day')}"
    return f"in {plural(day, 'day')} ({format_time(now + day * DAY)[:10]})"


def _show_kept(output: Output, texts: tuple[str, ...], kept: list[Kept], days: int) -> None:
    fields = [
        {
            "policy": text,
            "snapshots": one.snapshots,
            "stored_low": one.stored_low,
            "stored_median": one.stored_median,
            "stored_high": one.stored_high,
        }
        for text, one in zip(texts, kept, strict=True)
    ]
    output.events("policy", fields)
    lines = [
        (
            format_count(one.snapshots),
            *(format_size(size) for size in (one.stored_low, one.stored_median, one.stored_high)),
            text,
        )
        for text, one in zip(texts, kept, strict=True)
    ]
    output.line()
    output.line(f"kept by a policy after {plural(days, 'day')} of backups:")
    output.lines(table(("SNAPSHOTS", "STORED LOW", "STORED MEDIAN", "STORED HIGH", "POLICY"), lines, right=range(4)))
