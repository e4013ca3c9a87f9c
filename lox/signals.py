"""Ctrl-C and SIGTERM.

While a run is on, the first signal asks it to stop cleanly (packs in hand are finished, so the next run reads their
chunks as stored); the second one breaks it off; a third ends the process on the spot. Before and after, a signal
raises KeyboardInterrupt, which ends in exit code 130 as well.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from model.exits import ExitCode

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopper:
    """The handler of all three signals; `stop` is the event of the run that is on, if one is."""

    def __init__(self) -> None:
        self.stop: threading.Event | None = None
        self.received = 0
        self.quiet = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received += 1
        if self.received >= 3:
            os._exit(ExitCode.INTERRUPTED)
        if self.stop is None or self.received == 2:
            raise KeyboardInterrupt
        self.stop.set()
        if not self.quiet:
            # os.write: a print may be what the signal has interrupted.
            os.write(2, b"\nstopping: finishing what is in hand (once more to break off)\n")

    @property
    def aborted(self) -> bool:
        """Whether the user did not want to wait for a clean stop."""
        return self.received >= 2


STOPPER = Stopper()


def install() -> None:
    """Takes over the signals, except those the parent process wants ignored (nohup, a background job)."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, STOPPER)


@contextmanager
def stopping(stop: threading.Event, *, quiet: bool = False) -> Iterator[None]:
    """Within it, a first signal sets `stop` instead of raising."""
    if STOPPER.received:
        stop.set()
    STOPPER.stop, STOPPER.quiet = stop, quiet
    try:
        yield
    finally:
        STOPPER.stop = None


def leave(code: int) -> None:
    """Ends the process now, without waiting for threads that a broken-off run has left behind."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    os._exit(code)
