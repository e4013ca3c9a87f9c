"""The tables of entries and of their chunks: a stream of bounded batches, part by part of the manifest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.entries import I64, U8, U32, Kind
from model.names import PLAIN, shown
from repository.entry_table import RECORD, child_sums, chunks_of, column, content_sizes, id_array
from repository.manifest_reader import ManifestReader
from repository.tables.schemas import ENTRIES, ENTRY_CHUNKS, WORD

BATCH_ROWS = 1 << 16  # rows of chunks in a batch
_KINDS = pa.array([kind.name.lower().replace("_", "-") for kind in Kind])
_EXTENSION = rb"[^/]\.(?P<extension>[^./]{1,16})$"


def entries_reader(reader: ManifestReader) -> pa.RecordBatchReader:
    """All entries in `ENTRIES`; reading on may raise Damaged. Holds one part of the manifest, and the next one."""
    return pa.RecordBatchReader.from_batches(ENTRIES, _entries(reader))


def entry_chunks_reader(reader: ManifestReader) -> pa.RecordBatchReader:
    """The chunks of all entries in `ENTRY_CHUNKS`; reading on may raise Damaged. Also of a huge file only one list of
    chunks is held at a time."""
    return pa.RecordBatchReader.from_batches(ENTRY_CHUNKS, _entry_chunks(reader))


def _entries(reader: ManifestReader) -> Iterator[pa.RecordBatch]:
    first = 0
    for table in reader:
        yield entry_batch(table, first)
        first += table.num_rows


def entry_batch(table: pa.Table, first: int) -> pa.RecordBatch:
    """Rows of a manifest in `ENTRIES`, numbered from `first`."""
    files = pc.equal(table["kind"], int(Kind.FILE))
    columns = {
        "entry": pa.array(np.arange(first, first + table.num_rows)),
        "path": table["path"],
        "text": texts(table["path"]),
        "extension": extensions(table["path"], files),
        "kind": pa.DictionaryArray.from_arrays(pa.array(column(table, "kind").astype(np.int8)), _KINDS),
        "user": texts(table["user"]),
        "group": texts(table["group"]),
        "content": pa.array(content_sizes(table)),
        "mtime": table["mtime"].cast(pa.timestamp("ns", "UTC")),
        "ctime": table["ctime"].cast(pa.timestamp("ns", "UTC")),
        "inode": table["ino"],
        "links": table["nlink"],
        "chunks": pa.array(chunk_counts(table)),
        "problem": texts(table["problem"]),
    }
    whole = [columns.get(name, table[name] if name in table.column_names else None) for name in ENTRIES.names]
    return pa.Table.from_arrays(whole, schema=ENTRIES).combine_chunks().to_batches()[0]


def texts(names: pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Names for the eye, null for null."""
    plain = pc.match_substring_regex(names, b"^" + PLAIN + b"$")
    if pc.all(plain, skip_nulls=True).as_py() is not False:
        return names.cast(pa.string())
    cache: dict[bytes, str] = {}
    return pa.array([None if name is None else _shown(name, cache) for name in names.to_pylist()], pa.string())


def _shown(name: bytes, cache: dict[bytes, str]) -> str:
    text = cache.get(name)
    if text is None:
        text = cache[name] = shown(name)
    return text


def extensions(paths: pa.ChunkedArray, files: pa.ChunkedArray) -> pa.ChunkedArray:
    """Extensions of files, in lower case, for the eye; empty where there is none (``.bashrc`` has none)."""
    found = pc.struct_field(pc.extract_regex(paths, _EXTENSION), 0).combine_chunks().dictionary_encode()
    if isinstance(found, pa.ChunkedArray):
        found = found.combine_chunks()
    names = pa.array([shown(name).lower() for name in found.dictionary.to_pylist()], pa.string())
    return pc.if_else(files, pc.fill_null(names.take(found.indices), ""), "")


def chunk_counts(table: pa.Table) -> I64:
    """Chunks of the content of each row; of files that name lists of chunks, those in the lists."""
    counts: I64 = pc.list_value_length(table["chunks"]).to_numpy().astype(np.int64)
    deep = column(table, "depth") == 1
    if deep.any():
        held = child_sums(table["lengths"], lambda lengths: lengths.to_numpy(zero_copy_only=False).astype(np.int64))
        counts = np.where(deep, held // RECORD.itemsize, counts)
    return counts


def _entry_chunks(reader: ManifestReader) -> Iterator[pa.RecordBatch]:
    first = 0
    for table in reader:
        lists = chunks_of(table)
        at = 0
        for row in [*np.flatnonzero(lists.depth == 1).tolist(), table.num_rows]:
            begin, end = int(lists.offsets[at]), int(lists.offsets[row])
            counts = np.diff(lists.offsets[at : row + 1]).astype(np.int64)
            entry = np.repeat(np.arange(first + at, first + row), counts)
            seq = np.arange(end - begin) - np.repeat(np.cumsum(counts) - counts, counts)
            yield from _batches(entry, seq, lists.ids[begin:end], lists.length[begin:end])
            if row < table.num_rows:
                yield from _deep(reader, first + row, *lists.row(row))
            at = row + 1
        first += table.num_rows


def _deep(reader: ManifestReader, entry: int, ids: U8, length: U32) -> Iterator[pa.RecordBatch]:
    """The chunks of one huge file, list by list."""
    seq = 0
    for number in range(len(ids)):
        chunks, sizes = reader.expand(ids[number : number + 1], length[number : number + 1])
        yield from _batches(np.full(len(chunks), entry), np.arange(seq, seq + len(chunks)), chunks, sizes)
        seq += len(chunks)


def _batches(entry: I64, seq: npt.NDArray[np.int64], ids: U8, length: U32) -> Iterator[pa.RecordBatch]:
    for at in range(0, len(ids), BATCH_ROWS):
        some = slice(at, at + BATCH_ROWS)
        columns = [pa.array(entry[some]), pa.array(seq[some]), id_array(ids[some]), pa.array(length[some])]
        yield pa.RecordBatch.from_arrays(columns, schema=ENTRY_CHUNKS)


def words(numbers: npt.NDArray[np.integer], texts: list[str]) -> pa.DictionaryArray:
    """A column of few words: `texts` by number; null for a negative number."""
    codes = pa.array(numbers.astype(np.int8), mask=numbers < 0)
    return pa.DictionaryArray.from_arrays(codes, pa.array(texts)).cast(WORD)
