"""Scripts, limits, metrics, logs and command lines of an agent, each for itself."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from uuid import UUID, uuid4

import click
import pytest

from agent import lines, logs
from agent.app import COMMANDS, root
from agent.bandwidth import Bandwidth
from agent.config import Metrics
from agent.hooks import find_hook, run_hook
from agent.lines import refuse_impossible
from agent.metrics import AgentMetrics
from model.errors import ConfigError
from model.wire.policy import PolicyJob
from pipelines.metrics.textfile import TextFile, parse
from pipelines.metrics.values import Values, exposition
from repository.store.limits import parse_limit
from repository.store.measured import Requests

SEED_NAMES = {
    "lox_agent_backup_total", "lox_agent_backup_duration_seconds", "lox_agent_backup_size_bytes",
    "lox_agent_backup_files_count", "lox_agent_dedup_ratio", "lox_agent_upload_speed_bytes_per_second",
    "lox_agent_heartbeat_timestamp",
}  # fmt: skip


def script(folder: Path, name: str, text: str, mode: int = 0o700) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(mode)
    return path


# ---- scripts


@pytest.mark.parametrize("name", ["../evil", "/bin/sh", "a b", ".hidden", "", "x;reboot", "x\n"])
def test_scripts_are_named_not_pathed(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="not the name of a script"):
        find_hook(tmp_path, name)


def test_scripts_that_others_could_change_do_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "hooks.d"
    folder.mkdir(mode=0o700)
    script(folder, "good", "true")
    assert find_hook(folder, "good")
    script(folder, "open", "true", 0o777)
    script(folder, "plain", "true", 0o600)
    (folder / "link").symlink_to(folder / "good")
    for name in ("open", "plain", "link", "missing"):
        with pytest.raises(ConfigError):
            find_hook(folder, name)
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="others than root may change it"):
        find_hook(folder, "good")


def test_a_script_gets_its_context_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very secret")
    script(tmp_path, "tell", "env; cat")
    tmp_path.chmod(0o700)
    told = {"job": "a; touch /tmp/oops", "paths": ["/data"], "status": "success"}
    result = asyncio.run(run_hook(tmp_path, "tell", told))
    assert result.code == 0 and "LOX_JOB=a; touch /tmp/oops\n" in result.output
    assert json.loads(result.output.splitlines()[-1]) == told
    assert "very secret" not in result.output


def test_a_script_that_takes_too_long_is_ended_with_all_it_started(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    stubborn = "(trap '' TERM; exec sleep 300)"  # the script itself ends with SIGTERM
    script(tmp_path, "slow", f"{stubborn} & echo $! > {tmp_path}/pid; wait")
    result = asyncio.run(run_hook(tmp_path, "slow", {}, 0.5))
    assert result.code is None and "took too long" in result.trouble
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(int((tmp_path / "pid").read_text()), 0)
            time.sleep(0.1)


def test_a_script_may_leave_something_running(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    script(tmp_path, "starts", f"sleep 300 & echo $! > {tmp_path}/pid; echo begun; printf %0200000d 0")
    begun = time.monotonic()
    result = asyncio.run(run_hook(tmp_path, "starts", {}, 60))
    assert result.code == 0 and time.monotonic() - begun < 10
    assert result.output.startswith("begun\n") and len(result.output) == 65536
    os.kill(int((tmp_path / "pid").read_text()), 9)


# ---- limits


def test_runs_share_the_limit_of_the_host(tmp_path: Path) -> None:
    shared, (first, second, third) = Bandwidth(tmp_path, 90.0), (uuid4(), uuid4(), uuid4())
    file = Path(shared.join(first, None)[1:])

    def megabits() -> float:
        rate = parse_limit(file.read_text()).base
        assert rate is not None
        return rate * 8 / 1_000_000

    assert megabits() == 90
    shared.join(second, 10.0)
    assert megabits() == 80
    shared.join(third, None)
    assert megabits() == 40
    shared.set_total(None)
    assert parse_limit(file.read_text()).base is None
    shared.set_total(30.0)
    assert megabits() == 10
    shared.leave(second)
    shared.leave(third)
    assert megabits() == 30 and sorted(os.listdir(tmp_path)) == [file.name]


# ---- metrics


def test_the_promised_metrics_and_a_port_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.request import urlopen

    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as free:
        fallback = free.getsockname()[1]
        free.close()
        monkeypatch.setattr("agent.metrics.FALLBACK_PORT", fallback)
        metrics = AgentMetrics(tmp_path / "metrics.prom")
        metrics.expect([("web-files", 86400.0)])
        metrics.beat(60)
        metrics.serve(Metrics(listen=f"127.0.0.1:{taken.getsockname()[1]}"))
        assert metrics.port == fallback and f"they are at port {fallback}" in metrics.warning
        metrics.failed("web-files")
        with urlopen(f"http://127.0.0.1:{fallback}/metrics") as answer:
            text = answer.read().decode()
        metrics.close()
    assert 'lox_agent_backup_total{job="web-files",status="success"} 0.0' in text
    assert 'lox_agent_backup_total{job="web-files",status="failed"} 1.0' in text
    assert 'lox_agent_job_expected_interval_seconds{job="web-files"} 86400.0' in text
    found = re.search(r"^lox_agent_heartbeat_timestamp ([0-9.e+]+)$", text, re.M)
    assert found is not None and abs(float(found[1]) - time.time()) < 60
    again = exposition(AgentMetrics(tmp_path / "metrics.prom").samples()).decode()
    assert 'lox_agent_backup_total{job="web-files",status="failed"} 1.0' in again, "it outlives the agent"


def test_what_the_agent_told_of_a_run_does_not_stay_over_what_later_runs_tell(tmp_path: Path) -> None:
    """A run was killed; the next one fails by itself: an alert looks at which came last, success or completion."""
    metrics = AgentMetrics(tmp_path / "metrics.prom")
    metrics.expect([("web-files", 86400.0)])
    metrics.failed("web-files")
    seen = [metrics.samples()["lox_agent_backup_last_completion_timestamp_seconds", ("web-files",)]]
    values = Values(Requests())
    later = TextFile(os.fspath(metrics.file), values)
    values.put("running", 1, "web-files", "backup")
    values.put("backup_last_completion_timestamp_seconds", seen[0] + 100, "web-files")
    assert later.write(30.0)
    for _ in range(2):
        metrics.beat(60)
        for samples in (metrics.samples(), parse(metrics.file.read_text())):
            assert samples["lox_agent_running", ("web-files", "backup")] == 1
            assert samples["lox_agent_backup_last_completion_timestamp_seconds", ("web-files",)] == seen[0] + 100
            assert samples["lox_agent_backup_total", ("web-files", "failed")] == 1


def test_a_cancelled_run_is_no_completed_one(tmp_path: Path) -> None:
    metrics = AgentMetrics(tmp_path / "metrics.prom")
    metrics.failed("web-files", "cancelled")
    assert metrics.samples()["lox_agent_backup_total", ("web-files", "cancelled")] == 1
    assert ("lox_agent_backup_last_completion_timestamp_seconds", ("web-files",)) not in metrics.samples()


def test_of_a_job_that_is_no_more_nothing_is_told(tmp_path: Path) -> None:
    """It would be overdue for ever; series of others stay, those too that the agent knows nothing of."""
    metrics = AgentMetrics(tmp_path / "metrics.prom")
    values = Values(Requests())
    for job in ("old", "by-hand"):
        values.put("backup_last_success_timestamp_seconds", 1000.0, job)
    assert TextFile(os.fspath(metrics.file), values).write(30.0)
    metrics.expect([("old", 86400.0), ("new", 3600.0)])
    metrics.expect([("new", None)])
    metrics.beat(60)
    for samples in (metrics.samples(), parse(metrics.file.read_text())):
        assert {labels[0] for _, labels in samples if labels and labels[0] in ("old", "new", "by-hand")} == {
            "new", "by-hand",
        }  # fmt: skip
        assert samples["lox_agent_job_expected_interval_seconds", ("new",)] == 0
    metrics.expect([("old", 60.0)])
    assert metrics.samples()["lox_agent_backup_total", ("old", "success")] == 0, "it begins anew"


# ---- logs


def test_secrets_are_not_logged(tmp_path: Path) -> None:
    shown = io.StringIO()
    assert logs.set_up("debug", tmp_path / "log", shown) == ""
    secret = "lox_cred_0123456789abcdefghij"
    try:
        raise ValueError(f"bad header: Bearer {secret}")
    except ValueError:
        logs.log().exception(
            "a request failed", url="s3://me:hunter2@host/x", api_key="abc123", nested={"token": secret}
        )
    logs.log().info(f"config: registration_token: {secret}", text="password=hunter2")
    for text in (shown.getvalue(), (tmp_path / "log" / "agent.log").read_text()):
        assert "a request failed" in text and "ValueError" in text
        assert secret not in text and "hunter2" not in text and "abc123" not in text


def test_a_log_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "not a directory" in logs.set_up("info", tmp_path / "file" / "log", io.StringIO())


# ---- command lines


def job(**fields: object) -> PolicyJob:
    given = {
        "uuid": uuid4(),
        "name": "web",
        "job_type": "file",
        "source_paths": ["/data"],
        "repository_uuid": UUID(int=1),
    }
    return PolicyJob.model_validate(given | fields)


def test_hostile_fields_stay_values(tmp_path: Path) -> None:
    line = lines.backup(
        job(exclude_patterns=["--repo=/x"], source_paths=["-rf", "/a b"]), ["-rf", "/a b"], None, "1Mbit"
    )
    assert line[-3:] == ["--", "-rf", "/a b"]
    assert line[line.index("--repo=/x") - 1] == "--exclude"


def test_what_a_job_turns_off_is_asked_of_the_backup() -> None:
    for fields, asked in (
        ({}, []),
        ({"compression_enabled": False}, ["--compression", "none"]),
        ({"deduplication_enabled": False}, ["--no-deduplication"]),
    ):
        for line in (lines.backup(job(**fields), ["/data"], None, "1Mbit"), lines.estimate(job(**fields), ["/data"])):
            assert line[line.index("--limit-upload") + 2 :] == [*asked, "--", "/data"]


def test_rules_become_options() -> None:
    rule = lines.rule_of(job(retention_count=30, keep={"daily": 14, "within": "30d", "last": 40}))
    line = lines.forget(rule)
    text = " ".join(line)
    assert "--keep-last 40" in text and "--keep-daily 14" in text and "--keep-within 30d" in text
    assert "--keep-last 7" in " ".join(lines.forget(lines.rule_of(job())))


@pytest.mark.parametrize(
    ("fields", "encrypted", "why"),
    [
        ({"job_type": "block"}, True, "backs up files"),
        ({"encryption_enabled": True}, False, "stored unencrypted"),
    ],
)
def test_what_cannot_be_done_is_refused(fields: dict[str, object], encrypted: bool, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        refuse_impossible(job(**fields), encrypted)


# ---- the program


def test_help_is_quick_and_says_what_commands_say() -> None:
    heavy = "print('aiohttp' in sys.modules, 'pydantic' in sys.modules)"
    code = f"import sys, agent.__main__ as m; m.main(['--help']); {heavy}"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "False False" and "rotate-token" in told
    for name, text in COMMANDS.items():
        command = root.get_command(click.Context(root), name)
        assert command is not None and command.name == name
        assert " ".join((command.help or "").split("\n\n")[0].split()) == text
