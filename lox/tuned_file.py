"""The file that `lox pipeline tune --write` makes: a profile that extends another and sets only what changed."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import yaml

from model.errors import ConfigError, UsageError
from pipelines.profile import Profile, written
from pipelines.profile_files import SUFFIX, folders
from pipelines.profile_keys import KEYS, VERSION


def tuned_name(profile: Profile, name: str | None) -> str:
    """The file that a tuned profile is to be written to. UsageError if the name is no file name, or is taken."""
    name = name or f"{profile.name}-tuned"
    if os.sep in name or name.startswith(".") or not name.isprintable() or len(name) > 100:
        raise UsageError("not a name for a profile", subject=name)
    path = os.path.join(folders()[0][1], name + SUFFIX)
    if os.path.lexists(path):
        raise UsageError("there is such a profile", subject=path, hint="choose another --name, or delete it")
    return path


def write_tuned(path: str, profile: Profile, changes: Mapping[str, object], told: str) -> str:
    """Writes a profile that extends `profile` and sets only what changed. Raises ConfigError."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "x", encoding="utf-8", errors="backslashreplace") as file:
            file.write(tuned_text(profile, changes, told))
    except OSError as error:
        raise ConfigError("cannot write the profile", subject=path, why=(error.strerror or "").lower()) from error
    return path


def tuned_text(profile: Profile, changes: Mapping[str, object], told: str) -> str:
    """The text of such a profile: what was measured as a comment, then the keys that changed."""
    document: dict[str, Any] = {"version": VERSION, "extends": _parent(profile)}
    own = {path: value.value for path, value in profile.values.items() if not value.place.line}  # from --set
    for key, value in {**own, **changes}.items():
        *sections, last = key.split(".")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value if isinstance(value, int) and written(KEYS[key], value).isdigit() else written(KEYS[key], value)
    date = time.strftime("%Y-%m-%d")
    head = f"# lox pipeline tune, {date}, on {socket.gethostname()}:\n# {told}\n"
    return head + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def _parent(profile: Profile) -> str:
    """How a profile in another folder names this one."""
    if not profile.files:
        return "default"
    file = profile.files[0]
    return os.path.abspath(file.path) if file.place == "file" else file.name
