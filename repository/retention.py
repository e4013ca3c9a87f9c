"""Which snapshots a policy keeps, and why. Pure: no clock, no store; `effective_times` asks the store for it.

Snapshots are grouped (by host and paths unless told otherwise), and in each group every rule looks at them from the
newest to the oldest. A rule ``daily 7`` keeps the latest snapshot of each of the last seven days that have one; hours,
ISO weeks, months and years likewise, as the calendar of the chosen time zone has them. What any rule keeps is kept.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

from model.errors import Missing, UsageError
from repository.annotations import Annotations
from repository.snapshot import FUTURE, Snapshot

if TYPE_CHECKING:
    from repository.repository import Repository

SECOND = 10**9  # ns
GROUP_KEYS = ("host", "paths", "tags")
LAST_OF_SOURCE = "last of its source"
UNDATED = "dated in the future"

_CREDIBLE = 1_577_836_800 * SECOND  # 2020: files dated before were copied without their times
_FIRST, _LAST = -62_000_000_000, 253_000_000_000  # seconds since the epoch that every calendar and time zone holds
_SPAN = re.compile(r"(?:(\d{1,6})y)?(?:(\d{1,6})m)?(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?\Z")

_BUCKETS: Mapping[str, Callable[[datetime], Hashable]] = {
    # The hour that clocks go through twice in autumn is two hours: `fold` tells them apart.
    "hourly": lambda moment: (moment.date(), moment.hour, moment.fold),
    "daily": lambda moment: moment.date(),
    "weekly": lambda moment: moment.isocalendar()[:2],
    "monthly": lambda moment: (moment.year, moment.month),
    "yearly": lambda moment: moment.year,
}
COUNTS = ("last", *_BUCKETS)


@dataclass(frozen=True, slots=True)
class Span:
    """A duration of the calendar, as ``2y5m7d3h``."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    @classmethod
    def parse(cls, text: str) -> Span:
        """``1y``, ``6m``, ``2w``, ``30d``, ``36h`` or several of them in this order. Raises UsageError."""
        match = _SPAN.match(text.strip())
        numbers = [int(number or 0) for number in match.groups()] if match else []
        if not any(numbers):
            raise UsageError("not a duration", subject=text, hint="write for example 2y5m7d3h, 6m or 30d; above zero")
        years, months, weeks, days, hours = numbers
        return cls(years, months, days + 7 * weeks, hours)

    def before(self, moment: datetime) -> datetime:
        """The same wall-clock time so much earlier; the 31st becomes the last day of a shorter month."""
        month = moment.year * 12 + moment.month - 1 - (12 * self.years + self.months)
        if month < 24:
            return moment.replace(year=2, month=1, day=1)
        year, month = month // 12, month % 12 + 1
        day = min(moment.day, calendar.monthrange(year, month)[1])
        try:
            there = moment.replace(year=year, month=month, day=day) - timedelta(days=self.days)
            # Hours are spent on the clock on the wall no more: they are real ones.
            return datetime.fromtimestamp(there.timestamp() - 3600 * self.hours, moment.tzinfo)
        except (OverflowError, ValueError, OSError):
            return moment.replace(year=2, month=1, day=1)


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep: how many of each kind, what is young enough, what has a set of tags. Nothing set keeps nothing."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Span | None = None  # before the newest snapshot of the group
    tags: tuple[frozenset[str], ...] = ()  # all tags of any of these sets

    def check(self, known_tags: Iterable[str]) -> None:
        """Raises UsageError for a policy that keeps nothing, has a negative number, or a tag not in `known_tags`."""
        for name in COUNTS:
            if getattr(self, name) < 0:
                raise UsageError("a policy counts from 0", subject=f"--keep-{name} {getattr(self, name)}")
        if not any(getattr(self, name) for name in COUNTS) and self.within is None and not self.tags:
            raise UsageError("the policy keeps nothing", hint="say what to keep: --keep-daily 7, --keep-within 30d ...")
        known = set(known_tags)
        for wanted in self.tags:
            if not wanted or not wanted <= known:
                unknown = ", ".join(sorted(wanted - known)) or "an empty tag"
                raise UsageError("no snapshot has this tag", subject=unknown, hint="lox snapshots shows the tags")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot as a policy sees it. `time` is ns since the epoch; `protected` says why it is kept anyway.

    One that is not `dated` has a time nobody can believe: it is kept, and no rule counts it.
    """

    id: str
    time: int
    host: str = ""
    paths: tuple[bytes, ...] = ()
    tags: frozenset[str] = frozenset()
    protected: tuple[str, ...] = ()
    dated: bool = True
    writer: str = ""  # the write-only machine that made it: it may say that it is any host

    @property
    def source(self) -> tuple[str, tuple[bytes, ...], str]:
        """What it is a backup of, and who says so."""
        return self.host, tuple(sorted(self.paths)), self.writer

    @property
    def age(self) -> tuple[int, str]:
        """Orders snapshots, oldest first."""
        return self.time, self.id

    @property
    def kept_anyway(self) -> tuple[str, ...]:
        """Why it is kept, whatever the rules say; empty if they decide."""
        return self.protected if self.dated else (*self.protected, UNDATED)


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a snapshot: kept for these reasons, or forgotten if there is none."""

    candidate: Candidate
    reasons: tuple[str, ...] = ()

    @property
    def keep(self) -> bool:
        return bool(self.reasons)


