"""What a backup does about files that cannot be read, or change meanwhile: record it and go on, or end the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from model.errors import RunFailed
from repository.entry_rows import INCOMPLETE
from sources.files.trouble import CHANGED as CHANGED_TEXT
from sources.files.trouble import REPLACED, VANISHED

UNREADABLE = ("warn", "fail")
CHANGED = {"warn": 0, "retry_once": 1, "retry": 3, "fail": 3}
"""What to do about a file that changes while it is read → how often more it is read until it stands still."""

_MOTION = {CHANGED_TEXT, REPLACED, VANISHED, INCOMPLETE}


class Strictness:
    """Hears of every problem first; `tell` hears of it next."""

    def __init__(self, unreadable_file: str, changed_while_reading: str, tell: Callable[[bytes, str], None]) -> None:
        self._ends = {False: unreadable_file == "fail", True: changed_while_reading == "fail"}
        self._tell = tell

    def problem(self, path: bytes, text: str) -> None:
        """Trouble with one entry. Raises RunFailed if that ends the run."""
        self._tell(path, text)
        self.judge([(path, text)])

    def judge(self, problems: Iterable[tuple[bytes, str]]) -> None:
        """The same for problems that were told already."""
        for path, text in problems:
            moved = text in _MOTION
            if self._ends[moved]:
                key = "changed_while_reading" if moved else "unreadable_file"
                hint = f"on_error.{key} is 'fail'; with 'warn' the run goes on without it"
                subject = "/" + path.decode("utf-8", "backslashreplace")
                raise RunFailed("a file could not be read whole", subject=subject, why=text, hint=hint)
