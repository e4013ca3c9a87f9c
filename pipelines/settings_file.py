"""Settings of a daemon from a YAML file, checked by a pydantic model; every fault has its file, line and column."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from model.errors import ConfigError
from pipelines.profile_faults import SIZE_MAX, Fault, Items, Pairs, Place, Scalar, Tree
from pipelines.profile_source import Dialect, read_tree

M = TypeVar("M", bound=BaseModel)

SETTINGS = Dialect("file of settings", "a key and its value", secrets=True, words=frozenset({"true", "false", "null"}))


def load_settings(model: type[M], path: Path, *, private: bool = True) -> M:
    """The settings in the file at `path`; `private`: it may hold secrets, so nobody else may read or own it.

    Raises ConfigError for the first fault, and tells how many more there are.
    """
    found, faults = read_settings(model, read_file(path, private), os.fspath(path))
    if found is not None:
        return found
    first, more = faults[0], len(faults) - 1
    why = first.reason if not more else f"{first.reason} (and {more} more)"
    raise ConfigError("the settings are invalid", subject=str(first.place), why=why, hint=first.hint)


def read_settings(model: type[M], data: bytes, file: str) -> tuple[M | None, list[Fault]]:
    """The settings in a text, or None and all that is wrong with it. `file` is what places call it."""
    tree, faults = read_tree(data, file, SETTINGS)
    if tree is None or faults:
        return None, faults
    try:
        return model.model_validate(_plain(tree)), []
    except ValidationError as error:
        return None, [_fault(model, tree, one) for one in error.errors(include_url=False)]


def read_file(path: Path, private: bool = True) -> bytes:
    """The bytes of a file of settings. Raises ConfigError if it cannot be read, or others may read or write it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError("cannot read the settings", subject=str(path), why=(error.strerror or "").lower()) from error
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise ConfigError("cannot read the settings", subject=str(path), why="it is no regular file")
    with os.fdopen(fd, "rb") as file:
        if private:
            _refuse_foreign(path, found)
        return file.read(SIZE_MAX + 1)


def _refuse_foreign(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()):
        why = "it belongs to another user"
        raise ConfigError("the settings are not safe", subject=str(path), why=why, hint=f"chown root {path}")
    if found.st_mode & 0o077:
        why = "it holds secrets, and others than its owner may read it"
        raise ConfigError("the settings are not safe", subject=str(path), why=why, hint=f"chmod 600 {path}")


def _plain(tree: Tree) -> Any:
    """The tree without places. Scalars are text: the model knows what they mean."""
    if isinstance(tree, Scalar):
        return None if tree.text == "null" else tree.text
    if isinstance(tree, Items):
        return [_plain(node) for node in tree.nodes]
    return {key.text: _plain(value) for key, value in tree.pairs}


def _fault(model: type[BaseModel], tree: Pairs, error: Any) -> Fault:
    location = [part for part in error["loc"] if isinstance(part, int) or not part.startswith("function-")]
    name = ".".join(map(str, location))
    place = _place(tree, location, key=error["type"] == "extra_forbidden")
    if error["type"] == "missing":
        return Fault(place, "missing", f"{name} is missing", f"write {location[-1]}: ...")
    if error["type"] == "extra_forbidden":
        return Fault(place, "unknown-key", f"there is no setting {name!r}", _did_you_mean(model, location))
    reason = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    given = error.get("input")
    shown = f"{name}: " if isinstance(given, dict | list) or "token" in name else f"{name}: {given}: "
    return Fault(place, "value", shown + reason[:1].lower() + reason[1:])


def _place(tree: Tree, location: Sequence[str | int], key: bool) -> Place:
    """Where the value stands, or the `key` of it; of one that is missing, where it should."""
    place = tree.place
    for part in location:
        if isinstance(tree, Pairs):
            pair = next((pair for pair in tree.pairs if pair[0].text == part), None)
            if pair is None:
                return place
            place = pair[0].place if key else pair[1].place
            tree = pair[1]
        elif isinstance(tree, Items) and isinstance(part, int) and part < len(tree.nodes):
            tree = tree.nodes[part]
            place = tree.place
    return place


def _did_you_mean(model: type[BaseModel], location: Sequence[str | int]) -> str:
    known: type[BaseModel] = model
    for part in location[:-1]:
        field = known.model_fields.get(str(part))
        inner = field.annotation if field is not None else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ""
        known = inner
    close = difflib.get_close_matches(str(location[-1]), known.model_fields, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known.model_fields)}"
