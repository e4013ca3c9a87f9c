"""The lines of the table. Each case runs LOX and its rivals in turns: one sampled round first (memory, sizes, warm
caches; its times are not used), then `repeat` timed rounds. A ratio is the median over rounds of rival ÷ LOX.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests import trees
from tests.bench import inputs, tools
from tests.bench.inputs import Input, Inputs
from tests.bench.measure import Command, Outcome, run


@dataclass(slots=True)
class Row:
    """One tool's result in one case. Seconds are medians over the timed rounds."""

    case: str
    work: str
    tool: str
    seconds: float
    samples: list[float]
    cpu: float
    ratio: float | None = None  # its median time over ours, round by round; None for LOX itself
    peak: int = 0  # bytes, whole process tree
    repository: int = 0  # bytes
    note: str = ""
    target: str = ""
    met: bool | None = None


@dataclass(slots=True)
class Bench:
    """What every case needs."""

    inputs: Inputs
    work: Path  # repositories, caches and targets on a disk
    memory_folder: Path  # a tmpfs
    peers: list[tools.Tool]
    repeat: int
    homes: list[Path] = field(default_factory=list)

    def home(self, tool: tools.Tool, case: str) -> Path:
        """An empty folder for one tool's repository and cache in one case."""
        home = self.work / "homes" / f"{case}-{tool.name.replace(' ', '')}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True, mode=0o700)
        self.homes.append(home)
        return home

    def log(self, tool: str) -> Path:
        return self.work / f"{tool.replace(' ', '')}.log"

    def setup(self, tool: tools.Tool, home: Path) -> None:
        for arguments in tool.setup(home):
            run(tool.command(home, arguments), self.log(tool.name))

    def backup(self, tool: tools.Tool, home: Path, source: Input, *, sample: bool = False) -> Outcome:
        return run(tool.command(home, tool.backup(home, source.paths)), self.log(tool.name), sample=sample)

    def clean(self) -> None:
        for home in self.homes:
            shutil.rmtree(home, ignore_errors=True)
        self.homes.clear()


Measure = Callable[[tools.Tool, int], Outcome]


def paired(bench: Bench, case: str, work: str, rivals: Sequence[tools.Tool], measure: Measure) -> list[Row]:
    """Round 0 is sampled, rounds 1..repeat are timed; within a round every tool runs once, LOX (the first) too."""
    peaks: dict[str, int] = {}
    samples: dict[str, list[float]] = {tool.name: [] for tool in rivals}
    cpu: dict[str, list[float]] = {tool.name: [] for tool in rivals}
    for number in range(bench.repeat + 1):
        for tool in rivals if number % 2 == 0 else list(reversed(rivals)):
            print(f"  {case}: round {number} of {bench.repeat}: {tool.name}", file=sys.stderr, flush=True)
            os.sync()  # nobody pays for what another left to be written
            outcome = measure(tool, number)
            if number == 0:
                peaks[tool.name] = outcome.peak
            else:
                samples[tool.name].append(outcome.seconds)
                cpu[tool.name].append(outcome.cpu)
    rows = []
    ours = samples[rivals[0].name]
    for tool in rivals:
        theirs = samples[tool.name]
        ratio = None
        if tool is not rivals[0]:
            ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        row = Row(case, work, tool.name, statistics.median(theirs), theirs, statistics.median(cpu[tool.name]))
        row.ratio, row.peak = ratio, peaks[tool.name]
        rows.append(row)
    return rows


def repository_size(tool: tools.Tool, home: Path) -> int:
    """Bytes of all objects of its repository."""
    return trees.measure(os.fsencode(tool.repository(home))).size


def judge(rows: list[Row], target: str, met: Callable[[Row, Row], bool], rival: str = "restic") -> None:
    """Note the target beside our row, and whether it was met against `rival` if that took part."""
    ours = rows[0]
    ours.target = target
    theirs = next((row for row in rows if row.tool == rival), None)
    if theirs is not None:
        ours.met = met(ours, theirs)


# --- first and second backup ----------------------------------------------------------------------------------------


def first(bench: Bench) -> list[Row]:
    source = bench.inputs.software_tree()
    return _first(bench, "first", f"first backup, {describe(source)}", source, 2.5)


def _first(bench: Bench, case: str, work: str, source: Input, at_least: float) -> list[Row]:
    sizes = {}

    def measure(tool: tools.Tool, number: int) -> Outcome:
        home = bench.home(tool, case)
        bench.setup(tool, home)
        os.sync()
        outcome = bench.backup(tool, home, source, sample=number == 0)
        sizes[tool.name] = repository_size(tool, home)
        return outcome

    rows = paired(bench, case, work, [tools.lox(), *bench.peers], measure)
    for row in rows:
        row.repository = sizes[row.tool]
        row.note = f"{source.size / row.seconds / 1e6:,.0f} MB/s"
    goal = f"≥ {at_least} × restic"
    if case == "first":
        judge(
            rows,
            f"{goal}, repository ≥ 10 % smaller",
            lambda a, b: (b.ratio or 0) >= at_least and a.repository <= 0.9 * b.repository,
        )
    else:
        judge(rows, goal, lambda _, b: (b.ratio or 0) >= at_least)
    return rows


