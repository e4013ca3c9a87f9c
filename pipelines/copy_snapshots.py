"""The end of a copy: manifests with other names of chunks, then snapshots, with what was said about them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from model.errors import Damaged
from pipelines.copy_renamed import RenamedParts
from pipelines.copy_survey import Choice, Survey
from repository.annotations import copy_notes, load_annotations
from repository.claims import ClaimTable
from repository.metadata import MetadataStore
from repository.reliance import Reliance
from repository.reliance import commit as commit_safely
from repository.repository import Repository
from repository.sessions import Session
from repository.snapshot import WRITTEN_BY, Snapshot
from stages.settle import Settle

TOGETHER = 256  # snapshots whose rewritten manifests share packs and index objects


class Manifests:
    """Manifests of the source, rewritten for a target with other names."""

    def __init__(
        self, target: Repository, survey: Survey, renames: RenamedParts, claims: ClaimTable, settle: Settle
    ) -> None:
        self._metadata = MetadataStore(target, claims)
        self._survey = survey
        self._renames = renames
        self._claims = claims
        self._settle = settle

    def rewritten(self, snapshots: Sequence[Snapshot], failed: dict[str, str]) -> Iterator[tuple[Snapshot, Snapshot]]:
        """Each with what is to be written for it; its manifest is then stored. Those of which chunks are missing go to
        `failed`, with the reason. Raises StoreError."""
        for begin in range(0, len(snapshots), TOGETHER):
            pairs = []
            for snapshot in snapshots[begin : begin + TOGETHER]:
                try:
                    root = self._renames.root(self._survey.reader(snapshot), self._metadata, self._claims)
                except Damaged as error:
                    failed[snapshot.id] = str(error)
                else:
                    pairs.append((snapshot, snapshot._replace(root=root)))
            self._settle.take(self._metadata.finish())
            self._settle.write_index()
            yield from pairs


class SnapshotCopier:
    """Writes snapshots whose content is in the target, oldest first."""

    def __init__(
        self,
        source: Repository,
        target: Repository,
        session: Session,
        reliance: Reliance,
        choice: Choice,
        all_wanted: Sequence[Snapshot],
    ) -> None:
        self._source = source
        self._target = target
        self._session = session
        self._reliance = reliance
        self._known = choice.known
        self._origins = {snapshot.id: snapshot.made_as(source.id) for snapshot in all_wanted}
        self._annotations = load_annotations(source)
        self.copied: list[tuple[Snapshot, Snapshot]] = []
        self.remarks: list[str] = []

    def save(self, snapshot: Snapshot, rewritten: Snapshot) -> None:
        """Commit `rewritten` as the copy of `snapshot`. Raises StoreError, RunFailed."""
        origin = snapshot.made_as(self._source.id)
        copied = rewritten._replace(original=origin, parent=self._parent(snapshot)).under_new_id()
        if snapshot.writer:  # nobody takes over what it says of files, here as little as there
            copied = copied._replace(extra={**copied.extra, WRITTEN_BY: snapshot.writer})
        # Before the snapshot: a pin that came after it would come never, should we end in between.
        copy_notes(self._annotations.notes.get(snapshot.id, ()), self._target, copied.id)
        self.remarks += self._annotations.unreadable.get(snapshot.id, ())

        def put() -> tuple[Snapshot, str]:
            copied.put(self._target)
            return copied, copied.name

        commit_safely(self._session, self._reliance, self._target, put)
        self._known[origin] = copied.id
        self.copied.append((snapshot, copied))

    def _parent(self, snapshot: Snapshot) -> str | None:
        """What its parent is called in the target, if it is there."""
        if snapshot.parent is None:
            return None
        return self._known.get(self._origins.get(snapshot.parent, (self._source.id, snapshot.parent)))
