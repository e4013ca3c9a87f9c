"""The fields of a job as options of the command line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lox.remote.asking import NONE, given
from lox.settings import option, stacked
from model.errors import UsageError

MODES = click.Choice(["full", "incremental", "differential"])
KEEP = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
_SCRIPT = "name of a file in the host's own hooks folder, or none"
_JOB, _WHEN, _KEPT, _HOW = "What is backed up", "When", "What is kept", "How"


class Megabits(click.ParamType[Any]):
    """A number of megabits per second, or none."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return value if value == NONE else float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of megabits per second, or none", param, ctx)


def job_options(function: Callable[..., Any]) -> Any:
    """Adds an option for each field of a job but its name, agent and type; `fields_of` makes fields of them again."""
    return stacked(*_what(), *_when(), *_kept(), *_how())(function)


def _what() -> list[Any]:
    many: dict[str, Any] = {"multiple": True, "section": _JOB}
    return [
        option("--path", "source_paths", metavar="PATH", help="What to back up; may be repeated.", **many),
        option("--exclude", "exclude_patterns", metavar="PATTERN", help="What to leave out; may be repeated.", **many),
        option("--include", "include_patterns", metavar="PATTERN", help="Only what matches; may be repeated.", **many),
        option("--repository", "repository_uuid", metavar="REPOSITORY", section=_JOB,
               help="Where it goes: a UUID, the beginning of one, a name; or none for the tenant's default."),
        option("--tag", "tags", metavar="TAG", help="A tag; may be repeated.", **many),
    ]  # fmt: skip


def _when() -> list[Any]:
    return [
        option("--schedule", "schedule_cron", metavar="CRON", section=_WHEN, help="As '0 2 * * *', or none."),
        option("--timezone", metavar="ZONE", section=_WHEN, help="Of the schedule, as Europe/Berlin. [server: UTC]"),
        option("--jitter", "jitter_seconds", type=click.IntRange(0), metavar="SECONDS", section=_WHEN,
               help="Begin up to so much later, by lot."),
        option("--missed", "missed_run_policy", type=click.Choice(["run_once", "skip"]), section=_WHEN,
               help="What becomes of times at which the host was off. [server: run_once]"),
        option("--overlap", "overlap_policy", type=click.Choice(["skip", "queue"]), section=_WHEN,
               help="When the run before has not ended. [server: skip]"),
        option("--max-duration", "max_duration_seconds", metavar="SECONDS|none", section=_WHEN,
               help="Stop a backup that takes longer; it has failed then."),
        option("--enabled/--disabled", "enabled", default=None, section=_WHEN, help="Whether the schedule counts."),
    ]  # fmt: skip


def _kept() -> list[Any]:
    number: dict[str, Any] = {"type": click.IntRange(1), "metavar": "N", "section": _KEPT}
    rules = [option(f"--keep-{rule}", help=f"Keep the {rule} N as well.", **number) for rule in KEEP]
    return [
        option("--retention-count", help="How many backups to keep. [server: 7]", **number),
        *rules,
        option("--keep-within", metavar="SPAN", section=_KEPT, help="Keep all that are not older, as 30d."),
    ]


def _how() -> list[Any]:
    return [
        option("--mode", "backup_mode", type=MODES, section=_HOW, help="[server: incremental]"),
        option("--compression/--no-compression", "compression_enabled", default=None, section=_HOW,
               help="[server: on]"),
        option("--encryption/--no-encryption", "encryption_enabled", default=None, section=_HOW, help="[server: off]"),
        option("--deduplication/--no-deduplication", "deduplication_enabled", default=None, section=_HOW,
               help="[server: on]"),
        option("--limit", "bandwidth_limit_mbps", type=Megabits(), metavar="MBIT", section=_HOW,
               help="Upload no faster than so many megabits per second, or none."),
        option("--pre-script", metavar="NAME", section=_HOW, help=f"Run before: {_SCRIPT}."),
        option("--post-script", metavar="NAME", section=_HOW, help=f"Run after, in any case: {_SCRIPT}."),
        option("--pipeline-profile", "profile", metavar="NAME", section=_HOW, help="A pipeline profile, or none."),
        option("--ping-url", metavar="URL", section=_HOW, help="Asked for when a run begins and ends, or none."),
    ]  # fmt: skip


def fields_of(asked: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request to make or change a job, as far as options gave them."""
    keep = {rule: value for rule in (*KEEP, "within") if (value := asked.pop(f"keep_{rule}", None)) is not None}
    return given(asked) | ({"keep": keep} if keep else {})


def document(name: str, data: bytes) -> dict[str, Any]:
    """A job in a file, YAML or JSON, as a request. Raises UsageError with the place of the first fault."""
    from model.wire.jobs import JobIn
    from pipelines.settings_file import read_settings

    job, faults = read_settings(JobIn, data, name)
    if job is None:
        # What is not known is a slip, as a rule, and the cause of what is missing.
        first, more = next((one for one in faults if one.code == "unknown-key"), faults[0]), len(faults) - 1
        why = first.reason + (f" (and {more} more)" if more else "")
        raise UsageError("not a job", subject=str(first.place), why=why, hint=first.hint)
    fields: dict[str, Any] = job.model_dump(mode="json", exclude_unset=True)
    return fields
