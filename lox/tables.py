"""What `lox.open` gives: a repository as Arrow tables. docs/tables.md has the columns and their units."""

from __future__ import annotations

from typing import TYPE_CHECKING

from repository.tables.of_chunks import chunks_reader, packs_table
from repository.tables.of_entries import entries_reader, entry_chunks_reader
from repository.tables.of_snapshots import snapshots_table
from repository.tables.view import View

if TYPE_CHECKING:
    import pyarrow as pa

    from pipelines.run_records import RunStore
    from repository.repository import Repository
    from repository.snapshot import Snapshot


class Tables:
    """A repository as it was when it was first asked; open it again to see what came later.

    A snapshot is named by its id, the beginning of it, or ``latest``. Readers are read once: ask again for another.
    """

    def __init__(self, view: View) -> None:
        self.view = view

    @property
    def repository(self) -> Repository:
        """The repository itself."""
        return self.view.repository

    def snapshots(self) -> pa.Table:
        """A row for each snapshot, oldest first."""
        return snapshots_table(self.view)

    def entries(self, snapshot: str | Snapshot = "latest") -> pa.RecordBatchReader:
        """The entries of a snapshot in manifest order, part by part. Raises NotFound, Damaged (also on reading on)."""
        return entries_reader(self.view.manifest(self.view.snapshot(snapshot)))

    def entry_chunks(self, snapshot: str | Snapshot = "latest") -> pa.RecordBatchReader:
        """The chunks of these entries, some thousand at a time. Raises as `entries`."""
        return entry_chunks_reader(self.view.manifest(self.view.snapshot(snapshot)))

    def chunks(self) -> pa.RecordBatchReader:
        """All stored chunks, some thousand at a time, in no particular order. Raises Damaged."""
        return chunks_reader(self.view)

    def packs(self, live: bool = True) -> pa.Table:
        """A row for each pack. To know what of it is live, all manifests are read: without `live` the columns that say
        so are null. Raises Damaged."""
        return packs_table(self.view, live)

    def runs(self) -> pa.Table:
        """A row for each run that this host remembers, the newest last: backups, restores and copies."""
        return self._run_store.list()

    def timeline(self, run: str = "last") -> pa.Table:
        """What each stage of a run did, second by second. Raises NotFound, Damaged."""
        return self._run_store.open(run).timeline

    @property
    def _run_store(self) -> RunStore:
        from pipelines.run_records import RunStore

        return RunStore(self.repository.id)

    def __repr__(self) -> str:
        return f"Tables({self.repository!r})"
