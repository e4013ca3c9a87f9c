"""Repositories as this host uses them: their keys, which never leave it, and what `lox` is told to find both.

The key of a repository is made here at first use, a key file that only the agent reads. With it goes a
recovery kit: a sheet to print, with a code that opens the repository when this host is lost. Hosts that are to share a
repository are given the same key file by their operator.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from agent.child import Ended, lox
from agent.config import AgentConfig
from agent.logs import log
from agent.work_dir import WorkDir
from model.errors import ConfigError, LoxError, NoRepository, RunFailed, WrongPassword
from model.exits import ExitCode

SECONDS = 300.0  # for one of the short commands


@dataclass(frozen=True, slots=True)
class Place:
    """A repository of the policy. `maintained`: retention and pruning are this agent's business; `scheduled`: the
    server says when it prunes."""

    uuid: UUID
    url: str
    encrypted: bool = True
    maintained: bool = False
    scheduled: bool = False


@dataclass(slots=True)
class Repositories:
    """What the host knows of repositories. `ready` ones were made or opened since the agent began."""

    work: WorkDir
    config: AgentConfig
    _ready: set[UUID] = field(default_factory=set)
    _locks: dict[UUID, asyncio.Lock] = field(default_factory=dict)

    def environment(self, place: Place) -> dict[str, str]:
        """What `lox` needs to work on it."""
        found = {
            "LOX_REPOSITORY": place.url,
            "LOX_CACHE_DIR": os.fspath(self.work.root / "cache"),
            "LOX_STATE_DIR": os.fspath(self.work.root / "runs"),
            "LOX_VAULT_TOKEN_FILE": os.fspath(self.work.credential),
        }
        if self.config.ca_file is not None:
            found["LOX_VAULT_CA_FILE"] = os.fspath(self.config.ca_file)
        if place.encrypted:
            found["LOX_PASSWORD_FILE"] = os.fspath(self.work.key(place.uuid))
        return found

    def require(self, place: Place) -> None:
        """Raises ConfigError if this host has no key of the repository: then it cannot read it."""
        if place.encrypted and not self.work.key(place.uuid).exists():
            hint = f"copy it from a host that has it to {self.work.key(place.uuid)}, mode 0600"
            raise ConfigError("this host has no key of the repository", subject=str(place.uuid), hint=hint)

    async def prepare(self, place: Place) -> Path | None:
        """Make the repository if it is not there. Returns the recovery kit that was written now, if one was.

        Raises ConfigError if this host does not allow it or has no key for it; NoRepository, WrongPassword and
        RunFailed for what `lox` says.
        """
        if not place.encrypted and not self.config.allow_unencrypted:
            hint = "to allow it, write allow_unencrypted: true into config.yaml"
            raise ConfigError("this host stores nothing unencrypted", subject=str(place.uuid), hint=hint)
        async with self._locks.setdefault(place.uuid, asyncio.Lock()):
            if place.uuid in self._ready:
                return None
            kit = None
            if not place.encrypted:
                await self._init(place, ["--encryption", "none"])
            elif not self.work.key(place.uuid).exists():
                kit = await self._first_use(place)
            self._ready.add(place.uuid)
            return kit

    async def _first_use(self, place: Place) -> Path | None:
        """With a key that counts once it opens the repository: killed anywhere, the next attempt goes on from here."""
        key = self.work.key(place.uuid)
        new = key.with_suffix(".key.new")
        if not (new.exists() and await self._opens(place, new)):
            new.unlink(missing_ok=True)
            if not await self._init(place, ["--key-file", os.fspath(new)]):
                self.require(place)
        kit = await self._kit(place, new)
        os.rename(new, key)
        folder = os.open(key.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        log().info("made the key of a repository", repository=str(place.uuid), file=str(key))
        return kit

    async def _init(self, place: Place, arguments: list[str]) -> bool:
        """Whether the repository was made now; False if there is one."""
        ended = await lox(["--json", "init", *arguments], self._with_key(place, None), SECONDS)
        if ended.good:
            return True
        if ended.code == ExitCode.USAGE and "a repository here already" in ended.trouble:
            return False
        raise trouble_of(ended, "cannot make the repository", place)

    async def _opens(self, place: Place, key: Path) -> bool:
        """Whether the key of an attempt that was cut short opens what is there. If nothing whole is, it does not."""
        ended = await lox(["--json", "key", "list"], self._with_key(place, key), SECONDS)
        if ended.good or ended.code in (ExitCode.WRONG_PASSWORD, ExitCode.NO_REPOSITORY, ExitCode.DAMAGE_FOUND):
            return ended.good
        raise trouble_of(ended, "cannot open the repository", place)

    async def _kit(self, place: Place, key: Path) -> Path | None:
        path = self.work.kits / f"{place.uuid}.txt"
        if path.exists():
            return None
        arguments = ["--json", "key", "recovery-kit", "--output", os.fspath(path)]
        ended = await lox(arguments, self._with_key(place, key), SECONDS)
        if not ended.good:
            raise trouble_of(ended, "cannot write the recovery kit", place)
        log().warning("print this recovery kit, and keep it away from this host", file=str(path))
        return path

    def _with_key(self, place: Place, key: Path | None) -> dict[str, str]:
        """The environment with another key than the repository's own, or none."""
        found = {name: value for name, value in self.environment(place).items() if name != "LOX_PASSWORD_FILE"}
        return found | ({"LOX_PASSWORD_FILE": os.fspath(key)} if key is not None else {})


def trouble_of(ended: Ended, what: str, place: Place) -> LoxError:
    """What `lox` said when it failed, as one of our errors."""
    kinds = {
        ExitCode.NO_REPOSITORY: NoRepository,
        ExitCode.WRONG_PASSWORD: WrongPassword,
        ExitCode.INVALID_CONFIGURATION: ConfigError,
    }
    kind = next((kind for code, kind in kinds.items() if code == ended.code), RunFailed)
    return kind(what, subject=str(place.uuid), why=ended.trouble, hint=str(ended.error.get("hint", "")))
