"""How far a backup is, for whoever watches it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from model.batches import Listing
from pipelines.options import Progress, Watch
from repository.snapshot import Snapshot
from runtime.trace import Trace
from sources.files.scan import ScanStats
from stages.commit import CommitCounts


class RunProgress:
    """Turns the state of the run into what the watcher is told."""

    def __init__(self, watch: Watch, counts: CommitCounts, scan: ScanStats, parent: Snapshot | None) -> None:
        self._watch = watch
        self._counts = counts
        self._scan = scan
        self._parent = parent
        self._current = b""

    def following(self, listings: Iterable[Listing]) -> Iterator[Listing]:
        """The listings, with an eye on where they are."""
        for listing in listings:
            if len(listing.fresh):
                self._current = listing.fresh.paths[len(listing.fresh) - 1]
            yield listing

    def tick(self, trace: Trace) -> None:
        self._watch.traced(trace)
        # Rows are committed pack by pack, which looks like standing still: what was read moves steadily. The scan is
        # never more than a few batches ahead of it.
        counts, scan, known = self._counts, self._scan, self._parent.stats if self._parent else {}
        unchanged = scan.bytes_total - scan.bytes_to_read
        self._watch.progress(
            Progress(
                phase="backup",
                files_done=scan.files,
                bytes_done=max(0, unchanged) + trace.stage("read").bytes_out,
                files_total=scan.files if scan.finished else known.get("files"),
                bytes_total=scan.bytes_total if scan.finished else known.get("bytes_total"),
                problems=len(counts.problems),
                current=self._current,
                limiting_stage=trace.limiting().name,
            )
        )
