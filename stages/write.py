"""write: bytes into files; the reverse of read."""

from __future__ import annotations

from collections.abc import Iterator

from model.orders import Joined, Written
from runtime.stage import Context, Stage
from sources.files.target_writer import TargetWriter


class Writer(Stage[Joined, Written]):
    """Writes what an order brought: small files whole and with their metadata, parts of large ones in any order."""

    def __init__(self, target: TargetWriter | None) -> None:
        self.target = target

    def open(self, context: Context) -> None:
        assert self.target is not None, "a plan that is only looked at has no target"
        self._writer = TargetWriter(self.target.path, self.target.identity)

    def push(self, item: Joined) -> Iterator[Written]:
        yield self._writer.write_joined(item)

    def close(self) -> None:
        self._writer.close()
