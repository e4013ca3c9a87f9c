"""read: the bytes of listed files; write is its reverse."""

from __future__ import annotations

import os
from collections.abc import Iterator

from model.batches import BODY_MAX, OVERREAD, Blocks, Listing
from model.chunking import WINDOW
from runtime.stage import Context, Stage
from sources.files.read import AGAIN, read_listing
from stages.ground import check_sources


class Reader(Stage[Listing, Blocks]):
    """Reads the fresh files of a listing into one body that is used again for the next listing.

    A file that changes meanwhile is read up to so often `again`.
    """

    def __init__(self, root: bytes = b"/", again: int = AGAIN) -> None:
        self.root = root
        self.again = again

    def open(self, context: Context) -> None:
        check_sources(context.services)
        self._root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._body = bytearray(BODY_MAX + OVERREAD + WINDOW)

    def push(self, item: Listing) -> Iterator[Blocks]:
        yield read_listing(self._root, item, self._body, self.again)

    def close(self) -> None:
        os.close(self._root)
