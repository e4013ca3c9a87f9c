"""The tables of a repository as Parquet files, for DuckDB, pandas and the like.

    DIR/export.json                          what this is; "complete" is false while an export is under way
    DIR/snapshots/snapshots.parquet
    DIR/entries/snapshot=<id>/entries.parquet
    DIR/entry_chunks/snapshot=<id>/entry_chunks.parquet
    DIR/chunks/chunks.parquet
    DIR/packs/packs.parquet

A file has its name once it is whole. Snapshots never change, so what was exported of them is left alone the next time:
an export that was killed goes on where it was, and a later one adds what is new.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from lox.analysis.hidden_paths import PathHider
from lox.tables import Tables
from model.errors import Damaged, RunFailed, UsageError
from repository.snapshot import Snapshot
from repository.tables.of_chunks import chunks_reader, packs_table
from repository.tables.parts import Progress, silent
from repository.tables.schemas import TABLES

ABOUT = "export.json"
VERSION = 1  # of the layout and the columns
GROUP_ROWS = 1 << 17  # rows of a row group
_PARTITION = re.compile(r"snapshot=([0-9a-f]{32})")
_IDS = ("chunk", "pack")  # columns that no dictionary makes smaller


@dataclass(slots=True)
class Exported:
    """What an export did: rows by table, files written and left as they were, bytes written, and what could not be
    read."""

    rows: dict[str, int] = field(default_factory=dict)
    written: int = 0
    kept: int = 0
    bytes: int = 0
    damaged: list[Damaged] = field(default_factory=list)


def export(
    tables: Tables, folder: Path, names: Sequence[str] = tuple(TABLES), snapshots: Sequence[Snapshot] | None = None,
    hash_paths: bool = False, progress: Progress = silent,
) -> Exported:  # fmt: skip
    """Write the tables `names` into `folder`, the entries of `snapshots` (None: of all).

    With `hash_paths` paths are keyed hashes: equal in all snapshots, but nobody without the keys of the repository can
    tell what they were. Raises UsageError if something else is in `folder`, or if paths cannot be hidden; RunFailed if
    it cannot be written.
    """
    try:
        return _export(tables, folder, names, snapshots, hash_paths, progress)
    except OSError as error:
        hint = "files that are whole stay; the next export to this folder goes on there"
        raise RunFailed(
            "the export cannot be written", subject=str(folder), why=(error.strerror or str(error)).lower(), hint=hint
        ) from error


def _export(
    tables: Tables, folder: Path, names: Sequence[str], snapshots: Sequence[Snapshot] | None, hash_paths: bool,
    progress: Progress,
) -> Exported:  # fmt: skip
    hider = PathHider.of(tables.repository) if hash_paths else None
    about = {"version": VERSION, "repository": tables.repository.id.hex(), "paths_hashed": hash_paths}
    with _prepared(folder, about):
        writer = _Writer(folder, Exported())
        for name in names:
            if name in ("entries", "entry_chunks"):
                _remove_gone(folder / name, {one.id for one in tables.view.snapshots})
                wanted = tables.view.snapshots if snapshots is None else snapshots
                _export_snapshots(tables, writer, name, wanted, hider, progress)
            else:
                progress(f"exporting {name}", 0, 1)
                writer.write(name, name, _whole(tables, name, hider, progress))
        of = None if snapshots is None else sorted({one.id for one in snapshots})
        done = {"tables": list(names), "snapshots": of, "complete": not writer.done.damaged}
        _describe(folder, {**about, **done})
    return writer.done


def _export_snapshots(
    tables: Tables, writer: _Writer, name: str, snapshots: Sequence[Snapshot], hider: PathHider | None,
    progress: Progress,
) -> None:  # fmt: skip
    for number, snapshot in enumerate(snapshots):
        progress(f"exporting {name}", number, len(snapshots))

        def batches(snapshot: Snapshot = snapshot) -> Iterable[pa.RecordBatch]:
            reader = tables.entries(snapshot) if name == "entries" else tables.entry_chunks(snapshot)
            return reader if hider is None or name != "entries" else map(hider.entries, reader)

        writer.write(name, f"{name}/snapshot={snapshot.id}", batches, lasting=True)


def _whole(
    tables: Tables, name: str, hider: PathHider | None, progress: Progress
) -> Callable[[], Iterable[pa.RecordBatch]]:
    def read() -> Iterable[pa.RecordBatch]:
        if name == "chunks":
            reader: Iterable[pa.RecordBatch] = chunks_reader(tables.view)
            return reader
        table = tables.snapshots() if name == "snapshots" else packs_table(tables.view, progress=progress)
        if hider is not None and name == "snapshots":
            table = hider.snapshots(table)
        batches: list[pa.RecordBatch] = table.to_batches()
        return batches

    return read


class _Writer:
    """Writes files that have their name only once they are whole."""

    def __init__(self, folder: Path, done: Exported) -> None:
        self._folder = folder
        self.done = done

    def write(
        self, table: str, place: str, batches: Callable[[], Iterable[pa.RecordBatch]], lasting: bool = False
    ) -> None:
        """One table, or one partition of it. What is `lasting` and there already is left alone; what cannot be read is
        noted, and there is no file then."""
        folder = self._folder / place
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{table}.parquet"
        if lasting and path.exists():
            self.done.kept += 1
            self._count(table, pq.read_metadata(path).num_rows)
            return
        try:
            rows = _write_parquet(path, TABLES[table], batches())
        except Damaged as error:
            self.done.damaged.append(error)
            path.unlink(missing_ok=True)
            return
        self._count(table, rows)
        self.done.written += 1
        self.done.bytes += path.stat().st_size

    def _count(self, table: str, rows: int) -> None:
        self.done.rows[table] = self.done.rows.get(table, 0) + rows


def _write_parquet(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    rows = 0
    with _whole_file(path) as file:
        words = [one.name for one in schema if one.name not in _IDS]
        with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=words) as writer:
            for table in _gathered(schema, batches):
                writer.write_table(table, row_group_size=GROUP_ROWS)
                rows += table.num_rows
    return rows


def _gathered(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches joined to tables of about `GROUP_ROWS` rows."""
    pending: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        pending.append(batch)
        rows += batch.num_rows
        if rows >= GROUP_ROWS:
            yield pa.Table.from_batches(pending, schema)
            pending, rows = [], 0
    if pending:
        yield pa.Table.from_batches(pending, schema)


