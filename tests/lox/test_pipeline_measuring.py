"""lox pipeline bench, explain and tune on real files: what they tell is what happens, and nothing of theirs is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from json import loads
from pathlib import Path
from typing import Any

import pytest

from tests.lox import slow_disk
from tests.lox.running import ROOT, Shell, spawn
from tests.trees import walk

STAGES = ["scan", "read", "chunk", "hash", "dedup", "compress", "encrypt", "upload", "commit"]


@pytest.fixture(autouse=True)
def _own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kept rates and written profiles of these tests alone."""
    monkeypatch.setenv("LOX_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A few MiB, half of them compressible."""
    root = tmp_path / "source"
    for number in range(40):
        (root / f"d{number % 5}").mkdir(parents=True, exist_ok=True)
        data = os.urandom(60_000) if number % 2 else b"some words that compress " * 4000
        (root / f"d{number % 5}" / f"f{number}").write_bytes(data)
    return root


def traces(source: Path) -> dict[bytes, tuple[int, int, int]]:
    """Times and sizes of everything in a source."""
    root = os.fsencode(source)
    found = {path: entry.stat(follow_symlinks=False) for path, entry in walk(root)}
    return {path: (one.st_mtime_ns, one.st_ctime_ns, one.st_size) for path, one in found.items()}


def of_type(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["type"] == kind]


def test_bench_measures_every_stage_and_keeps_it(empty: Shell, source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    arguments = ("--source", source, "--work", work, "--compression", "zstd:1", "--compression", "lz4")
    rows = empty.json("pipeline", "bench", *arguments)
    rates = {row["stage"]: row for row in of_type(rows, "rate")}
    common = [stage for stage in STAGES if stage not in ("compress", "encrypt")]
    packings = [f"{stage} {codec}" for codec in ("zstd:1", "lz4:0") for stage in ("compress", "encrypt")]
    assert set(rates) == {*common, *packings}
    assert all(row["bytes_per_second"] > 1_000_000 for row in rates.values())
    check = of_type(rows, "check")[0]
    assert check["measured_bytes_per_second"] > 0 and check["stage"] in STAGES
    assert list(work.iterdir()) == []
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["rates.json"], "no record of runs is left"


def test_explain_tells_values_origins_memory_and_a_prediction(empty: Shell, source: Path, tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("version: 1\nextends: default\nstages:\n  read:\n    lanes: 1\n  compress:\n    lanes: 3\n")
    told = empty.json("pipeline", "explain", str(profile), "--set", "stages.compress.level=1", "--source", source)[0]
    values = {row["key"]: row for row in told["values"]}
    assert values["stages.read.lanes"]["value"] == "1"
    assert values["stages.read.lanes"]["origin"] == f"{profile}:5:12"
    assert values["stages.compress.level"]["origin"] == "--set stages.compress.level=1"
    assert values["executor.memory"]["value"] == "512MiB" and values["executor.memory"]["why"] == "auto"
    assert values["executor.memory"]["origin"].partition("default.yaml:")[2], "the file that it extends, and the line"
    assert values["executor.lanes"]["why"].startswith("auto: ") and values["executor.lanes"]["value"].isdigit()
    memory = told["memory"]
    assert memory["together"] == sum(part["bytes"] for part in memory["parts"]) <= memory["budget"] == 512 << 20
    stages = {row["stage"]: row for row in told["forecast"]["stages"]}
    assert list(stages) == STAGES
    assert stages["read"]["lanes"] == 1 and stages["compress"]["lanes"] == 3
    assert stages["read"]["strand"] != stages["compress"]["strand"]
    assert told["forecast"]["stage"] in STAGES and told["forecast"]["bytes_per_second"] > 1_000_000
    text = empty("pipeline", "explain", str(profile), "--source", source).ok().out
    assert f"{profile}:5:12" in text and "predicted: " in text and "limits: " in text


def test_explain_warns_of_what_has_no_effect(empty: Shell) -> None:
    sets = ("--set", "stages.hash.queue.items=3", "--memory", "256MiB", "--set", "stages.read.lanes=64")
    told = empty.json("pipeline", "explain", "--no-measure", *sets)[0]
    assert told["forecast"] is None
    memory = next(row for row in told["values"] if row["key"] == "executor.memory")
    assert (memory["value"], memory["origin"]) == ("256MiB", "--memory")
    assert any("stages.hash.queue.items" in text and "no effect" in text for text in told["warnings"])
    assert any("more than the budget of 256 MiB" in text for text in told["warnings"])
    assert empty.json("pipeline", "explain", "--no-measure")[0]["warnings"] == []


def test_explain_tells_the_limit_that_sets_the_pace(empty: Shell, source: Path) -> None:
    rows = empty.json("pipeline", "explain", "--source", source, "--set", "limits.upload=10KiB")
    assert rows[0]["forecast"]["limit"] == "upload limit"
    assert any("upload limit" in text for text in rows[0]["warnings"])


def test_a_wrong_profile_is_exit_78(empty: Shell) -> None:
    empty("pipeline", "explain", "--set", "stages.compress.levle=1").ok(78)
    empty("pipeline", "tune", "--source", "/", "--set", "stages.compress.level=99").ok(78)


@pytest.mark.alone
def test_tune_goes_down_to_one_reader_on_a_disk_with_one_head(tmp_path: Path) -> None:
    """From four lanes, on a disk that seeks whenever two read at once: real reads, really slow."""
    source = slow_disk.files_of_a_mib(tmp_path / "disk", 24)
    before = traces(source)
    environment = slow_disk.environment(slow_disk.library(tmp_path), source)
    arguments = ["--json", "pipeline", "tune", "--source", str(source), "--lanes", "4", "--memory", "1GiB"]
    arguments += ["--time", "55s", "--work", str(tmp_path), "--write", "--name", "one-head"]
    done = spawn(*arguments, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [loads(line) for line in done.stdout.splitlines()]
    tuned = of_type(rows, "tuned")[0]
    print(tuned)
    assert tuned["beyond_noise"] and tuned["gain"] > 1.3
    assert "1" in (tuned["changes"].get(key, {}).get("after") for key in ("stages.read.lanes", "executor.lanes"))
    assert traces(source) == before
    written = Path(of_type(rows, "written")[0]["path"])
    assert written == tmp_path / "config" / "lox" / "pipelines" / "one-head.yaml"
    values = {row["key"]: row["value"] for row in explained("one-head")}
    assert {key: change["after"] for key, change in tuned["changes"].items()}.items() <= values.items()
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["config", "disk", "slow_disk.so"]


def explained(profile: str) -> list[dict[str, Any]]:
    done = spawn("--json", "pipeline", "explain", profile, "--no-measure")
    assert done.returncode == 0, done.stderr
    values: list[dict[str, Any]] = loads(done.stdout.splitlines()[0])["values"]
    return values


@pytest.mark.slow
def test_tune_stops_at_once_and_leaves_nothing(source: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    before = traces(source)
    command = [sys.executable, "-m", "lox", "pipeline", "tune", "--source", str(source), "--time", "60s"]
    command += ["--work", str(work), "--write"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first step: it is well on its way
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert time.monotonic() - begin < 15
    assert list(work.iterdir()) == [] and traces(source) == before
    assert not (tmp_path / "config").exists()
