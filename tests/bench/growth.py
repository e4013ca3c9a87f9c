"""The lines about repositories that have grown: the index, and many snapshots in the way of a listing and a backup."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench import tools
from tests.bench.cases import Bench, Row, describe, judge, paired, prepared
from tests.bench.measure import Outcome, run

MIB = 1 << 20


def index(bench: Bench) -> list[Row]:
    """Memory of the index of 4 million chunks, and how long a batch of ids takes."""
    tool = tools.lox()
    home = grown(bench, tool, "index")
    found: list[dict[str, float]] = []
    for number in range(bench.repeat + 1):  # the first makes the cache
        print(f"  index: round {number} of {bench.repeat}", file=sys.stderr, flush=True)
        found.append(look_up(home))
    row = Row("index", "", "lox", *middle([one["seconds"] for one in found[1:]]), cpu=0.0)
    row.work = f"index of {found[0]['chunks']:,} chunks, loaded from the cache"
    last = found[-1]
    row.peak = max(int(one[key]) for one in found for key in ("held at the end", "held while loading"))
    first = f"first load {found[0]['seconds']:.1f} s with {found[0]['held while loading'] / MIB:,.0f} MiB"
    touched = ", ".join(f"{kind} {last[f'{kind} touched'] / MIB:,.0f} MiB" for kind in ("new", "known"))
    row.note = f"{first}; mapped pages touched by 50 batches: {touched}"
    row.target, row.met = "≤ 64 MiB", row.peak <= 64 * MIB
    rows = [row]
    for kind in ("new", "known", "mixed"):
        one = Row("index", f"4,096 ids, {kind}", "lox", *middle([one[f"{kind} seconds"] for one in found[1:]]), cpu=0.0)
        one.note = f"{one.seconds * 1e3:.2f} ms"
        if f"{kind} cold seconds" in last:
            cold = middle([one[f"{kind} cold seconds"] for one in found[1:]])[0]
            one.note += f"; nothing in memory: {cold * 1e3:.0f} ms, reads {last[f'{kind} cold read'] / MIB:,.0f} MiB"
        one.target, one.met = "< 5 ms", one.seconds < 0.005
        rows.append(one)
    return rows


def look_up(home: Path) -> dict[str, float]:
    """See lookups.py; a process of its own each time."""
    arguments = [str(tools.Lox.repository(home)), tools.PASSWORD, str(home / "cache")]
    command = [sys.executable, "-m", "tests.bench.lookups", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tools.ROOT)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def middle(samples: list[float]) -> tuple[float, list[float]]:
    """Median and samples, as a row wants them."""
    return sorted(samples)[len(samples) // 2], samples


def history(bench: Bench) -> list[Row]:
    """Listing 10,000 snapshots, and a second backup that finds them in its way."""
    tool = tools.lox()
    home = grown(bench, tool, "history")
    keyed = KeyedLox(tool.executable)
    run(tool.command(home, ["key", "add", "--key-file", keyed.key_file(home)]), bench.log(tool.name), sample=False)
    count = sum(1 for _ in os.scandir(tool.repository(home) / "snapshots"))
    rows = []
    lines = (("without a local cache", 2.0, True, tool), ("again", 0.3, False, tool), ("again", 0.3, False, keyed))
    for work, target, cold, using in lines:

        def measure(tool: tools.Tool, number: int, cold: bool = cold) -> Outcome:
            if cold:
                shutil.rmtree(home / "cache", ignore_errors=True)
            return run(tool.command(home, ["snapshots"]), bench.log(tool.name), sample=number == 0)

        found = paired(bench, "history", f"lox snapshots, {count:,} of them, {work}", [using], measure)
        found[0].target, found[0].met = f"< {target} s", found[0].seconds < target
        rows += found
    rows.append(_in_one_process(home, count, keyed))
    return rows + _second_backups(bench, tool, home)


class KeyedLox(tools.Lox):
    """LOX with a key file in place of the password: no key derivation."""

    def __init__(self, executable: str) -> None:
        super().__init__(executable)
        self.name = "lox, key file"

    @staticmethod
    def key_file(home: Path) -> Path:
        return home / "bench.key"

    def environment(self, home: Path) -> dict[str, str]:
        return {**super().environment(home), "LOX_PASSWORD": "", "LOX_PASSWORD_FILE": str(self.key_file(home))}


def _in_one_process(home: Path, count: int, tool: KeyedLox) -> Row:
    """Opening and listing by a program that runs already: see listing.py."""
    environment = {**os.environ, **tool.environment(home)}
    command = [sys.executable, "-m", "tests.bench.listing", str(tool.repository(home)), str(tool.key_file(home))]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tools.ROOT, env=environment)
    row = Row("history", f"lox.open and .snapshots(), {count:,} of them, in a running process", tool.name,
              *middle(json.loads(done.stdout)), cpu=0.0)  # fmt: skip
    row.target, row.met = "< 0.3 s", row.seconds < 0.3
    return row


def _second_backups(bench: Bench, tool: tools.Lox, grown_home: Path) -> list[Row]:
    source = bench.inputs.software_tree()
    other = tools.lox()
    other.name = "lox, long history"
    bench.backup(other, grown_home, source)
    homes = {tool.name: prepared(bench, tool, "history-empty", source), other.name: grown_home}

    def measure(tool: tools.Tool, number: int) -> Outcome:
        return bench.backup(tool, homes[tool.name], source, sample=number == 0)

    work = f"second backup, nothing changed, {describe(source)}"
    rows = paired(bench, "history", work, [tool, other], measure)
    judge(rows, "into a long history ≤ 1.5 ×", lambda _, b: (b.ratio or 9) <= 1.5, rival=other.name)
    return rows


def grown(bench: Bench, tool: tools.Tool, case: str) -> Path:
    """A home with a repository of a long history, whose files are links: objects are never changed."""
    made, _ = bench.inputs.long_history(tools.PASSWORD)
    home = bench.home(tool, case)
    shutil.copytree(made, tool.repository(home), copy_function=os.link)
    return home
