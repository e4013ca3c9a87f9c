"""The results as a Markdown table and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.cases import Row
from tests.bench.tools import Tool

MIB = 1 << 20


def host() -> dict[str, Any]:
    """What the numbers depend on."""
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def markdown(rows: Sequence[Row]) -> str:
    """One table; the first row of a case is ours."""
    lines = [
        "| work | tool | median s | CPU s | × LOX | peak MiB | repository MB | | target | met |",
        "|---|---|---:|---:|---:|---:|---:|---|---|---|",
    ]
    shown = ""
    for row in rows:
        cells = [
            row.work if row.work != shown else "",
            f"**{row.tool}**" if row.tool == "lox" else row.tool,
            f"{row.seconds:.2f}" if row.seconds else "",
            f"{row.cpu:.1f}" if row.cpu else "",
            f"{row.ratio:.2f}" if row.ratio is not None else "",
            f"{row.peak / MIB:,.0f}" if row.peak else "",
            f"{row.repository / 1e6:,.1f}" if row.repository else "",
            row.note,
            row.target,
            {True: "yes", False: "**no**", None: ""}[row.met],
        ]
        lines.append(f"| {' | '.join(cells)} |")
        shown = row.work
    return "\n".join(lines)


BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def readme_section(rows: Sequence[Row], versions: dict[str, str]) -> str:
    """A line per case: our time beside each peer's and how many times ours that is."""
    cases: dict[str, dict[str, Row]] = {}
    for row in rows:
        cases.setdefault(row.work, {})[row.tool] = row
    rivals = list(dict.fromkeys(row.tool for row in rows if not row.tool.startswith("lox")))
    facts = host()
    lines = [
        f"{facts['cores']} cores of {facts['cpu']}, {facts['system']}, Python {facts['python']}; "
        + ", ".join(f"{name}: {version}" for name, version in versions.items() if name != "lox")
        + ".",
        "",
        f"| work | LOX | {' | '.join(rivals)} | LOX besides |".replace("|  |", "|"),
        f"|---|---:|{'---:|' * len(rivals)}---|",
    ]
    for work, tools in cases.items():
        for name in [name for name in tools if name.startswith("lox")]:
            ours = tools[name]
            cells = [f"{work} {name.removeprefix('lox')}".strip(), f"{ours.seconds:.2f} s" if ours.seconds else ""]
            cells += [_beside(tools.get(rival)) if name == "lox" else "" for rival in rivals]
            lines.append(f"| {' | '.join(cells)} | {_besides(ours, tools)} |")
    return "\n".join(lines)


def _beside(row: Row | None) -> str:
    return f"{row.seconds:.2f} s (× {row.ratio:.2f})" if row is not None and row.ratio is not None else ""


def _besides(ours: Row, tools: dict[str, Row]) -> str:
    parts = [ours.note] if ours.note else []
    if ours.repository and "restic" in tools and ours.work.startswith("first"):
        parts.append(f"repository {ours.repository / 1e6:,.0f} MB, restic {tools['restic'].repository / 1e6:,.0f} MB")
    if ours.peak:
        parts.append(f"peak {ours.peak / MIB:,.0f} MiB")
    return "; ".join(parts)


def write_readme(page: Path, section: str) -> None:
    """Put the table between the markers of the page."""
    head, _, rest = page.read_text().partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise SystemExit(f"{page}: the markers {BEGIN} and {END} are missing")
    page.write_text(f"{head}{BEGIN}\n{section}\n{END}{tail}")


def save(path: Path, rows: Sequence[Row], tools: Sequence[Tool], settings: dict[str, Any]) -> None:
    """Everything measured, with every sample, as one JSON document."""
    document = {
        "host": host(),
        "tools": {tool.name: tool.version() for tool in tools},
        "settings": settings,
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
