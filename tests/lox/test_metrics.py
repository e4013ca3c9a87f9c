"""`--metrics-listen` and `--metrics-textfile`: what commands tell Prometheus; trouble with it ends no run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lox.metrics import JOB_MAX, default_job, status_of
from model.errors import Interrupted, StoreFull
from model.exits import ExitCode
from tests.lox.running import PASSWORD, ROOT, Shell
from tests.pipelines.scraping import Scraped, fetch, one, scrape


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    root.mkdir()
    for number in range(3):
        (root / f"file-{number}").write_bytes(os.urandom(100_000))
    return root


def read(path: Path) -> Scraped:
    """The metrics of a file."""
    return scrape(path.read_text())


def test_commands_keep_one_file_up_and_it_agrees_with_what_they_print(shell: Shell, tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "lox.prom"
    metrics = ("--metrics-textfile", file)
    summary = shell.json("backup", tree, *metrics, "--job", "web-files", "--metrics-every", "1d")[-1]
    speed = one(read(file), "upload_speed_bytes_per_second")
    shell("restore", "latest", "--target", tmp_path / "back", "--verify", *metrics).ok()
    shell("check", "--read-data", *metrics).ok()
    shell("prune", *metrics).ok()
    found = read(file)
    job = {"job": "web-files"}
    assert one(found, "backup_total", **job, status="success") == 1
    assert one(found, "backup_files_count", **job) == summary["files"] == 3
    assert one(found, "backup_size_bytes", **job) == summary["bytes_total"]
    assert one(found, "backup_stored_bytes_total", **job) == summary["bytes_stored"]
    assert one(found, "job_expected_interval_seconds", **job) == 86400
    for row in summary["stages"]:
        assert one(found, "stage_bytes_total", **job, stage=row["stage"], direction="in") == row["bytes_in"]
    for operation in ("restore", "check", "prune"):
        labels = {"job": operation, "operation": operation}
        assert one(found, "operation_total", **labels, status="success") == 1
        assert one(found, "running", **labels) == 0
        assert time.time() - one(found, "operation_last_success_timestamp_seconds", **labels) < 60
    assert one(found, "upload_speed_bytes_per_second") == speed > 0, "of the backup, not of the check after it"
    assert one(found, "check_findings", job="check") == 0
    assert one(found, "upload_bytes_total") >= summary["bytes_stored"]
    assert one(found, "download_bytes_total") > 0


def test_a_backup_that_cannot_begin_has_failed(
    shell: Shell, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOX_METRICS_TEXTFILE", str(tmp_path / "lox.prom"))
    monkeypatch.setenv("LOX_PASSWORD", "wrong")
    shell("backup", tree, "--job", "j").ok(12)
    shell("backup", tmp_path / "gone", "--job", "j").ok(2)
    found = read(tmp_path / "lox.prom")
    assert one(found, "backup_total", job="j", status="failed") == 2
    assert ("lox_agent_backup_last_success_timestamp_seconds", frozenset({("job", "j")})) not in found


def test_dry_runs_are_not_counted(shell: Shell, tree: Path, tmp_path: Path) -> None:
    shell("backup", "-n", tree, "--metrics-textfile", tmp_path / "lox.prom").ok()
    assert not (tmp_path / "lox.prom").exists()


def test_a_damaged_repository_is_told(shell: Shell, tree: Path, tmp_path: Path) -> None:
    shell("backup", tree).ok()
    pack = next(path for path in (shell.repository / "packs").rglob("*") if path.is_file())
    pack.unlink()
    shell("check", "--metrics-textfile", tmp_path / "lox.prom").ok(15)
    found = read(tmp_path / "lox.prom")
    assert one(found, "check_findings", job="check") >= 1
    assert one(found, "operation_total", job="check", operation="check", status="failed") == 1


def test_a_port_that_is_taken_is_a_warning(shell: Shell, tree: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = shell("backup", tree, "--metrics-listen", str(taken.getsockname()[1])).ok()
    assert "no metrics at 127.0.0.1" in outcome.err and "the run goes on" in outcome.err
    assert "snapshot" in outcome.out


@pytest.mark.parametrize("file", ["missing/lox.prom", "."])
def test_a_file_that_cannot_be_written_is_one_warning(shell: Shell, tree: Path, tmp_path: Path, file: str) -> None:
    outcome = shell("backup", tree, "--metrics-textfile", tmp_path / file).ok()
    assert outcome.err.count("cannot write the metrics file") == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--metrics-listen", "nowhere"),
        ("--metrics-listen", "1", "--job", "x" * 65),
        ("--metrics-listen", "1", "--job", "a\nb"),
    ],
)
def test_options_that_make_no_sense_are_refused(shell: Shell, tree: Path, options: tuple[str, ...]) -> None:
    shell("backup", tree, *options).ok(2)


@pytest.mark.parametrize(
    ("code", "error", "status"),
    [
        (ExitCode.OK, None, "success"),
        (ExitCode.PARTIAL, None, "partial"),
        (ExitCode.DAMAGE_FOUND, None, "failed"),
        (None, StoreFull("full"), "failed"),
        (None, RuntimeError("a mistake of ours"), "failed"),
        (None, Interrupted("interrupted"), "cancelled"),
        (None, KeyboardInterrupt(), "cancelled"),
    ],
)
def test_how_a_command_ends_is_how_its_job_ends(
    code: ExitCode | None, error: BaseException | None, status: str
) -> None:
    assert status_of(code, error) == status


@pytest.mark.parametrize(
    ("paths", "name"),
    [
        ([b"/var/www"], "web01-var-www"),
        ([b"/etc/nginx/", b"/etc/nginx", b"/var/www"], "web01-etc-nginx-var-www"),
        ([b"/"], "web01"),
        ([b"/srv/\xff\xfe x"], "web01-srv-x"),
    ],
)
def test_a_job_is_named_by_host_and_paths(paths: list[bytes], name: str) -> None:
    assert default_job("backup", {"host": "web01", "paths": paths}) == name


def test_names_of_jobs_are_bounded_and_differ() -> None:
    names = {default_job("backup", {"host": "h", "paths": [b"/" + b"d" * 300 + b"/%d" % each]}) for each in range(20)}
    assert len(names) == 20 and max(map(len, names)) <= JOB_MAX


def test_metrics_are_served_while_a_command_runs_and_survive_it_in_the_file(
    shell: Shell, tree: Path, tmp_path: Path
) -> None:
    (tree / "large").write_bytes(os.urandom(6 << 20))
    file = tmp_path / "lox.prom"
    options = ["--metrics-listen", "127.0.0.1:0", "--metrics-textfile", str(file), "--job", "slow"]
    command = [sys.executable, "-m", "lox", "--json", "backup", str(tree), "--limit-upload", "4MiB", *options]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "LOX_REPOSITORY": str(shell.repository),
        "LOX_PASSWORD": PASSWORD,
    }
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        during = scrape(fetch(url))
        while not _read_bytes(during):  # the port is open before the run began
            time.sleep(0.05)
            during = scrape(fetch(url))
        assert one(during, "running", job="slow", operation="backup") == 1
        on_disk = read(file)
        summary = json.loads(process.stdout.readlines()[-1])
    assert process.returncode == 0
    assert 0 < _read_bytes(during) <= summary["bytes_total"]
    assert one(on_disk, "running", job="slow", operation="backup") == 1
    after = read(file)
    assert one(after, "running", job="slow", operation="backup") == 0
    assert one(after, "backup_size_bytes", job="slow") == summary["bytes_total"]
    assert _read_bytes(after) == summary["bytes_read"]


def _read_bytes(found: Scraped) -> float:
    labels = frozenset({("job", "slow"), ("stage", "read"), ("direction", "out")})
    return found.get(("lox_agent_stage_bytes_total", labels), 0.0)
