"""Definitions of the service: systemd understands them and finds them hardened; the others are well-formed."""

from __future__ import annotations

import plistlib
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.agent.conftest import AgentHost

CONFIGS = Path(__file__).parents[2] / "configs"
UNITS = ("lox-agent.service", "lox-agent-least-privilege.service")
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="apt-get install systemd")


@needs_systemd
@pytest.mark.parametrize(("unit", "exposure"), [(UNITS[0], 5.0), (UNITS[1], 3.0)])
def test_systemd_understands_them(unit: str, exposure: float, tmp_path: Path) -> None:
    copy = tmp_path / unit
    copy.write_text(
        (CONFIGS / "systemd" / unit).read_text().replace("/opt/lox-agent/current/bin/lox-agent", "/bin/true")
    )
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if unit in line]) == (0, [])
    line = ["systemd-analyze", "security", "--offline=true", str(copy)]
    told = subprocess.run(line, capture_output=True, text=True, check=False).stdout
    found = re.search(r"exposure level for .*: ([0-9.]+)", told)
    assert found is not None and float(found[1]) <= exposure


def test_the_units_are_what_the_agent_is_made_for() -> None:
    for unit in UNITS:
        text = (CONFIGS / "systemd" / unit).read_text()
        lines = set(text.splitlines())
        assert {"Type=notify", "KillMode=mixed", "RestartPreventExitStatus=78", "LimitCORE=0"} <= lines
        assert re.search(r"^WatchdogSec=\d+$", text, re.M)
        # These keep files from being backed up.
        assert not lines & {"PrivateTmp=yes", "ProtectHome=yes", "ProtectHome=tmpfs", "ProtectProc=invisible"}


def test_the_others_are_well_formed_and_labelled() -> None:
    plist = (CONFIGS / "launchd" / "com.lox.backup.agent.plist").read_bytes()
    assert plistlib.loads(plist)["ProgramArguments"][1:] == ["run"] and b"UNTESTED" in plist
    text = (CONFIGS / "windows" / "lox-agent-service.xml").read_text()
    assert ElementTree.fromstring(text.encode()).findtext("name") == "LOX Backup Agent" and "UNTESTED" in text


def test_the_service_can_be_written_into_an_image(host: AgentHost, tmp_path: Path) -> None:
    done = host.run("service", "install", "--least-privilege", "--root", str(tmp_path / "image"))
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "image/etc/systemd/system/lox-agent.service").read_text()
    assert "User=lox-agent" in text and "-m agent run" in text
