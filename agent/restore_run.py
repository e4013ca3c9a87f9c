"""One restore that the server asked for: to where this host allows it, by `lox restore`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent import lines
from agent.cancellable import CancellableRun
from agent.config import AgentConfig
from agent.host import Host, Outcome, place_of
from agent.logs import log
from agent.repositories import trouble_of
from agent.telling import Teller, summary_of_restore
from model.errors import ConfigError
from model.exits import ExitCode
from model.wire.commands import RestoreCommand


def allowed_target(config: AgentConfig, target: str | None) -> str | None:
    """Where to restore, with symbolic links resolved; None: to where the files were.

    Raises ConfigError if the host's own configuration does not allow it: a server, or somebody who took it over, is
    not to replace files of a host that did not agree.
    """
    if target is None:
        if not config.allow_restore_in_place:
            hint = "to allow it, write allow_restore_in_place: true into config.yaml, or restore to another folder"
            raise ConfigError("this host lets nobody restore in place", hint=hint)
        return None
    if not os.path.isabs(target):
        raise ConfigError("the folder to restore to is not absolute", subject=target)
    real = Path(os.path.realpath(target))
    for folder in (config.restore_folder, *config.restore_paths):
        if real.is_relative_to(os.path.realpath(folder)):
            return os.fspath(real)
    hint = f"to allow it, add it to restore_paths in config.yaml; always allowed is {config.restore_folder}"
    raise ConfigError("this host lets nobody restore there", subject=target, hint=hint)


@dataclass(slots=True)
class RestoreRun(CancellableRun):
    """A restore as `asked`. If the agent is killed, the next one goes on with it where it stopped."""

    host: Host
    teller: Teller
    asked: RestoreCommand

    async def run(self) -> None:
        """From the first event to the last."""
        if not self.teller.row.body.get("begun"):
            self.teller.row.body["begun"] = True
            self.teller.started()
        outcome = await self._worked()
        self.teller.ended(outcome.status, outcome.code, outcome.summary, outcome.error)
        reason = str(outcome.error) if outcome.error is not None else None
        log().info("restore ended", run=str(self.teller.row.run), status=outcome.status, why=reason)

    async def _work(self) -> Outcome:
        asked, config = self.asked, self.host.config
        if asked.restore_type not in ("full", "file"):
            raise ConfigError("this version restores files", subject=asked.restore_type)
        target = allowed_target(config, asked.target_path)
        place = place_of(asked.repository)
        self.host.repositories.require(place)
        if target is not None:
            os.makedirs(target, mode=0o700, exist_ok=True)
        where = target or "where the files were"
        self.teller.log(f"restoring from snapshot {asked.snapshot[:8]} to {where}")
        ended = await self.host.run_lox(lines.restore(asked.snapshot, asked, target), place, self.teller)
        if ended.good or (ended.code == ExitCode.DAMAGE_FOUND and ended.summary):
            for text, count in ended.summary.get("notes", {}).items():
                self.teller.log(f"note: {text} ({count} times)")
            status = "success" if ended.code == ExitCode.OK else "partial"
            return Outcome(status, ended.code, summary_of_restore(ended))
        return Outcome("failed", ended.code, error=trouble_of(ended, "the restore failed", place))
