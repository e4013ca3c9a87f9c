"""A real Prometheus scrapes real runs under the shipped rules: every panel of every dashboard shows something then."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.lox.running import ROOT, Shell
from tests.packaging.test_monitoring import DASHBOARDS, RULES, expressions, recorded

INSTALL = "prometheus is not installed; on Debian: apt-get install --no-install-recommends prometheus"
PATIENCE = 120.0  # seconds for anything that comes sooner or later
pytestmark = pytest.mark.slow


class Exporter:
    """Serves the metrics file as node_exporter does."""

    def __init__(self, file: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                data = file.read_bytes() if file.exists() else b""
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.place = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Prometheus:
    """A server of its own, at a port that it chooses; scrapes `target` every second and knows the shipped rules."""

    def __init__(self, program: str, folder: Path, target: str) -> None:
        rules = [str(RULES / name) for name in ("lox-recording.yml", "lox-alerts.yml")]
        fast = []  # rules are looked at every second, not every minute
        for path in rules:
            copy = folder / Path(path).name
            copy.write_text(re.sub(r"interval: \w+", "interval: 1s", Path(path).read_text()))
            fast.append(str(copy))
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": fast,
            "scrape_configs": [
                {"job_name": "node", "honor_labels": True, "static_configs": [{"targets": [target]}]},
            ],
        }
        (folder / "prometheus.json").write_text(json.dumps(config))
        self._log = (folder / "prometheus.log").open("w+")
        command = [program, f"--config.file={folder / 'prometheus.json'}", f"--storage.tsdb.path={folder / 'data'}"]
        self._process = subprocess.Popen([*command, "--web.listen-address=127.0.0.1:0"], stderr=self._log)
        self._url = ""

    def wait(self) -> None:
        """Until it answers; it writes down which port it got."""
        end = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.1)

    def _answers(self) -> bool:
        found = re.search(r'msg="?Listening on"? address=(127\.0\.0\.1:\d+)', self.log())
        if found is None:
            return False
        self._url = f"http://{found[1]}"
        try:
            with urllib.request.urlopen(f"{self._url}/-/ready", timeout=10) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """The series of an expression as they are now."""
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/query?{query}", timeout=30) as answer:
                return list(json.load(answer)["data"]["result"])
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{expression}: {error.read().decode()}") from error

    def ask_until(self, expression: str) -> list[dict[str, Any]]:
        """The same, as soon as there are any; an empty list after a while."""
        end = time.monotonic() + PATIENCE
        while not (found := self.ask(expression)) and time.monotonic() < end:
            time.sleep(0.5)
        return found

    def log(self) -> str:
        return Path(self._log.name).read_text()

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


@pytest.fixture
def exporter(tmp_path: Path) -> Iterator[Exporter]:
    found = Exporter(tmp_path / "lox.prom")
    yield found
    found.close()


@pytest.fixture
def prometheus(tmp_path: Path, exporter: Exporter) -> Iterator[Prometheus]:
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip(INSTALL)
    (tmp_path / "prometheus").mkdir()
    found = Prometheus(program, tmp_path / "prometheus", exporter.place)
    try:
        found.wait()
        yield found
    finally:
        found.close()


@contextmanager
def long_backup(shell: Shell, *arguments: str | Path) -> Iterator[None]:
    """A backup that goes on for minutes, until it is interrupted."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LOX_REPOSITORY": str(shell.repository)}
    command = [sys.executable, "-m", "lox", "backup", *map(str, arguments), "--limit-upload", "1KiB"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)


def test_every_panel_shows_something(prometheus: Prometheus, shell: Shell, tmp_path: Path) -> None:
    tree, metrics = tmp_path / "tree", ("--metrics-textfile", tmp_path / "lox.prom")
    tree.mkdir()
    (tree / "old").write_bytes(os.urandom(3_000_000))  # beside which nothing that comes is much
    backup = (tree, *metrics, "--job", "web-files", "--metrics-every", "1d")
    for number in range(3):  # rates are of what comes between two scrapes
        (tree / f"file{number}").write_bytes(os.urandom(300_000))
        shell("backup", *backup).ok()
        shell("restore", "latest", "--target", tmp_path / f"back{number}", *metrics).ok()
        shell("check", *metrics).ok()
        shell("prune", *metrics).ok()
        assert prometheus.ask_until(f'lox_agent_backup_total{{status="success"}} == {number + 1}')
    (tree / "more").write_bytes(os.urandom(300_000))
    with long_backup(shell, *backup):
        assert prometheus.ask_until('lox_agent_running{operation="backup"} == 1')
        texts = [text for path in DASHBOARDS for text in expressions(path)]
        assert {text: "empty" for text in [*texts, *recorded()] if not prometheus.ask_until(text)} == {}
    assert prometheus.ask_until('lox_agent_backup_total{status="cancelled"} == 1')
    assert prometheus.ask('ALERTS{alertstate="firing"}') == [], "nothing is wrong here"
    jobs = {found["metric"]["job"] for found in prometheus.ask("lox_agent_running")}
    assert jobs == {"web-files", "restore", "check", "prune"}
