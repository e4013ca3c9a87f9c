"""The columns of every table, each with its unit and what it means (docs/tables.md shows the same).

Three kinds of bytes look alike and are not: *logical* bytes are the content of files as users see it (holes of
sparse files are none), *unique* bytes what
is left of them after deduplication, *stored* bytes what lies in the store, compressed and sealed.
"""

from __future__ import annotations

import pyarrow as pa

CHUNK_ID = pa.binary(32)
PACK_ID = pa.binary(16)
TIME = pa.timestamp("ns", "UTC")
WORD = pa.dictionary(pa.int8(), pa.string())


def _schema(*fields: pa.Field) -> pa.Schema:
    return pa.schema(fields)


def _field(name: str, kind: pa.DataType, about: str, unit: str = "", nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable, metadata={"about": about, "unit": unit})


SNAPSHOTS = _schema(
    _field("snapshot", pa.string(), "its id, 32 hex digits"),
    _field("time", TIME, "when the backup was made", "ns"),
    _field("started", TIME, "before the first entry was looked at", "ns"),
    _field("finished", TIME, "after the last one was stored", "ns"),
    _field("host", pa.string(), "where it was made"),
    _field("user", pa.string(), "by whom"),
    _field("mode", pa.string(), "incremental, differential or full"),
    _field("parent", pa.string(), "the snapshot whose unchanged entries were taken over", nullable=True),
    _field("paths", pa.list_(pa.binary()), "what was asked to be backed up"),
    _field(
        "hosts", pa.list_(pa.string()), "hosts that each backed up these paths; in entries below a folder of each name"
    ),
    _field("tags", pa.list_(pa.string()), "as they are now, notes included"),
    _field("comment", pa.string(), "as it is now"),
    _field("pinned", pa.bool_(), "pinned, held, or with a note that cannot be read: no policy forgets it"),
    _field("writer", pa.string(), "the write-only machine that made it", nullable=True),
    _field("original", pa.string(), "of a copy: the id it had where it was made", nullable=True),
    _field("program", pa.string(), "what wrote it"),
    _field("problems", pa.int64(), "entries with a problem", "entries"),
    _field("entries", pa.int64(), "all entries", "entries"),
    _field("parts", pa.int64(), "parts of its manifest", "parts"),
    _field("manifest_bytes", pa.int64(), "its parts before deduplication and compression", "logical bytes"),
    _field("files", pa.int64(), "files, as the run counted them", "files", nullable=True),
    _field(
        "length_bytes",
        pa.int64(),
        "st_size of its files, holes included, as the run counted it",
        "length bytes",
        nullable=True,
    ),
    _field(
        "new_bytes",
        pa.int64(),
        "content that no snapshot had before; without deduplication all that was read",
        "unique bytes",
        nullable=True,
    ),
    _field("stored_bytes", pa.int64(), "what the run added to the store", "stored bytes", nullable=True),
)

ENTRIES = _schema(
    _field("entry", pa.int64(), "number of the entry in its snapshot, from 0, in manifest order"),
    _field("path", pa.binary(), "exact bytes, relative to /, without a slash at either end"),
    _field("text", pa.string(), "the path for the eye: different paths always look different"),
    _field("extension", pa.string(), "of a file, in lower case, without the dot; empty if there is none"),
    _field("kind", WORD, "file, directory, symlink, fifo, char-device, block-device, socket, unknown"),
    _field("mode", pa.uint32(), "st_mode"),
    _field("uid", pa.uint32(), "number of the owner"),
    _field("gid", pa.uint32(), "number of the group"),
    _field("user", pa.string(), "name of the owner for the eye; empty if it has none"),
    _field("group", pa.string(), "name of the group for the eye; empty if it has none"),
    _field("size", pa.int64(), "st_size: where it ends, holes included", "length bytes"),
    _field("content", pa.int64(), "bytes of content: of sparse files without the holes, of others than files 0",
           "logical bytes"),
    _field("mtime", TIME, "last change of the content", "ns"),
    _field("ctime", TIME, "last change of the inode", "ns"),
    _field("inode", pa.uint64(), "st_ino"),
    _field("device", pa.uint32(), "number of the file system in this snapshot"),
    _field("links", pa.uint32(), "hard links"),
    _field("target", pa.binary(), "of a symbolic link, exact bytes", nullable=True),
    _field("chunks", pa.int64(), "chunks of its content", "chunks"),
    _field("problem", pa.string(), "what went wrong with it", nullable=True),
)  # fmt: skip

ENTRY_CHUNKS = _schema(
    _field("entry", pa.int64(), "number of the entry in its snapshot, as in entries"),
    _field("seq", pa.int64(), "number of the chunk in the content, from 0"),
    _field("chunk", CHUNK_ID, "chunk id, as in chunks"),
    _field("size", pa.uint32(), "length of the chunk", "logical bytes"),
)

CHUNKS = _schema(
    _field("chunk", CHUNK_ID, "chunk id; in several rows if the chunk lies in several places"),
    _field("size", pa.uint32(), "length of the chunk", "unique bytes"),
    _field("pack", PACK_ID, "pack id, as in packs"),
    _field("kind", WORD, "data: content of files; meta: manifests"),
    _field("segment", pa.uint32(), "number of its segment in the pack"),
    _field("offset", pa.uint32(), "where it begins in the opened segment", "unique bytes"),
    _field("segment_size", pa.uint32(), "length of the opened segment", "unique bytes"),
    _field("segment_stored", pa.uint32(), "length of the sealed segment", "stored bytes"),
    _field("stored", pa.float64(), "its part of the sealed segment, by length: an estimate, exact in sum",
           "stored bytes"),
    _field("used", pa.bool_(), "readers take this place; true in one row for each chunk"),
)  # fmt: skip

PACKS = _schema(
    _field("pack", PACK_ID, "pack id"),
    _field("kind", WORD, "data: content of files; meta: manifests", nullable=True),
    _field("size", pa.int64(), "of the object in the store; null if it is missing", "stored bytes", nullable=True),
    _field("indexed", pa.bool_(), "an index object lists it; others are leftovers of interrupted backups"),
    _field("condemned", pa.bool_(), "on its way out"),
    _field("written", pa.bool_(), "by a write-only machine"),
    _field("segments", pa.int64(), "segments in it", "segments"),
    _field("segment_stored", pa.int64(), "sealed segments; the rest of its size is header and footer", "stored bytes"),
    _field("segment_size", pa.int64(), "opened segments", "unique bytes"),
    _field("chunks", pa.int64(), "chunks in it", "chunks"),
    _field("live_chunks", pa.int64(), "of these, what snapshots need from here (those in the trash too)", "chunks",
           nullable=True),
    _field("live_size", pa.int64(), "length of these", "unique bytes", nullable=True),
    _field("live_stored", pa.float64(), "their part of the sealed segments, by length: an estimate", "stored bytes",
           nullable=True),
    _field("dead_stored", pa.float64(), "the rest of the sealed segments: nobody needs it, or it lies elsewhere too",
           "stored bytes", nullable=True),
)  # fmt: skip

TABLES = {
    "snapshots": SNAPSHOTS,
    "entries": ENTRIES,
    "entry_chunks": ENTRY_CHUNKS,
    "chunks": CHUNKS,
    "packs": PACKS,
}
