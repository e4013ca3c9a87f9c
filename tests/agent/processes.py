"""An agent as a process of its own, with a configuration and folders of a host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

PATIENCE = 90.0  # seconds; a busy machine is slow, and who waits for less fails on it


def eventually(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What `condition` gives once that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.05)
    return found


class AgentProcess:
    """A host with an agent: its folders, its configuration, and the process of its daemon."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.work, self.hooks, self.data = folder / "work", folder / "hooks.d", folder / "data"
        self.hooks.mkdir(mode=0o700)
        self.data.mkdir()
        (self.data / "a.txt").write_text("some content\n")
        self.config = folder / "config.yaml"
        self.settings: dict[str, Any] = {
            "work_dir": str(self.work), "hooks_dir": str(self.hooks), "log_dir": str(folder / "log"),
            "metrics": {"listen": None}, "heartbeat_interval": 5, "retry_delay_seconds": 1, "retry_count": 1,
            "bandwidth_limit_mbps": None, **settings,
        }  # fmt: skip
        self.daemon: subprocess.Popen[bytes] | None = None
        self.inside: list[str] = []  # what runs a command in the network of this host

    def configure(self, **settings: Any) -> None:
        """Write the configuration, with these settings as well."""
        self.settings |= settings
        self.config.write_text(yaml.safe_dump(self.settings))
        self.config.chmod(0o600)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of lox-agent."""
        line = [sys.executable, "-m", "agent", "--config", str(self.config), *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """One command of lox-agent, while the test goes on."""
        line = [sys.executable, "-m", "agent", "--config", str(self.config), *arguments]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def start(self) -> None:
        """Begin as the service does."""
        self.configure()
        with (self.folder / "stderr").open("ab") as log:
            line = [*self.inside, sys.executable, "-m", "agent", "--config", str(self.config), "run"]
            self.daemon = subprocess.Popen(line, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """SIGKILL: the daemon only, as the kernel does when memory is short."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def stop(self) -> int:
        """As the service manager does. Returns the exit code."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGTERM)
        return self.daemon.wait(70)

    @property
    def log(self) -> str:
        """What the daemon has logged."""
        return (self.folder / "stderr").read_text()

    def status(self) -> dict[str, Any]:
        """`lox-agent status`."""
        found = json.loads(self.run("--json", "status").stdout)
        assert isinstance(found, dict)
        return found

    def end(self) -> None:
        """Whatever state it is in."""
        if self.daemon is not None and self.daemon.poll() is None:
            os.killpg(self.daemon.pid, signal.SIGKILL)
            self.daemon.wait()
