"""Profiles as text: a new file that says what differs from the profile it extends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import yaml

from model.errors import ConfigError, UsageError
from pipelines.profile_files import SUFFIX, every, folders, shipped_folder
from pipelines.profile_keys import EXTENDS, KEYS, VERSION
from pipelines.profile_kinds import AUTO

SCHEMA_FILE = "pipeline.schema.json"


def schema_path() -> str:
    """Where the JSON Schema lies that came with the program."""
    return os.path.join(shipped_folder(), SCHEMA_FILE)


def profile_text(extends: str, changes: Mapping[str, Any], description: str = "") -> str:
    """A profile that extends another and changes some values (by path; None is `auto`)."""
    lines = [
        f"# yaml-language-server: $schema={schema_path()}",
        f"version: {VERSION}",
        f"{EXTENDS.path}: {_quoted(extends)}",
    ]
    if description:
        lines.append(f"description: {_quoted(description)}")
    above: list[str] = []
    for path in (path for path in KEYS if path in changes):
        *sections, name = path.split(".")
        same = 0
        while same < min(len(above), len(sections)) and above[same] == sections[same]:
            same += 1
        for depth in range(same, len(sections)):
            lines += [""] * (depth == 0) + [f"{'  ' * depth}{sections[depth]}:"]
        above = sections
        lines.append(f"{'  ' * len(sections)}{name}: {_value(path, changes[path])}")
    return "\n".join(lines) + "\n"


def new_path(name: str) -> str:
    """Where a new profile of yours is to lie. Raises UsageError for an odd name, ConfigError if it is taken."""
    if not name or name.startswith((".", "-")) or not all(letter.isalnum() or letter in "-_." for letter in name):
        raise UsageError("not a name for a profile", subject=name, hint="use letters, digits, - _ and .")
    for known in every():
        if known.name == name:
            raise ConfigError("there is such a profile already", subject=known.path, hint="choose another name")
    return os.path.join(folders()[0][1], name + SUFFIX)


def write_new(path: str, text: str) -> None:
    """Write a profile; never over one that is there. Raises ConfigError."""
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError("cannot write the profile", subject=path, why=(error.strerror or "").lower()) from error


def _value(path: str, value: Any) -> str:
    if value is None:
        return AUTO
    text = KEYS[path].kind.written(value)
    return text if KEYS[path].kind.shape != "scalar" or isinstance(value, int) else _quoted(text)


def _quoted(text: str) -> str:
    """Text as a YAML scalar, in quotes where it needs them."""
    plain: str = yaml.safe_dump(text, width=10_000, allow_unicode=True)
    return plain.removesuffix("...\n").rstrip("\n")
