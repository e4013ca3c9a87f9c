"""Walking ahead: threads walk later stretches of a tree while the caller uses the earlier ones, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from model.batches import ROWS_MAX
from sources.files.walk import Stack, Stretch, Walker, split

ROWS_AHEAD = 16 * ROWS_MAX  # rows walked that wait for their turn; about 150 bytes each


@dataclass(slots=True, eq=False)
class _Place:
    """One stretch of the walk in the order of all: to be walked, being walked, or walked."""

    stack: Stack
    walking: Future[Stretch] | None = None
    walked: Stretch | None = None


def stretches(walker: Walker, threads: int) -> Iterator[Stretch]:
    """All rows of the tree in manifest order. With 0 threads the caller's own does the work."""
    if threads == 0:
        stack = walker.start()
        while stack:
            stretch = walker.walk(stack)
            yield stretch
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="scan")
    try:
        yield from _Line(walker, pool, threads).run()
    finally:
        pool.shutdown(cancel_futures=True)


class _Line:
    """Places in order. The earliest that waits is walked first, so memory holds little that comes much later."""

    def __init__(self, walker: Walker, pool: ThreadPoolExecutor, threads: int) -> None:
        self._walker = walker
        self._pool = pool
        self._busy = threads + 1  # one more waits in the pool, so that no thread waits for us
        self._line: deque[_Place] = deque([_Place(walker.start())])

    def run(self) -> Iterator[Stretch]:
        line = self._line
        while line:
            self._settle()
            self._fill()
            first = line[0]
            if first.walked is not None:
                line.popleft()
                yield first.walked
            else:
                wait([place.walking for place in line if place.walking is not None], return_when=FIRST_COMPLETED)

    def _settle(self) -> None:
        """Take what was walked; what a stretch left becomes the place after it."""
        at = 0
        while at < len(self._line):
            place = self._line[at]
            at += 1
            if place.walking is not None and place.walking.done():
                place.walked, place.walking = place.walking.result(), None
                if place.walked.rest:
                    self._line.insert(at, _Place(place.walked.rest))

    def _fill(self) -> None:
        """Give the threads work: the earliest places that wait, shared out if there are too few of them."""
        held = sum(len(place.walked.paths) for place in self._line if place.walked is not None)
        idle = self._busy - sum(place.walking is not None for place in self._line)
        at = 0
        while idle > 0 and at < len(self._line):
            place = self._line[at]
            if place.walking is None and place.walked is None:
                if at and held >= ROWS_AHEAD:
                    return
                self._share(at, idle)
                place = self._line[at]
                place.walking = self._pool.submit(self._walker.walk, place.stack)
                idle -= 1
            at += 1

    def _share(self, at: int, idle: int) -> None:
        """Split the place at `at` if fewer places wait than threads do."""
        waiting = sum(place.walking is None and place.walked is None for place in self._line)
        if waiting < idle:
            first, rest = split(self._line[at].stack)
            if first:
                self._line[at] = _Place(first)
                self._line.insert(at + 1, _Place(rest))
