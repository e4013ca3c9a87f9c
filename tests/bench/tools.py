"""The programs compared: LOX, its peers, and the bare writer that is the roofline of a restore.

Every tool encrypts, compresses with zstd at its default level, and has its own empty cache. Adapters exist for restic,
borg, kopia and rustic; a tool takes part if it is on PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from tests.bench.measure import Command

PASSWORD = "correct horse battery staple"
ROOT = Path(__file__).resolve().parents[2]


class Tool(ABC):
    """One backup program. `home` of a run holds its repository and its cache."""

    name: str
    program: str

    def __init__(self, executable: str) -> None:
        self.executable = executable

    @abstractmethod
    def environment(self, home: Path) -> dict[str, str]: ...

    @abstractmethod
    def init(self, home: Path) -> Sequence[str | Path]: ...

    @abstractmethod
    def backup(self, home: Path, paths: Sequence[Path]) -> Sequence[str | Path]: ...

    @abstractmethod
    def restore(self, home: Path, target: Path) -> Sequence[str | Path]: ...

    def snapshots(self, home: Path) -> list[str]:
        """Ids of its snapshots, oldest first."""
        listed = subprocess.run(
            [self.executable, "--json", "snapshots"],
            env={**os.environ, **self.environment(home)},
            capture_output=True,
            text=True,
            check=True,
        )
        return self.snapshot_ids(listed.stdout)

    def snapshot_ids(self, listed: str) -> list[str]:
        raise NotImplementedError(f"{self.name} is not asked for its snapshots")

    def setup(self, home: Path) -> Sequence[Sequence[str | Path]]:
        """Commands that make an empty repository."""
        return [self.init(home)]

    def restore_folder(self, target: Path) -> Path | None:
        return None

    def copy(self, source: Path, home: Path) -> tuple[Command, Command] | None:
        """What makes an empty repository in `home` for copies of the one in `source`, and what copies; None if it
        cannot."""
        return None

    def command(self, home: Path, arguments: Sequence[str | Path], folder: Path | None = None) -> Command:
        return Command([self.executable, *arguments], self.environment(home), folder)

    def version(self) -> str:
        done = subprocess.run([self.executable, *self.version_arguments()], capture_output=True, text=True, check=False)
        return (done.stdout.strip() or done.stderr.strip()).partition("\n")[0]

    def version_arguments(self) -> list[str]:
        return ["--version"]

    @staticmethod
    def repository(home: Path) -> Path:
        return home / "repository"


class Lox(Tool):
    name = "lox"
    program = "lox"

    def __init__(self, executable: str, executor: str = "threads", memory: str = "512MiB") -> None:
        super().__init__(executable)
        self.options = ["--executor", executor, "--memory", memory]
        if executor != "threads":
            self.name = f"lox ({executor})"

    def environment(self, home: Path) -> dict[str, str]:
        return {
            "LOX_REPOSITORY": str(self.repository(home)),
            "LOX_PASSWORD": PASSWORD,
            "LOX_CACHE_DIR": str(home / "cache"),
            "PYTHONDONTWRITEBYTECODE": "",  # an installed package has its bytecode
        }

    def init(self, home: Path) -> Sequence[str | Path]:
        return ["--no-progress", "init"]

    def backup(self, home: Path, paths: Sequence[Path]) -> Sequence[str | Path]:
        return ["--json", "--no-progress", "backup", *self.options, *paths]

    def restore(self, home: Path, target: Path) -> Sequence[str | Path]:
        return ["--no-progress", "restore", *self.options, "latest", "--target", target]

    def snapshot_ids(self, listed: str) -> list[str]:
        lines = map(json.loads, listed.splitlines())
        return [line["id"] for line in lines if line["type"] == "snapshot"]

    def copy(self, source: Path, home: Path) -> tuple[Command, Command]:
        environment = self.environment(home) | {
            "LOX_FROM_REPOSITORY": str(self.repository(source)),
            "LOX_FROM_PASSWORD": PASSWORD,
        }
        init = [self.executable, *self.init(home), *self.copy_init(source)]
        copy = [self.executable, "--json", "--no-progress", "copy", *self.options]
        return Command(init, environment), Command(copy, environment)

    def copy_init(self, source: Path) -> list[str]:
        return ["--copy-chunker-from", str(self.repository(source))]


class LoxToStranger(Lox):
    """Copies to a repository made by itself, which names chunks in another way."""

    name = "lox, unrelated target"

    def copy_init(self, source: Path) -> list[str]:
        return []


class Restic(Tool):
    name = "restic"
    program = "restic"

    def environment(self, home: Path) -> dict[str, str]:
        return {
            "RESTIC_REPOSITORY": str(self.repository(home)),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(home / "cache"),
        }

    def init(self, home: Path) -> Sequence[str | Path]:
        return ["init"]

    def backup(self, home: Path, paths: Sequence[Path]) -> Sequence[str | Path]:
        return ["backup", "--quiet", *paths]

    def restore(self, home: Path, target: Path) -> Sequence[str | Path]:
        return ["restore", "--quiet", "latest", "--target", target]

    def snapshot_ids(self, listed: str) -> list[str]:
        return [one["id"] for one in json.loads(listed)]

    def copy(self, source: Path, home: Path) -> tuple[Command, Command] | None:
        environment = self.environment(home) | {
            "RESTIC_FROM_REPOSITORY": str(self.repository(source)),
            "RESTIC_FROM_PASSWORD": PASSWORD,
        }
        init = Command([self.executable, "init", "--copy-chunker-params"], environment)
        return init, Command([self.executable, "copy", "--quiet"], environment)

    def version_arguments(self) -> list[str]:
        return ["version"]


class Rustic(Restic):
    name = "rustic"
    program = "rustic"

    def environment(self, home: Path) -> dict[str, str]:
        return {
            "RUSTIC_REPOSITORY": str(self.repository(home)),
            "RUSTIC_PASSWORD": PASSWORD,
            "RUSTIC_CACHE_DIR": str(home / "cache"),
            "RUSTIC_NO_PROGRESS": "true",
            "HOME": str(home),
        }

    def backup(self, home: Path, paths: Sequence[Path]) -> Sequence[str | Path]:
        return ["backup", *paths]

    def restore(self, home: Path, target: Path) -> Sequence[str | Path]:
        return ["restore", "latest", target]

    def copy(self, source: Path, home: Path) -> None:
        """Its targets stand in a profile file; not measured."""

    def version_arguments(self) -> list[str]:
        return ["--version"]


class Borg(Tool):
    name = "borg"
    program = "borg"

    def environment(self, home: Path) -> dict[str, str]:
        return {
            "BORG_REPO": str(self.repository(home)),
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_BASE_DIR": str(home / "cache"),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    def init(self, home: Path) -> Sequence[str | Path]:
        return ["init", "--encryption", "repokey"]

    def backup(self, home: Path, paths: Sequence[Path]) -> Sequence[str | Path]:
        return ["create", "--compression", "zstd,3", "::{now:%s-%f}", *paths]

    def restore(self, home: Path, target: Path) -> Sequence[str | Path]:
        listed = subprocess.run(
            [self.executable, "list", "--last", "1", "--short"],
            env={**os.environ, **self.environment(home)},
            capture_output=True,
            text=True,
            check=True,
        )
        return ["extract", f"::{listed.stdout.strip()}"]

    def restore_folder(self, target: Path) -> Path | None:
        return target


class Kopia(Tool):
    name = "kopia"
    program = "kopia"

    def environment(self, home: Path) -> dict[str, str]:
        return {
            "KOPIA_PASSWORD": PASSWORD,
            "KOPIA_CONFIG_PATH": str(home / "kopia.config"),
            "KOPIA_CACHE_DIRECTORY": str(home / "cache"),
            "KOPIA_LOG_DIR": str(home / "logs"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }

    def init(self, home: Path) -> Sequence[str | Path]:
        return ["repository", "create", "filesystem", "--path", self.repository(home)]

    def setup(self, home: Path) -> Sequence[Sequence[str | Path]]:
        return [self.init(home), ["policy", "set", "--global", "--compression", "zstd"]]

    def backup(self, home: Path, paths: Sequence[Path]) -> Sequence[str | Path]:
        return ["snapshot", "create", "--no-progress", *paths]

    def restore(self, home: Path, target: Path) -> Sequence[str | Path]:
        listed = subprocess.run(
            [self.executable, "snapshot", "list", "--all", "--json", "--max-results", "1"],
            env={**os.environ, **self.environment(home)},
            capture_output=True,
            text=True,
            check=True,
        )
        return ["snapshot", "restore", "--no-progress", json.loads(listed.stdout)[-1]["id"], target]


PEERS: tuple[type[Tool], ...] = (Restic, Kopia, Borg, Rustic)


def lox(executor: str = "threads", memory: str = "512MiB") -> Lox:
    """LOX as a user starts it: the installed command of this environment."""
    beside = Path(sys.executable).with_name("lox")
    executable = str(beside) if beside.exists() else shutil.which("lox")
    if executable is None:
        raise SystemExit("lox is not installed in this environment: pip install --editable .")
    return Lox(executable, executor, memory)


def peers(wanted: Sequence[str] | None) -> list[Tool]:
    """The peers on PATH; all of them, or the wanted ones, which then must be there."""
    known = {kind.name: kind for kind in PEERS}
    if wanted is not None and (unknown := set(wanted) - known.keys()):
        raise SystemExit(f"unknown peers: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    found = []
    for name in known if wanted is None else wanted:
        executable = shutil.which(known[name].program)
        if executable is not None:
            found.append(known[name](executable))
        elif wanted is not None:
            raise SystemExit(f"{name} is not on PATH")
    return found
