"""Where the manifest of a snapshot begins. Light: listing snapshots imports neither NumPy nor Arrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from model.entries import U8


class ManifestRoot(NamedTuple):
    """The chunks that hold the table of a manifest's parts."""

    chunks: tuple[bytes, ...]
    lengths: tuple[int, ...]  # bytes of each
    parts: int
    rows: int
    bytes: int  # encoded parts, before compression

    @property
    def ids(self) -> U8:
        """The chunks as ``uint8[m, 32]``."""
        import numpy as np

        return np.frombuffer(b"".join(self.chunks), np.uint8).reshape(-1, 32)
