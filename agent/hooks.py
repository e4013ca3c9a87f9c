"""Scripts that a host lets jobs run: by name, out of one folder that only root may write.

No path and no shell: the name is looked up among the files of the folder, opened, checked, and run from there. What a
script should know is in its environment and, as JSON, on its standard input; it gets no arguments and no secrets.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from model.errors import ConfigError
from model.names import shown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z", re.ASCII)
OUTPUT_MAX = 64 << 10  # bytes that are kept of what a script says
TIMEOUT = 3600.0  # seconds
PATIENCE = 5.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True, slots=True)
class HookResult:
    """What came of a script. `code` is None if it was stopped because it took too long."""

    name: str
    code: int | None
    output: str

    @property
    def trouble(self) -> str:
        """Why it failed; empty if it did not."""
        if self.code == 0:
            return ""
        if self.code is None:
            return f"script {self.name} took too long and was stopped"
        how = f"exit status {self.code}" if self.code > 0 else f"killed by signal {-self.code}"
        return f"script {self.name} failed: {how}"


def find_hook(folder: Path, name: str) -> Path:
    """The script of that name. Raises ConfigError if the host has none, or others than root could change it."""
    if not NAME.match(name):
        hint = f"put the script into {folder} and write its name, without a path"
        raise ConfigError("not the name of a script", subject=shown(name.encode()), hint=hint)
    path = folder / name
    for place in (folder, path):
        try:
            found = place.lstat()
        except OSError as error:
            why = (error.strerror or "").lower()
            raise ConfigError("this host has no such script", subject=str(place), why=why) from error
        wanted = stat.S_ISDIR if place == folder else stat.S_ISREG
        if not wanted(found.st_mode):
            raise ConfigError("a script is not safe", subject=str(place), why="it is no regular file or folder")
        if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
            raise ConfigError("a script is not safe", subject=str(place), why="others than root may change it",
                              hint=f"chown root {place} && chmod go-w {place}")  # fmt: skip
    if not os.access(path, os.X_OK):
        raise ConfigError("a script cannot be run", subject=str(path), hint=f"chmod 700 {path}")
    return path


def available(folder: Path) -> list[str]:
    """Names of the scripts that jobs may run here."""
    names = []
    with suppress(OSError):
        for name in sorted(os.listdir(folder)):
            with suppress(ConfigError):
                find_hook(folder, name)
                names.append(name)
    return names


async def run_hook(folder: Path, name: str, context: Mapping[str, object], timeout: float = TIMEOUT) -> HookResult:
    """Run a script; `context` goes to it as JSON, and its texts and numbers as ``LOX_...`` variables.

    Raises ConfigError if there is no such script. If the task is cancelled, the script is stopped.
    """
    path = find_hook(folder, name)
    loop, kept = asyncio.get_running_loop(), bytearray()
    ours, theirs = os.pipe()
    # Neither is a pipe of asyncio: it would wait for all who hold one, and a script may leave something running.
    with os.fdopen(ours, "rb", buffering=0), tempfile.TemporaryFile() as told:
        try:
            told.write(json.dumps(dict(context)).encode() + b"\n")
            told.seek(0)
            process = await asyncio.create_subprocess_exec(
                os.fspath(path),
                stdin=told,
                stdout=theirs,
                stderr=theirs,
                cwd="/",
                env=_environment(context),
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        loop.add_reader(ours, _take, ours, kept)
        try:
            code = await _ended(process, timeout)
            _take(ours, kept)
        finally:
            loop.remove_reader(ours)
    return HookResult(name, code, kept.decode("utf-8", "replace"))


async def _ended(process: asyncio.subprocess.Process, timeout: float) -> int | None:
    """Its exit code; None if it had to be stopped."""
    try:
        async with asyncio.timeout(timeout):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            await _stop(process)


def _take(fd: int, kept: bytearray) -> None:
    """What can be read now; of too much only the beginning is kept."""
    for _ in range(1000):
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        kept += data[: max(0, OUTPUT_MAX - len(kept))]
        if not data:
            asyncio.get_running_loop().remove_reader(fd)
            return


def _environment(context: Mapping[str, object]) -> dict[str, str]:
    """Few variables of our own, and none of the agent's: credentials of stores are among them."""
    given = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ") if name in os.environ}
    given["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    texts = {f"LOX_{name.upper()}": str(value) for name, value in context.items() if isinstance(value, str | int)}
    return given | {name: text.replace("\0", "") for name, text in texts.items()}


async def _stop(process: asyncio.subprocess.Process) -> None:
    """End the script and all it started, also what does not end with it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    with suppress(ProcessLookupError, PermissionError):  # as long as one of the group lives, its number is no other's
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
