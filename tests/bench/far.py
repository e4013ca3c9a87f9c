"""The line about a store at some distance: a backup into an S3 server that answers late, beside bare PUTs to it."""

from __future__ import annotations

import os
import sys
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from repository.store import open_store
from tests.bench import tools
from tests.bench.cases import Bench, Row, judge, paired
from tests.bench.measure import Command, Outcome, run
from tests.repository.servers import BUCKET, make_bucket, s3_server

LATENCY = 0.02  # seconds added to each request
PACK = 64 << 20  # bytes of a bare PUT: a full pack
LANES = (2, 8)
LINE = 125e6  # bytes a second: 1 Gbit/s


class LoxToS3(tools.Lox):
    """LOX with its repository in the bucket."""

    def environment(self, home: Path) -> dict[str, str]:
        return {**super().environment(home), "LOX_REPOSITORY": f"s3://{BUCKET}/{home.name}"}


class BarePuts(tools.Tool):
    """As many bytes in PUTs of 64 MiB by some threads, and nothing else: what the server takes at best."""

    program = "python"

    def __init__(self, lanes: int) -> None:
        super().__init__(sys.executable)
        self.name = f"bare PUTs, {lanes} lanes"
        self.lanes = lanes

    def environment(self, home: Path) -> dict[str, str]:
        return {}

    def init(self, home: Path) -> Sequence[str | Path]:
        raise NotImplementedError

    def puts(self, size: int) -> Sequence[str]:
        return ["-m", "tests.bench.far", str(size), str(self.lanes)]

    backup = restore = None  # type: ignore[assignment]


def s3(bench: Bench) -> list[Row]:
    """2 GB of random bytes: on a line of 1 Gbit/s; into a server that has half of the cores to itself; and into one
    on the same cores, of which it takes most. The server is in this process, and starts empty each time: it keeps all
    in memory."""
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    rows = _to_s3(bench, "1 Gbit/s and 20 ms away", LINE, cores, cores)
    if half:
        rows += _to_s3(bench, "20 ms away, on cores of its own", 0, cores[:half], cores[half:])
    return [*rows, *_to_s3(bench, "20 ms away, on the same cores", 0, cores, cores)]


@contextmanager
def _on(cores: Iterable[int]) -> Iterator[None]:
    """Threads and processes that this thread starts run on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _to_s3(bench: Bench, where: str, line: float, servers: Iterable[int], clients: Iterable[int]) -> list[Row]:
    source = bench.inputs.random_files()
    rivals: list[tools.Tool] = [LoxToS3(tools.lox().executable), *map(BarePuts, LANES)]

    def measure(tool: tools.Tool, number: int) -> Outcome:
        with ExitStack() as stack:
            with _on(servers):
                reach = stack.enter_context(s3_server(delay=LATENCY, line=line))
            _empty(reach)
            stack.enter_context(_on(clients))
            if isinstance(tool, BarePuts):
                command = Command([tool.executable, *tool.puts(source.size)], reach, tools.ROOT)
                return _timed_inside(run(command, bench.log("puts"), sample=number == 0), bench.log("puts"))
            home = bench.home(tool, f"s3-{number}")
            for arguments in (tool.init(home), tool.backup(home, source.paths)):
                ours = tool.command(home, arguments)
                outcome = run(
                    Command(ours.arguments, {**ours.environment, **reach}), bench.log(tool.name), sample=number == 0
                )
            return outcome

    rows = paired(bench, "s3", f"backup of {source.size / 1e9:.1f} GB to S3, {where}", rivals, measure)
    for row in rows:
        row.note = f"{source.size / row.seconds / 1e6:,.0f} MB/s"
    best = min(rows[1:], key=lambda row: row.seconds)
    rows[0].note += f", {best.seconds / rows[0].seconds:.0%} of {best.tool}"
    judge(rows, "≥ 80 % of the best bare PUTs", lambda a, b: b.seconds / a.seconds >= 0.8, rival=best.tool)
    return rows


def _empty(reach: dict[str, str]) -> None:
    """All servers of a process have the same memory."""
    request = urllib.request.Request(f"{reach['AWS_ENDPOINT_URL']}/moto-api/reset", method="POST")
    with urllib.request.urlopen(request):
        make_bucket(reach)


def _timed_inside(outcome: Outcome, log: Path) -> Outcome:
    """Without the start of the interpreter and the making of random bytes."""
    return Outcome(float(log.read_text()), outcome.cpu, outcome.peak, outcome.read)


def put_bare(size: int, lanes: int) -> float:
    """Seconds it takes to put `size` bytes."""
    store = open_store(f"s3://{BUCKET}/bare")
    body = os.urandom(PACK)
    list(store.list("packs/"))  # the connection is there
    began = time.perf_counter()
    with ThreadPoolExecutor(lanes) as pool:
        sizes = [min(PACK, size - at) for at in range(0, size, PACK)]
        list(pool.map(lambda job: store.put(f"packs/{job[0]:06}", [body[: job[1]]]), enumerate(sizes)))
    return time.perf_counter() - began


if __name__ == "__main__":
    print(put_bare(int(sys.argv[1]), int(sys.argv[2])))
