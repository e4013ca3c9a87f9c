"""Paths as keyed hashes: what lies together still lies together, and the same path is the same in every snapshot, but
what it was called can be found out only with the keys of the repository.

Each name is replaced by 20 hex digits that depend on the whole path down to it: equal names in two folders look
different, so that nothing can be told from how often a name occurs.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from model.errors import UsageError
from repository.keys import hkdf, purpose_info
from repository.repository import Repository

HIDDEN = "(not shown)"
_DIGITS = 20
_EXTENSION = "^[a-z0-9]{0,8}$"
_KNOWN_MAX = 1 << 16  # folders remembered


class PathHider:
    """Hides paths with a `key` of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[bytes, bytes] = {}

    @classmethod
    def of(cls, repository: Repository) -> PathHider:
        """With a key that only the keys of `repository` give. Raises UsageError if it is not encrypted."""
        if repository.keys.id_key is None:
            raise UsageError(
                "paths cannot be hidden: the repository is not encrypted",
                subject=repository.store.url,
                why="there is no secret to hash them with, and its chunk ids tell known files",
            )
        return cls(hkdf(repository.keys.id_key, purpose_info("exported paths", repository.id)))

    def hide(self, path: bytes) -> bytes:
        """A path relative to ``/``."""
        folder, slash, _ = path.rpartition(b"/")
        digest = self._digest(path) if path else b""
        return self._folder(folder) + b"/" + digest if slash else digest

    def _digest(self, path: bytes) -> bytes:
        return blake3(path, key=self._key).hexdigest()[:_DIGITS].encode()

    def _folder(self, path: bytes) -> bytes:
        unknown = []
        while path and path not in self._known:
            unknown.append(path)
            path = path.rpartition(b"/")[0]
        hidden = self._known.get(path, b"")
        if len(self._known) >= _KNOWN_MAX:
            self._known.clear()
        for one in reversed(unknown):
            hidden = b"/".join([hidden, self._digest(one)] if hidden else [self._digest(one)])
            self._known[one] = hidden
        return hidden

    def entries(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rows of `ENTRIES`: paths are hidden; targets of links, what problems say, and extensions that look like words
        of a name are left out."""
        paths = [self.hide(path) for path in batch.column("path").to_pylist()]
        rows, schema = batch.num_rows, batch.schema
        kept = pc.match_substring_regex(batch.column("extension"), _EXTENSION)
        hidden = {
            "extension": pc.if_else(kept, batch.column("extension"), HIDDEN),
            "path": pa.array(paths, pa.binary()),
            "text": pa.array(paths, pa.binary()).cast(pa.string()),
            "target": pa.nulls(rows, pa.binary()),
            "problem": pa.array([text and HIDDEN for text in batch.column("problem").to_pylist()], pa.string()),
        }
        columns = [hidden.get(name, batch.column(name)) for name in schema.names]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def snapshots(self, table: pa.Table) -> pa.Table:
        """Rows of `SNAPSHOTS`: paths are hidden, comments left out."""
        paths = [[self.hide(path.strip(b"/")) for path in some] for some in table["paths"].to_pylist()]
        place, field = table.schema.get_field_index("paths"), table.schema.field("paths")
        table = table.set_column(place, field, pa.array(paths, field.type))
        place, field = table.schema.get_field_index("comment"), table.schema.field("comment")
        return table.set_column(place, field, pa.array([""] * table.num_rows, pa.string()))