@dataclass(frozen=True, slots=True)
class Group:
    """The snapshots that a policy was applied to together, newest first. What is not grouped by is None."""

    host: str | None
    paths: tuple[bytes, ...] | None
    tags: tuple[str, ...] | None
    decisions: tuple[Decision, ...] = field(default=())


def decide(
    candidates: Sequence[Candidate],
    policy: Policy,
    group_by: Sequence[str] = ("host", "paths"),
    zone: tzinfo | None = None,
    chosen: Callable[[Candidate], bool] = lambda candidate: True,
) -> list[Group]:
    """Apply `policy` to those of `candidates` that are `chosen`, group by group. `zone` None is the local time zone.

    The last of each source among all candidates is kept, chosen or not, and so is what is protected.
    """
    last = last_of_sources(candidates)
    grouped: dict[tuple[object, ...], list[Candidate]] = {}
    for one in candidates:
        if chosen(one):
            grouped.setdefault(_key(one, group_by), []).append(one)
    groups = []
    for members in grouped.values():
        members.sort(key=lambda one: one.age, reverse=True)
        reasons = _apply([one for one in members if one.dated], policy, zone)
        for one in members:
            reasons.setdefault(one.id, []).extend(one.kept_anyway)
            reasons[one.id] += [LAST_OF_SOURCE] if one.id in last else []
        decisions = tuple(Decision(one, tuple(reasons[one.id])) for one in members)
        groups.append(_group(members[0], group_by, decisions))
    return sorted(groups, key=lambda group: (group.host or "", group.paths or (), group.tags or ()))


def last_of_sources(candidates: Iterable[Candidate]) -> frozenset[str]:
    """The ids of the newest snapshot of each source; those without a credible date are the newest only if all are."""
    last: dict[object, Candidate] = {}
    for one in candidates:
        best = last.get(one.source)
        if best is None or (best.dated, best.age) < (one.dated, one.age):
            last[one.source] = one
    return frozenset(one.id for one in last.values())


def _key(one: Candidate, group_by: Sequence[str]) -> tuple[object, ...]:
    values = {"host": one.host, "paths": one.source[1], "tags": one.tags}
    return one.writer, *(values[name] for name in group_by)


def _group(one: Candidate, group_by: Sequence[str], decisions: tuple[Decision, ...]) -> Group:
    return Group(
        one.host if "host" in group_by else None,
        one.source[1] if "paths" in group_by else None,
        tuple(sorted(one.tags)) if "tags" in group_by else None,
        decisions,
    )


