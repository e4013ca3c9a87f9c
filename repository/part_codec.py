"""Parts and their table as bytes: Arrow IPC streams, written the same every time and read without trust."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from model.entries import order_key
from model.errors import Damaged
from repository.entry_checks import entry_fault, order_fault, path_fault
from repository.entry_table import ENTRY_SCHEMA, paths_of

PART_BYTES_MAX = 128 << 20  # bytes of an encoded part; what one segment can hold
PART_ROWS_MAX = 16384
TABLE_ROWS = 16384  # parts that one chunk of the parts table lists

PARTS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.binary(32), False),
        pa.field("length", pa.uint32(), False),
        pa.field("rows", pa.uint32(), False),
        pa.field("first", pa.binary(), False),
        pa.field("last", pa.binary(), False),
    ]
)
_OPTIONS = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V5, compression=None)
_UNDECODABLE = (pa.ArrowException, ValueError, OSError, EOFError, MemoryError, struct.error, IndexError, StopIteration)


@dataclass(frozen=True, slots=True)
class PartRef:
    """A stored part: the id of its one chunk, its length in bytes, its rows, and the paths of first and last row."""

    id: bytes
    length: int
    rows: int
    first: bytes
    last: bytes


def encode_part(rows: pa.Table) -> bytes:
    """Rows of `ENTRY_SCHEMA` as an Arrow IPC stream of one uncompressed record batch; equal rows give equal bytes."""
    # Concatenating copies every buffer to exactly what the rows need; of a mere slice Arrow writes leftovers too.
    return _encode(pa.concat_tables([rows, rows.schema.empty_table()]).combine_chunks())


def decode_part(plain: bytes, ref: PartRef, subject: str) -> pa.Table:
    """The rows of a part, each of them a possible entry, in order. Shares the memory of `plain`. Raises Damaged."""
    rows = _decode(plain, ENTRY_SCHEMA, PART_ROWS_MAX, subject)
    if rows.num_rows != ref.rows or not ref.rows:
        raise _damaged(subject, f"it has {rows.num_rows} rows instead of {ref.rows}")
    paths = paths_of(rows["path"])
    if (paths[0], paths[len(paths) - 1]) != (ref.first, ref.last):
        raise _damaged(subject, "it has other rows than the table of parts says")
    if fault := path_fault(paths) or order_fault(paths, None):
        raise _damaged(subject, f"{fault[0]}: {fault[1].decode(errors='replace')}")
    if wrong := entry_fault(rows):
        raise _damaged(subject, f"{wrong[0]}: {paths[wrong[1]].decode(errors='replace')}")
    return rows


def encode_parts(parts: Sequence[PartRef]) -> bytes:
    """A chunk of the parts table."""
    columns = [
        pa.array([part.id for part in parts], pa.binary(32)),
        pa.array([part.length for part in parts], pa.uint32()),
        pa.array([part.rows for part in parts], pa.uint32()),
        pa.array([part.first for part in parts], pa.binary()),
        pa.array([part.last for part in parts], pa.binary()),
    ]
    return _encode(pa.table(columns, schema=PARTS_SCHEMA))


def decode_parts(plain: bytes, subject: str) -> list[PartRef]:
    """The parts listed in a chunk of the parts table, in order, none overlapping the next. Raises Damaged."""
    table = _decode(plain, PARTS_SCHEMA, TABLE_ROWS, subject)
    parts = [PartRef(*row.values()) for row in table.to_pylist()]
    before = None
    for part in parts:
        if not 0 < part.rows <= PART_ROWS_MAX or not 0 < part.length <= PART_BYTES_MAX:
            raise _damaged(subject, "a part has an impossible size")
        if order_key(part.first) > order_key(part.last) or (before and order_key(before.last) >= order_key(part.first)):
            raise _damaged(subject, "its parts are not in order")
        before = part
    return parts


def _encode(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=_OPTIONS) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)
    plain: bytes = sink.getvalue().to_pybytes()
    return plain


def _decode(plain: bytes, schema: pa.Schema, rows_max: int, subject: str) -> pa.Table:
    """The one record batch in `plain`, or no rows. Its buffers lie within `plain`: nothing is allocated by its say."""
    try:
        reader = pa.ipc.MessageReader.open_stream(pa.py_buffer(plain))
        head = reader.read_next_message()
        if head.type != "schema" or not pa.ipc.read_schema(head).equals(schema, check_metadata=False):
            raise _damaged(subject, "its columns are not those of this format")
        batches: list[pa.RecordBatch] = []
        for message in _messages(reader):
            if batches or message.type != "record batch" or _is_compressed(message.metadata):
                raise _damaged(subject, "it is more than one plain record batch")
            batches.append(pa.ipc.read_record_batch(message, schema))
            batches[0].validate(full=True)
    except _UNDECODABLE as error:
        raise _damaged(subject, "it does not decode") from error
    table = pa.Table.from_batches(batches, schema)
    if table.num_rows > rows_max:
        raise _damaged(subject, "it has too many rows")
    for field in schema:
        if not field.nullable and table[field.name].null_count:
            raise _damaged(subject, f"a row has no {field.name}")
    return table


def _messages(reader: pa.ipc.MessageReader) -> list[pa.ipc.Message]:
    messages: list[pa.ipc.Message] = []
    while len(messages) < 3:
        try:
            messages.append(reader.read_next_message())
        except StopIteration:
            break
    return messages


def _is_compressed(metadata: pa.Buffer) -> bool:
    """Whether a record batch message asks for decompression, to a size of its own choice: ours never do.

    Two steps through the flatbuffer: Message.header (field 2) → RecordBatch.compression (field 3).
    """
    data = memoryview(metadata)
    message = struct.unpack_from("<I", data)[0]
    header = _field(data, message, 2)
    if not header:
        return True
    batch = header + struct.unpack_from("<I", data, header)[0]
    return bool(_field(data, batch, 3))


def _field(data: memoryview, table: int, number: int) -> int:
    """Place of a flatbuffer table's field, 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    if vtable < 0 or table < 0:
        raise ValueError("offset out of bounds")
    if struct.unpack_from("<H", data, vtable)[0] < 4 + 2 * number + 2:
        return 0
    offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
    return table + int(offset) if offset else 0


def _damaged(subject: str, why: str) -> Damaged:
    return Damaged("a manifest is not valid", subject=subject, why=why, hint="lox check lists what it concerns")
