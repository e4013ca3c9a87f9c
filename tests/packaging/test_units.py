"""The systemd units: systemd understands them, and Ray understands what they tell it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.cluster import ENVIRONMENT, TLS_FILES
from tests.packaging.project import ROOT

UNITS = sorted((ROOT / "configs" / "systemd").glob("lox-ray-*.service"))


def test_there_are_units() -> None:
    assert [unit.name for unit in UNITS] == ["lox-ray-head.service", "lox-ray-worker.service"]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: apt-get install systemd"
)
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_them(unit: Path, tmp_path: Path) -> None:
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/lox/bin/ray", sys.executable))  # what it starts has to exist
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_they_are_as_hardened_as_a_ray_of_our_own(unit: Path) -> None:
    text = unit.read_text()
    told = dict(pair.split("=", 1) for line in re.findall(r"^Environment=(.*)$", text, re.M) for pair in line.split())
    of_one_host = {"RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"}
    expected = {name: value for name, value in ENVIRONMENT.items() if name not in of_one_host}
    assert {name: told.get(name) for name in expected} == expected
    assert {os.path.basename(told[name]) for name in TLS_FILES} == set(TLS_FILES.values())
    assert told["RAY_USE_TLS"] == "1"
    assert {"RuntimeDirectoryMode=0700", "UMask=0077", "LimitCORE=0"} <= set(text.splitlines())


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_ray_knows_their_options(unit: Path) -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    known = {name for param in scripts.start.params for name in [*param.opts, *param.secondary_opts]}
    used = set(
        re.findall(r"(?<=[ \t])(--[a-z-]+)", unit.read_text().partition("ExecStart=")[2].partition("\nRestart")[0])
    )
    assert len(used) > 10
    assert used - known == set()