def _apply(members: Sequence[Candidate], policy: Policy, zone: tzinfo | None) -> dict[str, list[str]]:
    """The reasons of the rules for each of `members`, which are sorted, newest first."""
    reasons: dict[str, list[str]] = {one.id: [] for one in members}
    for one in members[: policy.last]:
        reasons[one.id].append("last")
    moments = [moment_of(one.time, zone) for one in members]
    for rule, bucket_of in _BUCKETS.items():
        seen: set[Hashable] = set()
        for one, moment in zip(members, moments, strict=True):
            bucket = bucket_of(moment)
            if bucket not in seen and len(seen) < getattr(policy, rule):
                seen.add(bucket)
                reasons[one.id].append(rule)
    if policy.within is not None and members:
        border = policy.within.before(moments[0]).timestamp()
        for one, moment in zip(members, moments, strict=True):
            if moment.timestamp() >= border:
                reasons[one.id].append("within")
    for one in members:
        reasons[one.id] += [f"tag {','.join(sorted(wanted))}" for wanted in policy.tags if wanted <= one.tags]
    return reasons


def moment_of(time: int, zone: tzinfo | None) -> datetime:
    """`time`, ns since the epoch, on the calendar of `zone` (None: local); the nearest moment a calendar holds."""
    return datetime.fromtimestamp(min(max(time // SECOND, _FIRST), _LAST), zone)


def effective_time(time: int, written: int | None, now: int) -> int | None:
    """When a snapshot was made, as far as others can tell; None if nobody can. All in ns since the epoch.

    The clock of a client may be wrong or lie: a date more than five minutes after the store got the object is not
    believed, the store's is. Where the store does not tell, one after `now` is not believed: nothing is.
    """
    if written is not None and written >= _CREDIBLE:
        return time if time <= written + FUTURE else written
    return time if time <= now + FUTURE else None


def candidates_of(
    repository: Repository, snapshots: Iterable[Snapshot], annotations: Annotations, now: int
) -> list[Candidate]:
    """What a policy needs to know of `snapshots` at `now`, ns since the epoch. Raises StoreError."""
    found = []
    for snapshot in snapshots:
        state = annotations.of(snapshot)
        try:
            written = repository.store.written(snapshot.name)
        except Missing:  # forgotten since it was listed
            continue
        time = effective_time(snapshot.time, written, now)
        known = snapshot.time if time is None else time
        found.append(
            Candidate(
                snapshot.id,
                known,
                snapshot.host,
                snapshot.paths,
                state.tags,
                state.protections(now),
                time is not None,
                snapshot.writer,
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class Simulation:
    """What is left of a source after simulated years; `most` is the largest number of snapshots at any time."""

    group: Group
    made: int
    most: int


def simulate(
    candidates: Sequence[Candidate],
    policy: Policy,
    times: Sequence[int],
    zone: tzinfo | None = None,
) -> list[Simulation]:
    """Go on with the history of each source: a backup at each of `times` (ns since the epoch), the policy applied
    after each. New snapshots have the tags of the newest there was; what is pinned or held now stays so.
    """
    sources: dict[object, list[Candidate]] = {}
    for one in sorted(candidates, key=lambda one: one.age):
        sources.setdefault(one.source, []).append(one)
    found = []
    for history in sources.values():
        kept, made, most = history, 0, len(history)
        groups = decide(kept, policy, zone=zone)
        for time in times:
            made += 1
            new = replace(history[-1], id=f"simulated {made:08d}", time=time, protected=(), dated=True)
            groups = decide([*kept, new], policy, zone=zone)
            kept = [decision.candidate for decision in groups[0].decisions if decision.keep]
            most = max(most, len(kept))
        left = tuple(decision for decision in groups[0].decisions if decision.keep)
        found.append(Simulation(replace(groups[0], decisions=left), made, most))
    return found
