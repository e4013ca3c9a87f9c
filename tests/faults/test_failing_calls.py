"""Each system call of a backup fails once, as a dying disk or a quota makes it: A5 and A7 of the fault catalogue.

A failed fsync may have dropped what it was to write: an object whose fsync or close failed once must never be taken for
stored, whatever a second fsync says.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALLS = {"fsync", "close", "writev", "link", "mkdir", "unlink"}
TIDYING = "unlink"  # only taking a temporary name away may fail without the run: what it is about is stored by then


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preloaded library, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler for Linux: apt-get install gcc")
    path = tmp_path_factory.mktemp("shim") / "failing_calls.so"
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(path), str(source), "-ldl"], check=True)
    return path


def run(library: Path, folder: Path, every: int) -> dict[str, dict[str, int]]:
    environment = {**os.environ, "LD_PRELOAD": str(library), "LOX_CACHE_DIR": str(folder / "cache")}
    command = [sys.executable, "-m", "tests.faults.failing_calls", str(folder), str(every)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, dict[str, int]] = json.loads(done.stdout)
    print(f"system calls that failed once: {result['made']}; backups that failed for it: {result['failed']}")
    return result


def test_some_calls_fail(library: Path, tmp_path: Path) -> None:
    result = run(library, tmp_path, every=13)
    assert set(result["made"]) == CALLS


@pytest.mark.slow
def test_every_call_fails_once(library: Path, tmp_path: Path) -> None:
    result = run(library, tmp_path, every=1)
    assert set(result["made"]) == CALLS
    made = {call: count for call, count in result["made"].items() if call != TIDYING}
    told = {call: result["failed"][call] + result["excused"].get(call, 0) for call in made}
    assert told == made and all(result["failed"][call] > 0 for call in made)
