"""A PostgreSQL server of our own: a cluster in a folder, reached by a socket, as the user that may run one."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

USER = "postgres"
# Tests need no safety from power cuts, and many connections: several servers with a pool each.
OPTIONS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off -c listen_addresses='' -c max_connections=200"


def programs() -> Path | None:
    """The folder of initdb and its like, or None if PostgreSQL is not here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3].split(".")[0]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


class Cluster:
    """A running cluster; `database` makes a database and gives its URL."""

    def __init__(self, folder: Path, bin_folder: Path) -> None:
        self.folder, self.bin, self._made = folder, bin_folder, 0

    def run(self, program: str, *arguments: str) -> None:
        """A program of PostgreSQL, as its user. Raises CalledProcessError."""
        command = [str(self.bin / program), *arguments]
        if os.geteuid() == 0:
            command = ["runuser", "-u", USER, "--", *command]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL)

    def database(self) -> str:
        """A new empty database."""
        self._made += 1
        name = f"lox{self._made}"
        self.run("createdb", "--host", str(self.folder), "--username", USER, name)
        return f"postgresql://{USER}@/{name}?host={quote(str(self.folder), safe='')}"


@contextmanager
def running_cluster(folder: Path, bin_folder: Path) -> Iterator[Cluster]:
    """A cluster as long as the context is open. `folder` is short: the path of a socket has 107 bytes."""
    cluster, data = Cluster(folder, bin_folder), folder / "data"
    if os.geteuid() == 0:
        owner = pwd.getpwnam(USER)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    cluster.run(
        "initdb", "--pgdata", str(data), "--username", USER, "--auth", "trust", "--no-sync", "--encoding", "UTF8"
    )
    log = ["--log", str(folder / "log"), "--silent", "--wait"]
    cluster.run("pg_ctl", "start", "--pgdata", str(data), *log, "--options", f"{OPTIONS} -k {folder}")
    try:
        yield cluster
    finally:
        cluster.run("pg_ctl", "stop", "--pgdata", str(data), "--mode", "immediate", "--silent")
