"""Manifests of one repository in another that names chunks in another way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from model.errors import Damaged
from repository.cache_dir import default_cache_dir
from repository.claims import ClaimTable
from repository.entry_table import ENTRY_SCHEMA, ChunkLists, chunks_of, id_array
from repository.manifest import ManifestWriter
from repository.manifest_reader import ManifestReader
from repository.manifest_root import ManifestRoot
from repository.metadata import MetadataStore
from repository.needed import Renames
from repository.part_codec import PartRef, encode_part
from repository.reading_index import ReadingIndex


class RenamedParts:
    """Manifests of the source as the target has them: the same rows in the same parts, with other names of chunks."""

    def __init__(self, index: ReadingIndex, folder: Path | None = None) -> None:
        self.names = Renames(index, folder or default_cache_dir())
        self._parts: dict[bytes, PartRef] = {}

    def __contains__(self, part_id: object) -> bool:
        return part_id in self._parts

    def learn(self, ours: ManifestReader, theirs: ManifestReader, claims: ClaimTable) -> None:
        """What an earlier copy shows: chunks of equal rows have the same content. Damage is passed over."""
        for number, (old, new) in enumerate(zip(ours.parts, theirs.parts, strict=False)):
            if (old.rows, old.first, old.last) != (new.rows, new.first, new.last) or old.id in self._parts:
                continue
            try:
                before, after = ours.part(number), theirs.part(number)
                was, now = ours.content(before), theirs.content(after)
            except Damaged:
                continue
            if not before["path"].equals(after["path"]) or not np.array_equal(was.length, now.length):
                continue
            stored = claims.resolved(now.ids)
            self.names.add(was.ids[stored], now.ids[stored])
            own = np.frombuffer(new.id, np.uint8).reshape(1, 32)
            if stored.all() and claims.resolved(np.concatenate([own, chunks_of(after).ids])).all():
                self._parts[old.id] = new

    def root(self, reader: ManifestReader, metadata: MetadataStore, claims: ClaimTable) -> ManifestRoot:
        """The manifest in the target. Raises Damaged if a chunk of it is not there."""
        writer = ManifestWriter(metadata.store)
        for number, part in enumerate(reader.parts):
            if part.id not in self._parts:
                self._parts[part.id] = self._part(reader, number, metadata, claims)
            writer.parts.append(self._parts[part.id])
        return writer.finish()

    def _part(self, reader: ManifestReader, number: int, metadata: MetadataStore, claims: ClaimTable) -> PartRef:
        table, part = reader.part(number), reader.parts[number]
        lists = reader.content(table)
        ids, known = self.names.of(lists.ids)
        known[known] = claims.resolved(ids[known])
        if not known.all():
            raise Damaged(f"{int((~known).sum())} chunks of it cannot be read", subject=reader.subject)
        renamed = ChunkLists(lists.offsets, ids, lists.length, lists.depth).deepened(metadata.store)
        plain = encode_part(_with_chunks(table, renamed))
        return PartRef(metadata.store(plain), len(plain), part.rows, part.first, part.last)


def _with_chunks(table: pa.Table, lists: ChunkLists) -> pa.Table:
    """`table` with other chunks."""
    offsets = pa.array(lists.offsets)
    columns = {
        "chunks": pa.ListArray.from_arrays(offsets, id_array(lists.ids)),
        "lengths": pa.ListArray.from_arrays(offsets, pa.array(lists.length.astype(np.uint32, copy=False))),
        "depth": pa.array(lists.depth),
    }
    return pa.table([columns.get(name, table[name]) for name in ENTRY_SCHEMA.names], schema=ENTRY_SCHEMA)
