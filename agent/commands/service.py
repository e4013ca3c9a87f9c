"""``lox-agent service``."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import click

from agent.app import Settings
from model.errors import RunFailed, UsageError
from model.exits import ExitCode

UNIT, UNIT_PATH = "lox-agent", Path("/etc/systemd/system/lox-agent.service")
PLIST, PLIST_PATH = "com.lox.backup.agent", Path("/Library/LaunchDaemons/com.lox.backup.agent.plist")
SHIPPED = "/opt/lox-agent/current/bin/lox-agent"  # where the installer puts the program


@click.group("service", subcommand_metavar="COMMAND [ARGS]...")
def command() -> None:
    """Install, remove, start and stop the service."""


@command.command("install")
@click.option("--least-privilege", is_flag=True, help="A user of its own that reads everything and writes nothing.")
@click.option(
    "--root", type=click.Path(path_type=Path), default=Path("/"), help="Write below this folder, start nothing."
)
@click.pass_obj
def install(settings: Settings, least_privilege: bool, root: Path) -> None:
    """Write the definition of the service, and have it start with the system."""
    if sys.platform == "win32":
        raise UsageError("on Windows the service is installed by hand", hint="see configs/windows and docs/agent.md")
    if sys.platform == "darwin":
        path, text = _below(root, PLIST_PATH), _shipped("launchd", f"{PLIST}.plist")
        line = [["launchctl", "bootstrap", "system", str(PLIST_PATH)]]
    else:
        name = "lox-agent-least-privilege.service" if least_privilege else "lox-agent.service"
        path, text = _below(root, UNIT_PATH), _shipped("systemd", name)
        line = [["systemctl", "daemon-reload"], ["systemctl", "enable", UNIT]]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(SHIPPED, _program()))
    click.echo(f"wrote {path}")
    for each in line if root == Path("/") else ():
        _call(each)


@command.command("uninstall")
@click.pass_obj
def uninstall(settings: Settings) -> None:
    """Stop the service and remove its definition; settings, credential and keys stay."""
    if sys.platform == "darwin":
        _call(["launchctl", "bootout", f"system/{PLIST}"], may_fail=True)
        PLIST_PATH.unlink(missing_ok=True)
    else:
        _call(["systemctl", "disable", "--now", UNIT], may_fail=True)
        UNIT_PATH.unlink(missing_ok=True)
        _call(["systemctl", "daemon-reload"])


@command.command("start")
def start() -> None:
    """Start the service."""
    _call(["launchctl", "kickstart", f"system/{PLIST}"] if sys.platform == "darwin" else ["systemctl", "start", UNIT])


@command.command("stop")
def stop() -> None:
    """Stop the service; runs are stopped cleanly and taken up when it starts again."""
    _call(["launchctl", "kill", "TERM", f"system/{PLIST}"] if sys.platform == "darwin" else ["systemctl", "stop", UNIT])


@command.command("status")
def status() -> int:
    """Show what the system's service manager says."""
    darwin = ["launchctl", "print", f"system/{PLIST}"]
    done = _run(darwin if sys.platform == "darwin" else ["systemctl", "status", "--no-pager", UNIT])
    return ExitCode.OK if done == 0 else ExitCode.FAILURE


def _shipped(folder: str, name: str) -> str:
    return files("configs").joinpath(folder, name).read_text("utf-8")


def _program() -> str:
    """How this program is called by its full path."""
    script = Path(sys.argv[0])
    if script.name == "lox-agent" and script.is_absolute():
        return os.fspath(script)
    return f"{sys.executable} -P -m agent"


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _call(line: list[str], may_fail: bool = False) -> None:
    code = _run(line)
    if code and not may_fail:
        raise RunFailed("the service manager refused", subject=" ".join(line), why=f"exit status {code}")


def _run(line: list[str]) -> int:
    try:
        return subprocess.run(line, check=False).returncode
    except OSError as error:
        why, hint = (error.strerror or "").lower(), "run the agent by hand: lox-agent run"
        raise UsageError("this system has no such service manager", subject=line[0], why=why, hint=hint) from error