@contextmanager
def _whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file, for its owner only, that has its name once it is whole and durable; gone if writing it fails."""
    hidden = path.with_name(f".{path.name}.part")
    number = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        hidden.replace(path)
    except BaseException:
        hidden.unlink(missing_ok=True)
        raise


@contextmanager
def _prepared(folder: Path, about: dict[str, object]) -> Iterator[None]:
    """The folder for one export at a time, its description saying that it is not complete."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError("somebody else is exporting to this folder", subject=str(folder)) from error
        _check_ours(folder, about)
        _describe(folder, {**about, "complete": False})
        yield
    finally:
        os.close(lock)


def _check_ours(folder: Path, about: dict[str, object]) -> None:
    hint = "name a new folder"
    try:
        found = json.loads((folder / ABOUT).read_bytes())
    except FileNotFoundError:
        if any(one.name != f".{ABOUT}.part" for one in folder.iterdir()):
            raise UsageError("the folder is not empty", subject=str(folder), hint=hint) from None
        return
    except ValueError as error:
        raise UsageError("the folder holds something else", subject=str(folder), why=ABOUT, hint=hint) from error
    if not isinstance(found, dict) or any(found.get(key) != value for key, value in about.items()):
        raise UsageError(
            "the folder holds another export", subject=str(folder),
            why="of another repository, with paths treated in another way, or by another version", hint=hint,
        )  # fmt: skip


def _describe(folder: Path, about: dict[str, object]) -> None:
    with _whole_file(folder / ABOUT) as file:
        file.write(json.dumps(about, indent=1).encode())


def _remove_gone(folder: Path, ids: set[str]) -> None:
    """Partitions of snapshots that are not there any more."""
    for found in folder.iterdir() if folder.is_dir() else ():
        if (match := _PARTITION.fullmatch(found.name)) and match[1] not in ids:
            shutil.rmtree(found)