def unchanged(bench: Bench) -> list[Row]:
    source = bench.inputs.software_tree()
    return _unchanged(bench, "unchanged", f"second backup, nothing changed, {describe(source)}", source, 2.5)


def million(bench: Bench) -> list[Row]:
    source = bench.inputs.million_tree()
    return _unchanged(bench, "million", f"second backup, nothing changed, {describe(source)}", source, 5.0)


def _unchanged(bench: Bench, case: str, work: str, source: Input, at_least: float) -> list[Row]:
    rivals = [tools.lox(), *bench.peers]
    homes = {tool.name: prepared(bench, tool, case, source) for tool in rivals}

    def measure(tool: tools.Tool, number: int) -> Outcome:
        return bench.backup(tool, homes[tool.name], source, sample=number == 0)

    rows = paired(bench, case, work, rivals, measure)
    for row, tool in zip(rows, rivals, strict=True):
        row.repository = repository_size(tool, homes[tool.name])
        row.note = f"{source.files / row.seconds:,.0f} files/s"
    judge(rows, f"≥ {at_least} × restic", lambda _, b: (b.ratio or 0) >= at_least)
    return rows


def prepared(bench: Bench, tool: tools.Tool, case: str, source: Input) -> Path:
    """A repository that holds one snapshot of the input."""
    home = bench.home(tool, case)
    bench.setup(tool, home)
    bench.backup(tool, home, source)
    return home


def opens(bench: Bench) -> list[Row]:
    """Which regular files of the tree an unchanged run opens, seen by strace: the target is none."""
    if shutil.which("strace") is None:
        print("  opens: skipped, strace is not installed (apt-get install strace)", file=sys.stderr)
        return []
    source, tool = bench.inputs.software_tree(), tools.lox()
    home = prepared(bench, tool, "opens", source)
    trace = bench.work / "opens.strace"
    command = tool.command(home, tool.backup(home, source.paths))
    wrapped: list[str | bytes | Path] = [
        "strace",
        "-f",
        "-y",
        "-e",
        "trace=open,openat,openat2",
        "-e",
        "status=successful",
        "-o",
        trace,
    ]
    outcome = run(Command([*wrapped, *command.arguments], command.environment), bench.log("strace"))
    opened = opened_files(trace, source.paths)
    row = Row("opens", "files of the tree opened by an unchanged run", tool.name, outcome.seconds, [], outcome.cpu)
    row.note, row.target, row.met = f"{opened} of {source.files:,} opened", "none", opened == 0
    return [row]


def opened_files(trace: Path, roots: Sequence[Path]) -> int:
    """Regular files below `roots` among the descriptors that strace -y saw opened."""
    prefixes = tuple(os.fsencode(root) + b"/" for root in roots)
    found = set()
    with trace.open("rb") as lines:
        for line in lines:
            _, arrow, result = line.rpartition(b" = ")
            if arrow and b"<" in result:
                path = result[result.index(b"<") + 1 : result.rindex(b">")]
                if path.startswith(prefixes) and os.path.isfile(path):
                    found.add(path)
    return len(found)


# --- restore --------------------------------------------------------------------------------------------------------


class BareWriter(tools.Tool):
    """Creates and writes the same files and does nothing else; the roofline of a restore."""

    name = "bare writing"
    program = "cc"

    def environment(self, home: Path) -> dict[str, str]:
        return {}

    def init(self, home: Path) -> Sequence[str | Path]:
        raise NotImplementedError

    backup = restore = None  # type: ignore[assignment]


def restore_tmpfs(bench: Bench) -> list[Row]:
    rows = _restore(bench, "restore-tmpfs", "restore to an empty folder on tmpfs", bench.memory_folder)
    judge(rows, "≥ 2.5 × restic", lambda _, b: (b.ratio or 0) >= 2.5)
    return rows


def restore_disk(bench: Bench) -> list[Row]:
    rows = _restore(bench, "restore-disk", "restore to an empty folder on a disk", bench.work)
    judge(rows, "≤ 1.3 × bare writing", lambda _, b: 1 / (b.ratio or 1) <= 1.3, rival=BareWriter.name)
    return rows


