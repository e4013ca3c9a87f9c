"""``python -m tests.bench``: measure LOX against the peers on PATH, and print a table.

All of it takes about an hour and 60 GB of disk on two cores; ``--scale 0.05`` shows the same table in two minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from tests.bench import cases, far, growth, report, tools, upkeep
from tests.bench.inputs import Inputs

CASES = {
    **cases.CASES,
    "index": growth.index,
    "history": growth.history,
    "prune": upkeep.prune,
    "s3": far.s3,
}


def main() -> int:
    options = arguments()
    work = options.work.expanduser().resolve()
    work.mkdir(parents=True, exist_ok=True)
    peers = tools.peers(options.peers.split(",") if options.peers else ([] if options.peers == "" else None))
    everyone = [tools.lox(), *peers]
    for tool in everyone:
        print(f"{tool.name}: {tool.version()}", file=sys.stderr)
    inputs = Inputs(work / "inputs", options.scale, options.tree)
    bench = cases.Bench(inputs, options.repositories or work, options.tmpfs, peers, options.repeat)
    bench.work.mkdir(parents=True, exist_ok=True)
    rows: list[cases.Row] = []
    settings = {"scale": options.scale, "repeat": options.repeat, "cases": options.only or list(CASES)}
    try:
        for name in options.only or CASES:
            found = CASES[name](bench)
            bench.clean()
            rows += found
            print(report.markdown(found), file=sys.stderr, flush=True)
            report.save(options.json, rows, everyone, settings)
    finally:
        bench.clean()
    rows += cases.memory(rows)
    report.save(options.json, rows, everyone, settings)
    print(report.markdown(rows))
    if options.readme:
        report.write_readme(
            options.readme, report.readme_section(rows, {tool.name: tool.version() for tool in everyone})
        )
    return 1 if any(row.met is False for row in rows) else 0


def arguments() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(CASES), help="a case to run; may be repeated")
    parser.add_argument("--peers", help="comma-separated; default: all found on PATH; '' for none")
    parser.add_argument("--tree", type=Path, help="back up this tree instead of the composed software tree")
    parser.add_argument("--repeat", type=int, default=3, help="timed rounds (default 3)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all inputs (default 1)")
    parser.add_argument("--work", type=Path, default=cache / "lox-bench", help="inputs, kept for the next run")
    parser.add_argument("--repositories", type=Path, help="where repositories lie (default: the work folder)")
    parser.add_argument("--tmpfs", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--json", type=Path, default=Path("bench-out/bench.json"))
    parser.add_argument("--readme", type=Path, help="also put a short table between the markers of this page")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
