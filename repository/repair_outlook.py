"""What repair cannot bring back, and of that, what the next backup of the same source would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from repository.affected import Survey, Wound
from repository.snapshot import Snapshot


@dataclass(slots=True)
class Outlook:
    """Files that stay damaged. `curable` are those a backup of one of the `sources` stores again, if they are still
    there and unchanged; `lost` cannot be healed from here. Which of the two the `unsure` are cannot be told: of the
    latest snapshot of their source not all entries are known. `unlisted` are the snapshots of which that is so."""

    curable: list[Wound] = field(default_factory=list)
    unsure: list[Wound] = field(default_factory=list)
    lost: list[Wound] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    sources: list[tuple[str, tuple[bytes, ...]]] = field(default_factory=list)  # host and paths, to be backed up

    @property
    def whole(self) -> bool:
        return not (self.curable or self.unsure or self.lost or self.unlisted)


def outlook_of(survey: Survey, snapshots: Sequence[Snapshot]) -> Outlook:
    """A chunk that the latest snapshot of a source lacks as well was on that source's disk last time it was looked at:
    the next backup reads the file again and stores it. With it heals every file of any snapshot that lacks no other."""
    source_of = {snapshot.id: (snapshot.host, tuple(sorted(snapshot.paths))) for snapshot in snapshots}
    latest = {source_of[snapshot.id]: snapshot.id for snapshot in snapshots}  # they come oldest first
    newest = set(latest.values())
    at_hand = {chunk for wound in survey.wounds if newest.intersection(wound.snapshots) for chunk in wound.chunks}
    hidden = {source for source, snapshot_id in latest.items() if snapshot_id in survey.unlisted}
    outlook = Outlook(unlisted=sorted(set(survey.unlisted)))
    for wound in survey.wounds:
        sources = {source_of[snapshot_id] for snapshot_id in wound.snapshots}
        if wound.chunks <= at_hand:
            outlook.curable.append(wound)
        elif sources & hidden:
            outlook.unsure.append(wound)
        else:
            outlook.lost.append(wound)
    current = {each for wound in survey.wounds for each in wound.snapshots if each in newest}
    outlook.sources = sorted({source_of[each] for each in current} | hidden)
    return outlook
