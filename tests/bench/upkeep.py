"""The line about maintenance: giving back the room of half of a repository."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.bench import tools
from tests.bench.cases import Bench, Row, judge, paired, repository_size
from tests.bench.inputs import Input
from tests.bench.measure import Outcome, run

MIB = 1 << 20
PRUNE_MEMORY = 400 * MIB


def prune(bench: Bench) -> list[Row]:
    """Half of what is stored is forgotten: how long it takes to free it, and what has to be read for that."""
    source = bench.inputs.half_gone()
    rivals: list[tools.Tool] = [tools.lox(), *(peer for peer in bench.peers if isinstance(peer, tools.Restic))]
    made = {tool.name: _half_forgotten(bench, tool, source) for tool in rivals}
    sizes: dict[str, tuple[int, int]] = {}
    read: dict[str, int] = {}

    def measure(tool: tools.Tool, number: int) -> Outcome:
        home = bench.home(tool, "prune")
        shutil.copytree(made[tool.name], home, copy_function=os.link, dirs_exist_ok=True, symlinks=True)
        before = repository_size(tool, home)
        outcome = run(tool.command(home, _PRUNE[tool.name]), bench.log(tool.name), sample=number == 0)
        sizes[tool.name] = before, repository_size(tool, home)
        read[tool.name] = read.get(tool.name, 0) or outcome.read
        return outcome

    work = f"freeing half of a repository of {source.size / 1e9:.1f} GB, incompressible"
    rows = paired(bench, "prune", work, rivals, measure)
    for row in rows:
        before, after = sizes[row.tool]
        row.repository = after
        row.note = f"frees {(before - after) / 1e6:,.0f} of {before / 1e6:,.0f} MB, reads {read[row.tool] / 1e6:,.0f}"
    rows[0].note += _copied(bench.log("lox"))
    judge(
        rows,
        "no slower than restic, < 400 MiB",
        lambda a, b: (b.ratio or 0) >= 1 and 0 < a.peak < PRUNE_MEMORY,
    )
    return rows


_PRUNE: dict[str, Sequence[str]] = {
    "lox": ["--json", "--no-progress", "prune", "--trash", "0d"],
    "restic": ["prune", "--quiet"],
}


def _half_forgotten(bench: Bench, tool: tools.Tool, source: Input) -> Path:
    """A home whose repository has everything in its packs and in no snapshot more than half of it."""
    home = bench.home(tool, "prune-made")
    bench.setup(tool, home)
    bench.backup(tool, home, source)
    run(tool.command(home, [*tool.backup(home, source.paths), "--exclude", "*.gone"]), bench.log(tool.name))
    first = tool.snapshots(home)[0]
    forget = ["forget", first] if tool.name == "restic" else ["forget", first, "--allow-last"]
    run(tool.command(home, forget), bench.log(tool.name))
    return home


def _copied(log: Path) -> str:
    """What LOX says of its own run: how many bytes of packs it read, and how many of them it had to copy."""
    summary = json.loads(log.read_text().splitlines()[-1])
    read, written = summary["bytes_read"] / 1e6, summary["bytes_written"] / 1e6
    segments = f"{summary['segments_copied']:,} segments as they are, {summary['segments_repacked']:,} repacked"
    return f"; of packs {read:,.0f} MB, copies {written:,.0f} MB ({segments})"
