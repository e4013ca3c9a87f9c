"""How much there is to back up, found out beside the run, so that a first backup has a remaining time as well."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from model.errors import LoxError

if TYPE_CHECKING:
    from pipelines.backup import BackupRequest


class BackgroundCount:
    """Walks the same tree as the run, in a thread of its own. Only the totals count; trouble is the run's business."""

    def __init__(self, request: BackupRequest) -> None:
        self._request = request
        self._stop = threading.Event()
        self._totals: tuple[int, int] | None = None
        self._thread: threading.Thread | None = None

    @property
    def totals(self) -> tuple[int, int] | None:
        """Files and bytes, once they are known."""
        return self._totals

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._count, name="count", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop counting; returns when the thread is gone."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _count(self) -> None:
        from sources.files.scan import Scanner, ScanOptions

        request = self._request
        options = ScanOptions(
            excludes=request.excludes,
            includes=request.includes,
            exclude_caches=request.exclude_caches,
            one_file_system=request.one_file_system,
            exclude_larger_than=request.exclude_larger_than,
            threads=0,
        )
        try:
            scanner = Scanner(request.paths, options)
            for _ in scanner:
                if self._stop.is_set():
                    return
        except (LoxError, OSError):
            return
        self._totals = scanner.stats.files, scanner.stats.bytes_total
