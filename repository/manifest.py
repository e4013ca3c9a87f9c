"""The manifest of a snapshot: the table of its entries, cut into parts that are stored like any other data.

    snapshot → chunks of the parts table → parts → entries

A part ends where a directory begins whose path says so (`borders`), or where it has grown too large. So parts far from
a change come out byte for byte as in the parent snapshot, and storing them again finds them stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.entries import I32, I64, U8, order_key
from model.errors import RunFailed
from repository.entry_checks import order_fault
from repository.entry_rows import fresh_table
from repository.entry_table import ENTRY_SCHEMA, ChunkLists, child_sums, paths_of
from repository.manifest_root import ManifestRoot
from repository.part_codec import PART_BYTES_MAX, PART_ROWS_MAX, TABLE_ROWS, PartRef, encode_part, encode_parts

PART_ROWS_MIN = 4096  # rows from which a border ends a part
PART_WEIGHT_MAX = 3 << 20  # estimated bytes (`row_weights`) a part holds, unless a single row is heavier
_ROW_BYTES = 140  # a row without its path, target, attributes and chunks
_CHUNK_BYTES = 36

__all__ = ["ChunkLists", "ManifestWriter", "PartRef", "fresh_table", "row_weights"]


class ManifestWriter:
    """Takes all rows of a snapshot in manifest order and stores parts on the way.

    `store` stores plain bytes as one chunk and gives its id. What it costs is one pass over the rows: serialise, hash;
    a part that is stored already goes no further.
    """

    def __init__(self, store: Callable[[bytes], bytes]) -> None:
        self._store = store
        self._pending: list[pa.Table] = []
        self._rows = 0
        self._weight = 0
        self._last: bytes | None = None
        self._table: list[bytes] = []
        self.parts: list[PartRef] = []

    @property
    def chunk_ids(self) -> U8:
        """Ids of the parts stored so far and, once it is finished, of the table of parts, ``uint8[m, 32]``."""
        ids = [*(part.id for part in self.parts), *self._table]
        return np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32)

    def add(self, table: pa.Table, borders: Sequence[int] | I32 = ()) -> None:
        """Rows that follow all rows before; a part may begin at the rows `borders`. Keeps `table` until it is stored.

        Raises RunFailed if a path does not sort behind the one before: such a manifest could not be read.
        """
        if not table.num_rows:
            return
        table = table.select(ENTRY_SCHEMA.names)
        if not table.schema.equals(ENTRY_SCHEMA, check_metadata=True):
            table = table.replace_schema_metadata(None).cast(ENTRY_SCHEMA)
        weights = np.cumsum(row_weights(table))
        at = 0
        possible = np.unique(np.asarray(borders, dtype=np.int64))
        for border in [*possible[(possible >= 0) & (possible < table.num_rows)].tolist(), table.num_rows]:
            while at < border:
                end = self._room(weights, at, border)
                self._take(table.slice(at, end - at), weights, at, end)
                at = end
                if at < border:
                    self._cut()
            if self._rows >= PART_ROWS_MIN and border < table.num_rows:
                self._cut()

    def append(self, parts: Sequence[PartRef]) -> None:
        """Parts that are stored already and follow all rows before. Raises RunFailed if they do not."""
        self._cut()
        for part in parts:
            if self._last is not None and order_key(self._last) >= order_key(part.first):
                raise RunFailed("entries arrived out of order", subject=part.first.decode(errors="replace"))
            self._last = part.last
        self.parts += parts

    def close(self) -> list[PartRef]:
        """Store what is left of the rows; all parts, for a table that somebody else writes."""
        self._cut()
        return self.parts

    def finish(self) -> ManifestRoot:
        """Store what is left and the table of parts."""
        self._cut()
        chunks, lengths = [], []
        for at in range(0, max(len(self.parts), 1), TABLE_ROWS):
            plain = encode_parts(self.parts[at : at + TABLE_ROWS])
            chunks.append(self._store(plain))
            lengths.append(len(plain))
        self._table = chunks
        return ManifestRoot(
            tuple(chunks),
            tuple(lengths),
            parts=len(self.parts),
            rows=sum(part.rows for part in self.parts),
            bytes=sum(part.length for part in self.parts),
        )

    def _room(self, weights: I64, at: int, border: int) -> int:
        """Row before `border` up to which the part under way may grow; at least one row fits an empty part."""
        before = int(weights[at - 1]) if at else 0
        fitting = int(np.searchsorted(weights, before + PART_WEIGHT_MAX - self._weight, side="right"))
        end = min(border, at + PART_ROWS_MAX - self._rows, fitting)
        return max(end, at if self._rows else at + 1)

    def _take(self, rows: pa.Table, weights: I64, at: int, end: int) -> None:
        if at < end:
            self._pending.append(rows)
            self._rows += end - at
            self._weight += int(weights[end - 1]) - (int(weights[at - 1]) if at else 0)

    def _cut(self) -> None:
        if not self._rows:
            return
        rows = pa.concat_tables(self._pending)
        self._pending, self._rows, self._weight = [], 0, 0
        first, last = rows["path"][0].as_py(), rows["path"][rows.num_rows - 1].as_py()
        if fault := order_fault(paths_of(rows["path"]), self._last):
            raise RunFailed("entries arrived out of order", subject=fault[1].decode(errors="replace"), why=fault[0])
        plain = encode_part(rows)
        if len(plain) > PART_BYTES_MAX:
            raise RunFailed("an entry is too large for a manifest", subject=first.decode(errors="replace"))
        self.parts.append(PartRef(self._store(plain), len(plain), rows.num_rows, first, last))
        self._last = last


def row_weights(table: pa.Table) -> I64:
    """About how many bytes each row takes in a part: a function of the row alone, so cuts do not depend on batches."""
    weights: I64 = (
        _ROW_BYTES
        + pc.binary_length(table["path"]).to_numpy().astype(np.int64)
        + _CHUNK_BYTES * pc.list_value_length(table["chunks"]).to_numpy().astype(np.int64)
    )
    if table["target"].null_count < table.num_rows:
        weights += pc.fill_null(pc.binary_length(table["target"]), 0).to_numpy()
    for name, weight_of in (("xattrs", _xattr_weights), ("extents", _extent_weights)):
        if table[name].null_count < table.num_rows:
            weights += child_sums(table[name], weight_of)
    return weights


def _xattr_weights(pairs: pa.StructArray) -> I64:
    name, value = (pc.binary_length(pairs.field(field)).to_numpy() for field in ("name", "value"))
    weights: I64 = name.astype(np.int64) + value + 8
    return weights


def _extent_weights(pairs: pa.StructArray) -> I64:
    return np.full(len(pairs), 16, np.int64)