def _restore(bench: Bench, case: str, work: str, place: Path) -> list[Row]:
    source = bench.inputs.software_tree()
    target = place / f"lox-bench-{case}"
    bare = compile_bare_writer(bench.work)
    records = bench.work / "bare.list"
    records.write_bytes(inputs.writer_list(source))
    rivals = [tools.lox(), *bench.peers, *([BareWriter(str(bare))] if bare else [])]
    homes = {tool.name: prepared(bench, tool, case, source) for tool in rivals if not isinstance(tool, BareWriter)}
    synced = {tool.name: list[float]() for tool in rivals}

    def measure(tool: tools.Tool, number: int) -> Outcome:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        os.sync()
        if isinstance(tool, BareWriter):
            script = f'exec "{tool.executable}" "{target}" {os.cpu_count() or 1} < "{records}"'
            command = Command(["sh", "-c", script], {})
        else:
            home = homes[tool.name]
            command = tool.command(home, tool.restore(home, target), tool.restore_folder(target))
        outcome = run(command, bench.log(tool.name), sample=number == 0)
        if number == 0:
            check_restored(tool, target, source)
        else:
            synced[tool.name].append(outcome.seconds + timed_sync())
        return outcome

    try:
        rows = paired(bench, case, f"{work}, {describe(source)}", rivals, measure)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    for row in rows:
        row.note = f"{statistics.median(synced[row.tool]):.1f} s until on disk" if case == "restore-disk" else ""
    return rows


def timed_sync() -> float:
    """Seconds until everything written is on the disk."""
    outcome = run(Command(["sync"], {}), Path(os.devnull))
    return outcome.seconds


def check_restored(tool: tools.Tool, target: Path, source: Input) -> None:
    """A tool that restored less than everything must not win."""
    size = trees.measure(os.fsencode(target))
    if size.files != source.files or (size.size != source.size and not isinstance(tool, BareWriter)):
        raise SystemExit(f"{tool.name} restored {size}, expected {source.files} files and {source.size} bytes")


