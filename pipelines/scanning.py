"""The scan of a backup: what is asked for, compared with the parent snapshot as far as that can be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from model.entries import U8, Bool
from model.errors import Damaged
from pipelines.options import EngineOptions
from repository.entry_table import chunks_of
from repository.host_parts import Manifest
from repository.snapshot import Snapshot
from sources.files.parent import Parent
from sources.files.scan import Scanner, ScanOptions

if TYPE_CHECKING:
    from pipelines.backup import BackupRequest


def scanner_of(
    request: BackupRequest,
    engine: EngineOptions,
    parent: Snapshot | None,
    manifest_of: Callable[[Snapshot], Manifest],
    contains: Callable[[U8], Bool],
) -> Scanner:
    """The feed of a backup. Iterating it raises UsageError if there is nothing to back up.

    `manifest_of` opens the manifest of the parent; `contains` says which chunks can still be had.
    """
    options = ScanOptions(
        excludes=request.excludes,
        includes=request.includes,
        exclude_caches=request.exclude_caches,
        one_file_system=request.one_file_system,
        exclude_larger_than=request.exclude_larger_than,
        threads=engine.scan_threads,
        batch_rows=engine.batch_rows,
        batch_bytes=engine.batch_bytes,
    )
    if parent is None:
        return Scanner(request.paths, options)
    try:
        reader = manifest_of(parent)
    except Damaged as error:  # a damaged parent costs time, not the backup
        scanner = Scanner(request.paths, options)
        scanner.stats.parent_trouble = error
        return scanner

    def stored(rows: pa.Table) -> Bool:
        """Rows whose content is all in the index: a file with a lost chunk is read again, which heals it."""
        whole = np.ones(rows.num_rows, dtype=bool)
        lists = reader.content(rows, lambda row, _: whole.__setitem__(row, False))
        for held in (lists, chunks_of(rows)):  # the content, and what lists the content of long files
            lost = np.flatnonzero(~contains(held.ids))
            whole[np.searchsorted(held.offsets, lost, side="right") - 1] = False
        return whole

    return Scanner(request.paths, options, Parent(reader.subtree(b""), parent.started, stored))
