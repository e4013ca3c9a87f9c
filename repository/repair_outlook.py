"""What repair cannot bring back, and of that, what the next backup of the same source would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from repository.affected import Survey, Wound
from repository.snapshot import Snapshot


@dataclass(slots=True)
class Outlook:
    """Files that stay damaged. `curable` are those a backup of one of the `sources` stores again, if they are still
    there and unchanged; `lost` cannot be healed from here. Of the snapshots `unlisted` some entries cannot be named."""

    curable: list[Wound] = field(default_factory=list)
    lost: list[Wound] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)
    sources: list[tuple[str, tuple[bytes, ...]]] = field(default_factory=list)  # host and paths, to be backed up

    @property
    def whole(self) -> bool:
        return not (self.curable or self.lost or self.unlisted)


def outlook_of(survey: Survey, snapshots: Sequence[Snapshot]) -> Outlook:
    """A chunk that the latest snapshot of a source lacks as well was on that source's disk last time it was looked at:
    the next backup reads the file again and stores it. With it heals every file of any snapshot that lacks no other."""
    latest = {(snapshot.host, tuple(sorted(snapshot.paths))): snapshot.id for snapshot in snapshots}  # oldest first
    sources = {snapshot_id: source for source, snapshot_id in latest.items()}
    at_hand: set[bytes] = set()
    wanted: set[tuple[str, tuple[bytes, ...]]] = set()
    for wound in survey.wounds:
        if current := [snapshot_id for snapshot_id in wound.snapshots if snapshot_id in sources]:
            at_hand |= wound.chunks
            wanted |= {sources[snapshot_id] for snapshot_id in current}
    curable = [wound for wound in survey.wounds if wound.chunks <= at_hand]
    lost = [wound for wound in survey.wounds if not wound.chunks <= at_hand]
    return Outlook(curable, lost, sorted(set(survey.unlisted)), sorted(wanted))