def compile_bare_writer(folder: Path) -> Path | None:
    """The roofline program, or None where there is no C compiler."""
    program, code = folder / "bare_write", Path(__file__).with_name("bare_write.c")
    done = subprocess.run(["cc", "-O2", "-pthread", "-o", program, code], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(f"  no bare writer: {done.stderr.strip()}", file=sys.stderr)
        return None
    return program


# --- one large file -------------------------------------------------------------------------------------------------


def large(bench: Bench) -> list[Row]:
    """One file against eight of an eighth: the rate of LOX must be the same, and twice that of restic."""
    one, eight = bench.inputs.one_large(), bench.inputs.eight_files()
    rows = _first(bench, "large", f"first backup of one file of {one.size / 1e9:.1f} GB, incompressible", one, 2.0)
    split = _first(bench, "eight", f"the same as {eight.files} files of {eight.size / 8e9:.1f} GB", eight, 2.0)
    rate, split_rate = one.size / rows[0].seconds, eight.size / split[0].seconds
    split[0].target = "one file within 20 % of the rate of eight"
    split[0].met = rate >= 0.8 * split_rate
    split[0].note += f"; one file runs at {rate / split_rate:.0%} of this rate"
    return [*rows, *split]


def changed(bench: Bench) -> list[Row]:
    """One large file with 1 % changed in place between rounds, in runs of 1 MiB."""
    source = bench.inputs.one_large()
    file = next(path for path in source.paths[0].iterdir())
    rivals = [tools.lox(), *bench.peers]
    homes = {tool.name: prepared(bench, tool, "changed", source) for tool in rivals}
    sizes = {tool.name: [repository_size(tool, homes[tool.name])] for tool in rivals}
    at_round = [-1]

    def measure(tool: tools.Tool, number: int) -> Outcome:
        if at_round[0] != number:  # the first tool of a round makes the change that all of them will find
            at_round[0] = number
            inputs.change_in_place(file, 0.01, number)
            os.sync()
        outcome = bench.backup(tool, homes[tool.name], source, sample=number == 0)
        sizes[tool.name].append(repository_size(tool, homes[tool.name]))
        return outcome

    work = f"one file of {source.size / 1e9:.1f} GB with 1 % changed in place"
    rows = paired(bench, "changed", work, rivals, measure)
    for row in rows:
        known = sizes[row.tool]
        stored = statistics.median(b - a for a, b in pairwise(known)) / source.size
        row.note = f"{source.size / row.seconds / 1e6:,.0f} MB/s, stores {stored:.2%}"
        if row is rows[0]:
            row.target, row.met = "stores < 3 %", stored < 0.03
    return rows


# --- copies ---------------------------------------------------------------------------------------------------------


def copied(bench: Bench) -> list[Row]:
    """From one repository on the disk to another, empty one. What is sealed anew need not be decompressed."""
    source = bench.inputs.software_tree()
    ours = tools.lox()
    rivals = [ours, tools.LoxToStranger(ours.executable), *(tool for tool in bench.peers if can_copy(tool))]
    homes = {tool.name: prepared(bench, tool, "copy-from", source) for tool in rivals}
    sizes, counts = dict[str, int](), dict[str, str]()

    def measure(tool: tools.Tool, number: int) -> Outcome:
        home = bench.home(tool, "copy-to")
        commands = tool.copy(homes[tool.name], home)
        assert commands is not None, "only those that can are asked"
        run(commands[0], bench.log(tool.name))
        os.sync()
        outcome = run(commands[1], bench.log(tool.name), sample=number == 0)
        sizes[tool.name] = repository_size(tool, home)
        if isinstance(tool, tools.Lox):
            counts[tool.name] = segments(bench.log(tool.name))
        return outcome

    rows = paired(bench, "copy", f"copy to another repository, {describe(source)}", rivals, measure)
    for row in rows:
        row.repository = sizes[row.tool]
        row.note = f"{source.size / row.seconds / 1e6:,.0f} MB/s" + counts.get(row.tool, "")
    rows[0].target, rows[0].met = "no segment decompressed", " 0 decompressed" in rows[0].note
    return rows


def can_copy(tool: tools.Tool) -> bool:
    return tool.copy(Path(), Path()) is not None


def segments(log: Path) -> str:
    """What the copy in `log` did with segments."""
    last = json.loads(log.read_text().splitlines()[-1])
    return f"; segments: {last['segments_copied']} as they were, {last['segments_repacked']} repacked, " + (
        f"{last['segments_decompressed']} decompressed"
    )


# --- Ray ------------------------------------------------------------------------------------------------------------


def ray(bench: Bench) -> list[Row]:
    """Threads against Ray on the first backup. How long a graph ran is what the runs say themselves; of that, the
    graph of a backup of an empty folder is taken off: starting and stopping Ray takes seconds, and varies by one."""
    source = bench.inputs.software_tree()
    empty = bench.work / "empty"
    empty.mkdir(exist_ok=True)
    idle = Input((empty,), 0, 0)
    rivals = [tools.lox("threads"), tools.lox("ray")]
    graphs: dict[tuple[str, str], list[float]] = defaultdict(list)

    def measured(case: str, what: Input) -> Measure:
        def measure(tool: tools.Tool, number: int) -> Outcome:
            home = bench.home(tool, case)
            bench.setup(tool, home)
            outcome = bench.backup(tool, home, what, sample=number == 0)
            if number:
                graphs[case, tool.name].append(graph_seconds(bench.log(tool.name)))
            return outcome

        return measure

    start = paired(bench, "ray-start", "start-up: backup of an empty folder", rivals, measured("ray-start", idle))
    rows = paired(bench, "ray", f"first backup, {describe(source)}", rivals, measured("ray", source))
    opening = {tool.name: statistics.median(graphs["ray-start", tool.name]) for tool in rivals}
    threads, actors = ([one - opening[tool.name] for one in graphs["ray", tool.name]] for tool in rivals)
    share = statistics.median(one / other for one, other in zip(threads, actors, strict=True))
    seconds = f"{statistics.median(actors):.2f} s against {statistics.median(threads):.2f} s"
    rows[1].note = f"steady state of the graph {seconds}: {share:.2f} of threads"
    rows[1].target, rows[1].met = "≥ 0.85 of threads", share >= 0.85
    return [*start, *rows]


def graph_seconds(log: Path) -> float:
    """How long the graph of the backup in `log` ran: what its last stage did in all that time adds up to it."""
    last = json.loads(log.read_text().splitlines()[-1])["stages"][-1]
    return float(last["busy"] + last["starved"] + last["blocked"])


def describe(source: Input) -> str:
    return f"{source.files:,} files, {source.size / 1e9:.2f} GB"


MEMORY_LIMIT = 700 << 20


def memory(rows: Sequence[Row]) -> list[Row]:
    """The largest peak of LOX with threads over all cases that were run."""
    ours = [row for row in rows if row.tool == "lox" and row.peak]
    if not ours:
        return []
    worst = max(ours, key=lambda row: row.peak)
    row = Row("memory", "peak memory of the process tree, all lines above", "lox", 0.0, [], 0.0, peak=worst.peak)
    row.note, row.target, row.met = f"in: {worst.case}", "< 700 MiB", worst.peak < MEMORY_LIMIT
    return [row]


CASES: dict[str, Callable[[Bench], list[Row]]] = {
    "first": first,
    "unchanged": unchanged,
    "opens": opens,
    "million": million,
    "restore-tmpfs": restore_tmpfs,
    "restore-disk": restore_disk,
    "large": large,
    "changed": changed,
    "copy": copied,
    "ray": ray,
}
