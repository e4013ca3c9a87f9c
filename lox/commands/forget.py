"""``lox forget``."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click

from lox.contents import Catalogue, tell_unreadable
from lox.escape import safe
from lox.forgetting import (
    Chosen,
    by_name,
    estimate,
    parse_every,
    parse_groups,
    parse_zone,
    show_freed,
    show_groups,
    show_simulations,
    tag_sets,
)
from lox.output import Output, output_of
from lox.settings import command as command_of
from lox.settings import option, stacked
from lox.types import BytesType
from lox.units import plural
from model.errors import Missing, NewerFormat, UsageError
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.retention import Candidate, Group, Policy
    from repository.snapshot import Snapshot

_POLICY = "Policy"
_CHOICE = "Which snapshots the policy decides about"


def _count(name: str, help: str) -> Any:
    return option(f"--keep-{name}", name, type=int, default=0, metavar="N", section=_POLICY, help=help)


_policy = stacked(
    _count("last", "Keep the newest N."),
    _count("hourly", "Keep the newest of each of the last N hours that have one."),
    _count("daily", "The same for days."),
    _count("weekly", "The same for weeks, which begin on Monday."),
    _count("monthly", "The same for months."),
    _count("yearly", "The same for years."),
    option(
        "--keep-within",
        "within",
        metavar="SPAN",
        section=_POLICY,
        help="Keep what is at most so much older than the newest: 2y5m7d3h.",
    ),
    option(
        "--keep-tag",
        "keep_tags",
        multiple=True,
        metavar="TAG[,TAG]",
        section=_POLICY,
        help="Keep what has all these tags; may be repeated.",
    ),
    option(
        "--group-by",
        default="host,paths",
        show_default=True,
        metavar="KEYS",
        section=_POLICY,
        help="Apply the policy to each of these apart: host, paths, tags.",
    ),
    option(
        "--timezone", metavar="ZONE", section=_POLICY, help="Where days begin, as Europe/Berlin. Default: local time."
    ),
)
_choice = stacked(
    option(
        "--host", "hosts", multiple=True, metavar="HOST", section=_CHOICE, help="Those of this host; may be repeated."
    ),
    option(
        "--tag",
        "tags",
        multiple=True,
        metavar="TAG[,TAG]",
        section=_CHOICE,
        help="Those with all these tags; may be repeated.",
    ),
    option(
        "--path",
        "paths",
        multiple=True,
        type=BytesType(),
        metavar="PATH",
        section=_CHOICE,
        help="Those that were asked to back up this path; may be repeated.",
    ),
)


@command_of("forget")
@click.argument("snapshots", metavar="[SNAP]...", nargs=-1)
@option("-n", "--dry-run", is_flag=True, help="Show what would go, why the rest stays, and what that would free.")
@option("--allow-last", is_flag=True, help="Allow named snapshots to be the last of what they are a backup of.")
@option(
    "--simulate",
    type=click.IntRange(1, 36_500),
    metavar="DAYS",
    help="Show what would be left after so many more days of backups; change nothing.",
)
@option("--every", default="1d", show_default=True, metavar="SPAN", help="With --simulate: how often a backup is made.")
@_policy
@_choice
@click.pass_context
def command(ctx: click.Context, /, snapshots: tuple[str, ...], dry_run: bool, **asked: Any) -> ExitCode:
    """Move snapshots to the trash, by a policy or by name.

    A policy looks at the snapshots of each host and set of paths apart. What one of its rules keeps is kept, and so
    is the last snapshot of every source, and what is pinned or held. 'lox undelete' brings snapshots back while they
    are in the trash. 'lox prune' empties it after a week and frees the space.
    """
    policy = None if snapshots else _policy_of(asked)
    if snapshots and _policy_of(asked, empty=True) is not None:
        raise UsageError("name snapshots or give a policy, not both", hint="leave out one of the two")
    zone, group_by = parse_zone(asked["timezone"]), parse_groups(asked["group_by"])
    every = parse_every(asked["every"], asked["simulate"] or 1)
    catalogue = Catalogue.open(ctx, ["repository.retention", "repository.trash"], ["snapshots/", "notes/"])
    from repository.retention import candidates_of, decide, simulate

    output, now = output_of(ctx), time.time_ns()
    found = catalogue.snapshots()
    candidates = candidates_of(catalogue.repository, found, catalogue.annotations(), now)
    if policy is None:
        if asked["simulate"]:
            raise UsageError("a simulation needs a policy", hint="use --keep-daily 7 or the like")
        chosen = by_name(catalogue, found, candidates, snapshots, asked["allow_last"])
        return _finish(output, catalogue, chosen, dry_run, now) or tell_unreadable(output, found.unreadable)
    _refuse_newer(found.unreadable)
    policy.check(tag for one in candidates for tag in one.tags)
    wanted = [one for one in candidates if _matches(one, asked)]
    if asked["simulate"]:
        times = range(now, now + asked["simulate"] * 86_400 * 10**9 + 1, every)
        show_simulations(output, simulate(wanted, policy, times, zone))
        return tell_unreadable(output, found.unreadable)
    ids = {one.id for one in wanted}
    groups = decide(candidates, policy, group_by, zone, lambda one: one.id in ids)
    show_groups(output, groups)
    gone = _forgotten(groups, found)
    return _finish(output, catalogue, Chosen(gone, "policy"), dry_run, now) or tell_unreadable(output, found.unreadable)


def _policy_of(asked: dict[str, Any], empty: bool = False) -> Policy | None:
    """What the options say; with `empty`, None if they say nothing. Raises UsageError."""
    from repository.retention import COUNTS, Policy, Span

    counts = {name: asked[name] for name in COUNTS}
    if empty and not any(counts.values()) and not asked["within"] and not asked["keep_tags"]:
        return None
    within = None if asked["within"] is None else Span.parse(asked["within"])
    policy = Policy(**counts, within=within, tags=tag_sets(asked["keep_tags"]))
    policy.check(tag for wanted in policy.tags for tag in wanted)  # unknown tags: once the snapshots are known
    return policy


def _matches(one: Candidate, asked: dict[str, Any]) -> bool:
    tags = tag_sets(asked["tags"])
    paths = {os.path.abspath(path) for path in asked["paths"]}
    return (
        (not asked["hosts"] or one.host in asked["hosts"])
        and (not tags or any(wanted <= one.tags for wanted in tags))
        and paths <= set(one.paths)
    )


def _refuse_newer(unreadable: list[tuple[str, Any]]) -> None:
    """A snapshot that only a newer version can read may be the one that a rule should keep."""
    for _, error in unreadable:
        if isinstance(error, NewerFormat):
            raise error


def _forgotten(groups: list[Group], snapshots: list[Snapshot]) -> list[Snapshot]:
    gone = {one.candidate.id for group in groups for one in group.decisions if not one.keep}
    return [snapshot for snapshot in snapshots if snapshot.id in gone]


def _finish(output: Output, catalogue: Catalogue, chosen: Chosen, dry_run: bool, now: int) -> ExitCode:
    """Forget them, oldest first; or tell what that would free."""
    gone = chosen.snapshots
    if dry_run:
        freed = estimate(output, catalogue, gone)
        show_freed(output, len(gone), freed)
        return ExitCode.OK
    from lox.recording import recorded_steps
    from repository.trash import forget

    repository, done = catalogue.repository, 0
    with recorded_steps(output, "forget", repository.store, repository.id, rule=chosen.rule) as record:
        for snapshot in gone:
            record.step("forgetting snapshots", done)
            try:
                forget(repository, snapshot.id, chosen.rule, now)
                done, action = done + 1, "forgotten"
            except (UsageError, Missing) as error:  # pinned, or forgotten by somebody else, since it was decided about
                output.note(f"lox: {safe(str(error))}")
                record.summary.problems += 1
                action = "gone" if isinstance(error, Missing) else "kept"
            output.event("snapshot", id=snapshot.id, action=action)
            output.flush()  # whoever listens is to know it even if we are killed
            record.summary.snapshots = done
        record.step("forgetting snapshots", done)
    output.event("summary", forgotten=done, dry_run=False, exit_code=0)
    if output.quiet < 2:
        output.line(
            f"{plural(done, 'snapshot')} forgotten"
            + ("; lox undelete brings back what is in the trash" if done else "")
        )
    return ExitCode.OK
