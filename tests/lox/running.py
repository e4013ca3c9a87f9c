"""Running the command line in this process and in another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lox import signals
from lox.__main__ import main

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The JSON lines on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]

    def ok(self, code: int = 0) -> Outcome:
        """Asserts the exit code, showing all there is to see if it is another."""
        assert self.code == code, f"exit {self.code}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.out + self.err
        return self


class Shell:
    """Runs ``lox`` in this process, with a repository and a password in the environment."""

    def __init__(self, repository: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
        self.repository = repository
        self._capfd = capfd
        monkeypatch.setenv("LOX_REPOSITORY", str(repository))
        monkeypatch.setenv("LOX_PASSWORD", PASSWORD)
        # A terminal of the person who runs the tests must not be asked for anything.
        monkeypatch.setattr("lox.passwords.can_prompt", lambda: False)

    def __call__(self, *arguments: str | bytes | Path) -> Outcome:
        given = [os.fsdecode(argument) for argument in arguments]
        before = {number: signal.getsignal(number) for number in signals.SIGNALS}
        self._capfd.readouterr()
        try:
            code = main(given)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        captured = self._capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    def json(self, *arguments: str | bytes | Path, code: int = 0) -> list[dict[str, Any]]:
        """The JSON lines of a command that ends with `code`."""
        return self("--json", *arguments).ok(code).lines


def spawn(
    *arguments: str | bytes, env: Mapping[str, str] | None = None, **more: Any
) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m lox`` as a process of its own."""
    known = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{known}", **(env or {})}
    command = [sys.executable, "-m", "lox", *arguments]
    more = {"timeout": 60, **more}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, **more)
