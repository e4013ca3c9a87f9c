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
