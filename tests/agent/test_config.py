"""config.yaml: its defaults are those that are promised, and what is wrong with it is told with its place."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config import AgentConfig, load
from model.errors import ConfigError
from tests.agent.conftest import AgentHost

ROOT = Path(__file__).parents[2]
LEAST = "api_url: https://api.lox.backup\nagent_uuid: 550e8400-e29b-41d4-a716-446655440000\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_defaults_and_the_example_are_as_promised(tmp_path: Path) -> None:
    config = load(written(tmp_path, LEAST))
    assert (config.heartbeat_interval, config.log_level, config.max_concurrent_jobs) == (60, "info", 2)
    assert (config.bandwidth_limit_mbps, config.retry_count, config.retry_delay_seconds) == (100, 3, 30)
    assert config.work_dir == Path("/var/lib/lox-agent") and config.metrics.listen == ":9100"
    assert not config.allow_restore_in_place and config.restore_folder == Path("/var/lib/lox-agent/restore")
    example = load(written(tmp_path, (ROOT / "configs/agent/config.yaml").read_text()))
    changed = {name for name in AgentConfig.model_fields if getattr(example, name) != getattr(config, name)}
    assert changed == {"registration_token"}
    assert load(written(tmp_path, LEAST + "bandwidth_limit_mbps: null\n")).bandwidth_limit_mbps is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LEAST + "heartbeat_intervall: 5\n", ":3:1: there is no setting 'heartbeat_intervall'"),
        (LEAST + "metrics:\n  lisen: ':1'\n", ":4:3: there is no setting 'metrics.lisen'"),
        (LEAST + "heartbeat_interval: soon\n", ":3:21: heartbeat_interval: soon: should be a valid integer"),
        (LEAST + "work_dir: here\n", ":3:11: work_dir: here: write an absolute path"),
        (LEAST + "restore_paths: [/srv, srv]\n", ":3:23: restore_paths.1: srv: write an absolute path"),
        (LEAST + 'work_dir: "/srv/\\0"\n', ":3:11: work_dir:"),
        (LEAST.replace("lox.backup", "lox.backup:99999"), ":1:10: api_url: https://api.lox.backup:99999: port out of"),
        (LEAST + "log_level: loud\n", ":3:12: log_level: loud: should be 'debug', 'info', 'warn' or 'error'"),
        (LEAST.replace("https", "http"), ":1:10: api_url: http://api.lox.backup: write https://HOST"),
        ("agent_uuid: 550e8400-e29b-41d4-a716-446655440000\n", ":1:1: api_url is missing"),
        (LEAST + "log_level: info\nlog_level: info\n", ":4:1: 'log_level' stands in line 3 already"),
        (LEAST + "registration_token: x\n", ":3:21: registration_token: not a registration token"),
    ],
)
def test_faults_have_places(tmp_path: Path, text: str, told: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert f"{path}{told}" in str(caught.value)


def test_a_name_that_is_nearly_right_is_suggested(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, LEAST + "heartbeat_intervall: 5\n"))
    assert caught.value.hint == "did you mean heartbeat_interval?"


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no regular file"):
        load(tmp_path)


def test_what_others_may_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, LEAST)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others than its owner may read it"):
        load(path)


@pytest.mark.root
def test_what_belongs_to_others_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, LEAST)
    os.chown(path, 1234, 1234)
    with pytest.raises(ConfigError, match="belongs to another user"):
        load(path)


def test_all_faults_are_listed_and_secrets_are_not_shown(host: AgentHost) -> None:
    assert host.run("config", "validate").returncode == 0
    shown = host.run("config", "show")
    assert shown.returncode == 0 and "lox_agt_" not in shown.stdout and "heartbeat_interval: 5" in shown.stdout
    host.config.write_text("api_url: ftp://x\nagent_uuid: 1\nextra: 2\n")
    told = host.run("config", "validate")
    assert told.returncode == 78
    assert [line.split(":")[1] for line in told.stdout.splitlines()] == ["1", "2", "3"]
    assert host.run("run").returncode == 78
