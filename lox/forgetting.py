"""What ``lox forget`` parses and prints: choices by name, tables of decisions, freed bytes, simulations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import tzinfo
from typing import TYPE_CHECKING

from lox.contents import ID_SHOWN, Catalogue
from lox.escape import path_fields, safe, shown
from lox.output import Output, table
from lox.signals import stopping
from lox.units import format_size, format_time, plural, rfc3339
from model.errors import Damaged, Missing, UsageError

if TYPE_CHECKING:
    from repository.freed import Freed
    from repository.retention import Candidate, Decision, Group, Simulation
    from repository.snapshot import Snapshot, Snapshots

SIMULATED_MAX = 50_000  # backups of one source


@dataclass(frozen=True, slots=True)
class Chosen:
    """Snapshots to forget, oldest first, and the rule that says so, in words."""

    snapshots: list[Snapshot]
    rule: str


def by_name(
    catalogue: Catalogue,
    snapshots: Snapshots,
    candidates: Sequence[Candidate],
    references: Sequence[str],
    allow_last: bool,
) -> Chosen:
    """The snapshots the user named. Raises NotFound; UsageError if one is pinned or held, or a source would have none
    left and that is not allowed.
    """
    from repository.snapshot import choose

    named = {
        found.id: found for found in (choose(snapshots, one, catalogue.repository.store.url) for one in references)
    }
    left = {one.source for one in candidates if one.id not in named}
    for one in candidates:
        if one.id not in named:
            continue
        if one.protected:
            why = ", ".join(one.protected)
            raise UsageError("the snapshot may not be forgotten", subject=one.id[:ID_SHOWN], why=why, hint="lox unpin")
        if one.source not in left and not allow_last:
            raise UsageError(
                "it is the last snapshot of its source",
                subject=one.id[:ID_SHOWN],
                hint="with --allow-last it is forgotten all the same",
            )
    return Chosen([snapshot for snapshot in snapshots if snapshot.id in named], "by name")


def tag_sets(options: Iterable[str]) -> tuple[frozenset[str], ...]:
    """``a,b`` means both tags, several options mean any of them. Raises UsageError for one that names no tag."""
    sets = tuple(frozenset(tag.strip() for tag in text.split(",") if tag.strip()) for text in options)
    if not all(sets):
        raise UsageError("an empty tag", hint="a shell variable may be empty")
    return sets


def parse_groups(text: str) -> tuple[str, ...]:
    """Keys to group by; none of them puts all snapshots into one group. Raises UsageError."""
    from repository.retention import GROUP_KEYS

    keys = tuple(dict.fromkeys(key.strip() for key in text.split(",") if key.strip()))
    for key in keys:
        if key not in GROUP_KEYS:
            raise UsageError("snapshots cannot be grouped by this", subject=key, hint="use " + ", ".join(GROUP_KEYS))
    return keys


def parse_zone(name: str | None) -> tzinfo | None:
    """A time zone by its name; None is the local one. Raises UsageError."""
    if name is None:
        return None
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        hint = "names are as Europe/Berlin or UTC; they come with the package tzdata of the system"
        raise UsageError("no such time zone", subject=name, hint=hint) from error


def parse_every(text: str, days: int) -> int:
    """How often a simulated backup is made, in ns. Raises UsageError."""
    from repository.retention import Span

    span = Span.parse(text)
    hours = 24 * span.days + span.hours
    if span.years or span.months or days * 24 // hours > SIMULATED_MAX:
        raise UsageError("not usable for a simulation", subject=text, hint="use days and hours: 1d, 6h; not too often")
    return hours * 3600 * 10**9


def show_groups(output: Output, groups: Sequence[Group]) -> None:
    """A table for each group: what is kept and why, and what goes."""
    for group in groups:
        _events(output, group)
        kept = sum(decision.keep for decision in group.decisions)
        if not output.quiet:
            output.line(f"{_title(group)}: {kept:,} kept, {len(group.decisions) - kept:,} forgotten")
            rows = [_row(decision) for decision in group.decisions]
            output.lines(table(("SNAPSHOT", "TIME", "TAGS", "", "WHY"), rows))
            output.line()
    if not groups:
        output.note("no snapshot matches")


def _events(output: Output, group: Group) -> None:
    fields = {
        "host": group.host,
        "paths": None if group.paths is None else [path_fields(path) for path in group.paths],
        "group_tags": None if group.tags is None else list(group.tags),
    }
    output.events(
        "decision",
        [
            {
                **fields,
                "id": decision.candidate.id,
                "time": rfc3339(decision.candidate.time),
                "tags": sorted(decision.candidate.tags),
                "action": "keep" if decision.keep else "forget",
                "reasons": list(decision.reasons),
            }
            for decision in group.decisions
        ],
    )


def _title(group: Group) -> str:
    parts = [] if group.host is None else [f"host {safe(group.host)}"]
    parts += [] if group.paths is None else [", ".join([shown(path) for path in group.paths])]
    parts += [] if group.tags is None else [f"tags {safe(','.join(group.tags)) or 'none'}"]
    return ", ".join(parts) or "all snapshots"


def _row(decision: Decision) -> tuple[str, ...]:
    one = decision.candidate
    action = "keep" if decision.keep else "forget"
    tags = safe(",".join(sorted(one.tags)))
    return one.id[:ID_SHOWN], format_time(one.time), tags, action, safe(", ".join(decision.reasons))


def estimate(output: Output, catalogue: Catalogue, gone: Sequence[Snapshot]) -> Freed | None:
    """What forgetting `gone` would free; None, and a warning, if damage keeps one from knowing. Raises Interrupted."""
    from lox.progress import Reporter
    from repository.freed import freed_by_forgetting
    from repository.trash import load_live

    ids = {snapshot.id for snapshot in gone}
    reporter = Reporter(output)
    try:
        live = load_live(catalogue.repository)
        if live.unreadable:
            return None  # told of at the end
        with reporter, stopping(reporter.stop, quiet=output.json):
            kept = [snapshot for snapshot in live if snapshot.id not in ids]
            return freed_by_forgetting(catalogue.repository, catalogue.index, gone, kept, reporter.step)
    except Missing as error:
        catalogue.tell_damage(Damaged("a pack is missing", subject=error.subject))
    except Damaged as error:
        catalogue.tell_damage(error)
    return None


def show_freed(output: Output, count: int, freed: Freed | None) -> None:
    """The summary of a dry run."""
    fields = None if freed is None else asdict(freed)
    output.event("summary", forgotten=count, dry_run=True, freed=fields, exit_code=0)
    if output.quiet < 2:
        output.line(f"dry run: {plural(count, 'snapshot')} would be forgotten")
        output.line(_freed_text(freed))


def _freed_text(freed: Freed | None) -> str:
    if freed is None:
        return "what that would free is not known: some snapshots cannot be read"
    text = f"would free about {format_size(freed.stored)} ({format_size(freed.plain)} before compression)"
    if freed.packs:
        whole = f"{freed.whole_packs:,} of them ({format_size(freed.whole_bytes)})"
        text += f" in {plural(freed.packs, 'pack')}, {whole} with nothing else that is needed"
    return f"{text}; once purged from the trash and collected"


def show_simulations(output: Output, simulations: Sequence[Simulation]) -> None:
    """What is left of each source."""
    for one in simulations:
        if not output.quiet:
            output.line(f"after {plural(one.made, 'more backup')}, at most {one.most:,} snapshots at a time;")
    show_groups(output, [one.group for one in simulations])
    made, most = sum(one.made for one in simulations), sum(one.most for one in simulations)
    output.event("summary", simulated=made, most=most, sources=len(simulations), exit_code=0)
