"""Where the chunks of a large file go on from one piece to the next.

A large file is cut by many lanes, piece by piece, and must be cut as one lane would cut it. All that piece k needs
from piece k-1 is one number: where the last chunk that starts in k-1 ends. The ledger is where pieces leave that
number for each other. It is a pure function of the file's content, so a lane that waits in vain (its neighbour's
worker died) computes it by itself; the ledger can be slow or forgetful, never wrong.
"""

from __future__ import annotations

import threading

UNKNOWN = -1
KEPT = 8192  # pieces of one file whose start is remembered: more than can be under way, or given out again, at once
FILES_KEPT = 8192  # files, likewise


class CutLedger:
    """Content offset at which each piece's first own chunk begins. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._starts: dict[int, dict[int, int]] = {}

    def start_of(self, file: int, index: int) -> int:
        """Content offset where piece `index` begins its first chunk, or `UNKNOWN`."""
        if index == 0:
            return 0
        with self._lock:
            return self._starts.get(file, {}).get(index, UNKNOWN)

    def latest_before(self, file: int, index: int) -> tuple[int, int]:
        """The nearest earlier piece with a known start, and that start."""
        with self._lock:
            known = [(piece, start) for piece, start in self._starts.get(file, {}).items() if piece <= index]
        return max(known, default=(0, 0))

    def publish(self, file: int, index: int, start: int) -> None:
        """Piece `index` of `file` begins its first chunk at content offset `start`."""
        with self._lock:
            starts = self._starts.setdefault(file, {})
            if len(self._starts) > FILES_KEPT:
                del self._starts[min(self._starts)]
            starts[index] = start
            if len(starts) > KEPT:
                del starts[min(starts)]
