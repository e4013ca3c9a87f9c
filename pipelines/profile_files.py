"""Where profiles lie: yours, this machine's, and those that are shipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from model.errors import ConfigError
from pipelines.profile_faults import SIZE_MAX

SYSTEM = "/etc/lox/pipelines"
SHIPPED = "shipped"
SUFFIX = ".yaml"


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """A profile that was found: `name` is what it is called, `place` "yours", "system", SHIPPED or "file"."""

    name: str
    path: str
    place: str

    def read(self) -> bytes:
        """Its text, or so much of it that one sees it is too long. Raises ConfigError."""
        try:
            with open(self.path, "rb") as file:
                return file.read(SIZE_MAX + 1)
        except OSError as error:
            why = (error.strerror or "").lower()
            raise ConfigError("cannot read the profile", subject=self.path, why=why) from error


def folders() -> list[tuple[str, str]]:
    """Where names are looked up, first match wins: what the place is called, and the folder."""
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return [
        ("yours", os.path.join(home, "lox", "pipelines")),
        ("system", SYSTEM),
        (SHIPPED, os.path.join(shipped_folder(), "pipelines")),
    ]


def shipped_folder() -> str:
    """Where that lies which came with the program."""
    found = find_spec("configs")
    assert found is not None and found.origin is not None, "it is installed with us"
    return os.path.dirname(found.origin)


def find(wanted: str, beside: str | None = None) -> ProfileFile:
    """The profile of this name, or the file if it is a path (it has a slash or ends in .yaml).

    Paths count from the folder of the file `beside` if there is one. Raises ConfigError.
    """
    if os.sep in wanted or wanted.endswith((SUFFIX, ".yml")):
        path = os.path.normpath(os.path.join(os.path.dirname(beside or ""), os.path.expanduser(wanted)))
        if os.path.isdir(path):
            raise ConfigError("a profile is a file, this is a folder", subject=path)
        if not os.path.exists(path):  # a pipe will do: a profile is read once
            raise ConfigError("no such profile", subject=path, hint="lox pipeline list shows those that have names")
        return ProfileFile(os.path.splitext(os.path.basename(path))[0], path, "file")
    for known in every():
        if known.name == wanted:
            return known
    from pipelines.profile_kinds import closest

    names = list(dict.fromkeys(known.name for known in every()))
    raise ConfigError("no such profile", subject=wanted, hint=closest(wanted, names))


def every() -> Iterator[ProfileFile]:
    """All profiles that have names, in the order in which they are looked up: the first of a name counts."""
    for place, folder in folders():
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            if name.endswith(SUFFIX) and not name.startswith("."):
                yield ProfileFile(name.removesuffix(SUFFIX), os.path.join(folder, name), place)
