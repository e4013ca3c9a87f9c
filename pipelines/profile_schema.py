"""What a profile may hold, for others: a JSON Schema for editors, and the reference for people. Both from `KEYS`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pipelines.profile_check import is_section, names_below
from pipelines.profile_keys import KEYS, VERSION_KEY, Key
from pipelines.profile_kinds import AUTO

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SECTIONS = {
    "executor": "Who runs the stages, and how much of the machine they may take.",
    "limits": "What the run must not exceed.",
    "chunker": "How a repository made with `lox init --profile` cuts files. A backup does as its repository says.",
    "strands": "Which stages share a lane, so that bytes go from one to the next without being handed over.",
    "stages": "Single stages of a backup, a restore or a copy. Read and download have no queue.",
    "on_error": "What to do about files that cannot be read as they are.",
    "placement": "On which hosts stages run, where there are several.",
}


def schema() -> str:
    """The JSON Schema as text. Where a range is no matter of a pattern (sizes), only the loader checks it."""
    whole = {
        "$schema": DIALECT,
        "title": "LOX Backup pipeline profile",
        **_section(""),
        "required": [VERSION_KEY.path],
    }
    return json.dumps(whole, indent=2, ensure_ascii=False)


def _section(path: str) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name in names_below(path):
        inner = f"{path}.{name}" if path else name
        properties[name] = _section(inner) if is_section(inner) else _key(KEYS[inner])
    about = {"description": SECTIONS[path]} if path in SECTIONS else {}
    return {**about, "type": "object", "properties": properties, "additionalProperties": False}


def _key(key: Key[Any]) -> dict[str, Any]:
    about: dict[str, Any] = {"description": key.meaning}
    if key.default is not None:
        about["default"] = key.default
    if not key.automatic:
        return about | key.kind.schema()
    about["description"] += f" auto: {key.automatic}."
    return {**about, "default": AUTO, "anyOf": [{"const": AUTO}, key.kind.schema()]}


def reference() -> Iterator[tuple[str, str, list[tuple[str, str, str, str]]]]:
    """Section by section: its name, what it is about, and for each key its path, meaning, default and bounds.

    Keys that stages have in common are told once, for all stages.
    """
    rows: dict[str, list[tuple[str, str, str, str]]] = {"": []}
    for path, meaning, usual, bounds in _rows():
        head = path.partition(".")[0] if "." in path else ""
        rows.setdefault(head, []).append((path, meaning, usual, bounds))
    for name, keys in rows.items():
        yield name, SECTIONS.get(name, ""), keys


def _rows() -> Iterator[tuple[str, str, str, str]]:
    told = set()
    for key in KEYS.values():
        path, meaning = general(key)
        if path not in told:
            told.add(path)
            usual = AUTO if key.automatic else "" if key.default is None else str(key.default)
            yield path, meaning, f"{usual}: {key.automatic}" if key.automatic else usual, key.kind.bounds


def general(key: Key[Any]) -> tuple[str, str]:
    """Path and meaning, for all stages at once where all of them have the key."""
    section, _, rest = key.path.partition(".")
    stage, _, name = rest.partition(".")
    if section == "placement" or name in ("lanes", "queue.items", "queue.bytes"):
        path = f"{section}.STAGE.{name}" if name else f"{section}.STAGE"
        return path, key.meaning.replace(f" {stage}", " it").replace("Copies of it", "Copies of the stage")
    return key.path, key.meaning


def reference_markdown() -> str:
    """The reference as tables, for docs/pipelines.md."""
    lines: list[str] = []
    for name, about, rows in reference():
        lines += [f"### {name}" if name else "### The profile itself", ""]
        lines += [about, ""] if about else []
        lines += ["| key | meaning | if left out | may be |", "|---|---|---|---|"]
        lines += [f"| `{path}` | {meaning} | {usual or '-'} | {bounds} |" for path, meaning, usual, bounds in rows]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
