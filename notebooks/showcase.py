"""What the notebooks look at: a small company whose hosts change from day to day, and its repository.

Everything is made anew in a temporary folder, which goes when the notebook ends; nothing of your own is touched.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

DAY = 86_400 * 10**9  # ns
START = int(datetime(2026, 1, 5, 12, tzinfo=UTC).timestamp()) * 10**9
PASSWORD = "showcase"


class Showcase:
    """Hosts below one folder, and one repository for all of them."""

    def __init__(self, seed: int = 1) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="lox-notebook-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        for name in ("CACHE", "STATE"):
            os.environ[f"LOX_{name}_DIR"] = str(self.folder / name.lower())
        self.url = str(self.folder / "repository")
        self.depth = len(self.folder.parts)  # names of a path up to and with the host
        self._random = np.random.default_rng(seed)
        self._words = np.array(
            [bytes(self._random.integers(97, 123, size, np.uint8)) for size in range(2, 12) for _ in range(80)]
        )
        self._repository = self._init()

    def _init(self):
        from repository.keys import KdfParams
        from repository.repository import Repository
        from repository.store import open_store

        cheap = KdfParams(memory_kib=64, iterations=1, lanes=1)  # a password that guards nothing
        return Repository.init(open_store(self.url), PASSWORD, kdf=cheap)[0]

    def text(self, size: int) -> bytes:
        """About `size` bytes that compress well."""
        return b" ".join(self._random.choice(self._words, size // 7).tolist())

    def table(self, rows: int) -> bytes:
        """Numbers with commas between them, as databases and spreadsheets export them."""
        numbers = self._random.integers(0, 100_000, (rows, 6))
        return b"\n".join(b",".join(b"%d" % number for number in row) for row in numbers.tolist())

    def noise(self, size: int) -> bytes:
        """Bytes that do not compress at all: pictures, archives, what is encrypted."""
        return self._random.bytes(size)

    def path(self, host: str, name: str) -> Path:
        """Where a file of a host lies."""
        return self.folder / host / name

    def write(self, host: str, name: str, content: bytes, day: float = 0) -> None:
        """A file that was last changed on a day, counted from the first one."""
        path = self.path(host, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        when = START + int(day * DAY)
        os.utime(path, ns=(when, when))

    def append(self, host: str, name: str, content: bytes, day: float) -> None:
        """More at the end of a file."""
        self.write(host, name, self.path(host, name).read_bytes() + content, day)

    def back_up(self, host: str, day: int, tags: Iterable[str] = ()):
        """A backup of a host as if it had been made on that day; the snapshot."""
        from pipelines.backup import BackupRequest, backup
        from pipelines.options import EngineOptions, Watch

        request = BackupRequest((os.fsencode(self.folder / host),), host=host, tags=tuple(tags))
        made = backup(self._repository, request, EngineOptions(executor="threads", lanes=2), Watch()).snapshot
        when = START + day * DAY
        dated = made._replace(time=when, started=when, finished=when + 60 * 10**9).save(self._repository)
        self._repository.store.delete(made.name)
        return dated

    @property
    def environment(self) -> dict[str, str]:
        """For the command line, as a process of its own."""
        return {**os.environ, "LOX_PASSWORD": PASSWORD}

    def open(self):
        """The repository as tables, as it is now."""
        import lox

        return lox.open(self.url, PASSWORD)

    def short(self, name: str) -> str:
        """A path without the temporary folder, as if each host were a machine of its own."""
        return name.removeprefix(str(self.folder)) or "/"


def small_company(days: int = 10, seed: int = 1) -> Showcase:
    """Three hosts with a backup each every day: a web server, a database, an office with a laptop's copy of it."""
    case = Showcase(seed)
    logo, handbook = case.noise(120_000), case.text(400_000)
    for host in ("web", "office", "laptop"):
        case.write(host, "srv/shared/logo.png", logo, -400)
        case.write(host, "srv/shared/handbook.txt", handbook, -90)
    for number in range(12):
        picture = case.noise(60_000 + 10_000 * number)
        case.write("office", f"home/ann/photo-{number}.jpg", picture, -30 * number)
        if number % 2:
            case.write("laptop", f"home/ann/photo-{number}.jpg", picture, -30 * number)
    for number in range(30):
        case.write("web", f"srv/www/page-{number}.html", case.text(20_000), -number)
    case.write("web", "var/log/access.log", case.text(300_000))
    case.write("database", "var/dump/orders.csv", case.table(30_000))
    for day in range(days):
        case.append("web", "var/log/access.log", case.text(100_000), day)
        case.append("database", "var/dump/orders.csv", b"\n" + case.table(2_000), day)
        case.write("office", f"home/bob/report-{day}.txt", case.text(50_000), day)
        for host in ("web", "database", "office", "laptop"):
            case.back_up(host, day, ["weekly"] if day % 7 == 0 else ["daily"])
    return case
