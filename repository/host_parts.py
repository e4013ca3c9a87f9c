"""The parts of hosts in one manifest: each host's own manifest, below a folder of the host's name.

    /nas1        the / of nas1
    /nas2        the / of nas2
    /nas1/etc    and so on, all of nas1; then all of nas2

All rows of a host lie together, so each host writes its own parts, and a manifest of many is one part with the tops of
all hosts and then their parts, one host after the other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from model.entries import I32, U8
from model.errors import Damaged
from repository.entry_table import ChunkLists
from repository.manifest import ManifestWriter
from repository.manifest_reader import OnLost
from repository.part_codec import PartRef

HOSTS_MAX = 1024
DEVICES = 1 << 20  # file systems of one host; hosts number theirs from multiples of it: equal inodes are no hard links

OnDamage = Callable[[int, Damaged], None]


class Manifest(Protocol):
    """The entries of a snapshot, or of one host of it, for those who read: see `ManifestReader`."""

    def subtree(self, path: bytes, on_lost: OnLost | None = None) -> Iterator[pa.Table]: ...
    def find(self, path: bytes) -> pa.Table | None: ...
    def content(self, table: pa.Table, on_damage: OnDamage | None = None) -> ChunkLists: ...


class HostPart:
    """The part of one host in a manifest of many, read as if it were the manifest of that host alone."""

    def __init__(self, manifest: Manifest, host: str) -> None:
        self._manifest = manifest
        self._folder = os.fsencode(host)

    def subtree(self, path: bytes, on_lost: OnLost | None = None) -> Iterator[pa.Table]:
        """See `ManifestReader.subtree`."""

        def lost(part: PartRef, error: Damaged) -> None:
            if on_lost is not None:
                on_lost(replace(part, first=self._own(part.first), last=self._own(part.last)), error)

        told = None if on_lost is None else lost
        for table in self._manifest.subtree(self._below(path), told):
            rows = self._stripped(table)
            yield rows if path or rows["path"][0].as_py() else rows.slice(1)  # no manifest has a row of / itself

    def find(self, path: bytes) -> pa.Table | None:
        """See `ManifestReader.find`."""
        entry = self._manifest.find(self._below(path)) if path else None
        return None if entry is None else self._stripped(entry)

    def content(self, table: pa.Table, on_damage: OnDamage | None = None) -> ChunkLists:
        """See `ManifestReader.content`."""
        return self._manifest.content(table, on_damage)

    def _below(self, path: bytes) -> bytes:
        return self._folder + b"/" + path if path else self._folder

    def _own(self, path: bytes) -> bytes:
        return path.removeprefix(self._folder)[1:]

    def _stripped(self, table: pa.Table) -> pa.Table:
        paths = pc.binary_replace_slice(table["path"], 0, len(self._folder) + 1, b"")
        return table.set_column(table.schema.get_field_index("path"), table.schema.field("path"), paths)


@dataclass(frozen=True, slots=True)
class HostRows:
    """What one host adds to a manifest: the row of its folder, and parts with all that is below it."""

    top: pa.Table
    parts: tuple[PartRef, ...]


class HostManifest:
    """Takes the rows of one host, the `number`-th of its run; a `ManifestWriter` whose root somebody else writes.

    `top` is the row of its ``/``, with an empty path.
    """

    def __init__(self, store: Callable[[bytes], bytes], host: str, number: int, top: pa.Table) -> None:
        self._writer = ManifestWriter(store)
        self._folder = os.fsencode(host)
        self._first_device = number * DEVICES
        self._top = self._moved(top)

    @property
    def chunk_ids(self) -> U8:
        """See `ManifestWriter.chunk_ids`."""
        return self._writer.chunk_ids

    def add(self, table: pa.Table, borders: Sequence[int] | I32 = ()) -> None:
        """See `ManifestWriter.add`; paths are as on the host."""
        if not table.num_rows:
            return
        self._writer.add(self._moved(table), borders)

    def finish(self) -> HostRows:
        """Store what is left; all that was added."""
        return HostRows(self._top, tuple(self._writer.close()))

    def _moved(self, table: pa.Table) -> pa.Table:
        """The rows below the folder of the host, on file systems with numbers of their own."""
        device = table["device"].to_numpy() + np.uint32(self._first_device)
        paths = pc.binary_join_element_wise(pa.scalar(self._folder, pa.binary()), table["path"], b"/")
        if not table["path"][0].as_py():
            paths = pa.array([self._folder], pa.binary())
        for name, column in (("path", paths), ("device", pa.array(device))):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), column)
        return table


def join(writer: ManifestWriter, hosts: Mapping[str, HostRows]) -> None:
    """Give `writer`, which has no rows yet, the parts of all hosts, each by its name."""
    ordered = [hosts[host] for host in sorted(hosts, key=os.fsencode)]
    writer.add(pa.concat_tables([rows.top for rows in ordered]))
    for rows in ordered:
        writer.append(rows.parts)
