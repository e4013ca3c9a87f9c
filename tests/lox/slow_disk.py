"""The preloaded disk with one head, and made-up sources to read from it."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("slow_disk.c")


def library(folder: Path) -> Path:
    """The compiled library; skips the test where that cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("no C compiler for Linux: apt-get install gcc")
    path = folder / "slow_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(path), str(SOURCE), "-ldl"], check=True)
    return path


def environment(library: Path, source: Path) -> dict[str, str]:
    """Files below `source` then lie on the disk."""
    return {"LD_PRELOAD": str(library), "LOX_SLOW_DISK": os.fspath(source)}


def files_of_a_mib(root: Path, count: int) -> Path:
    """Incompressible files, so that reading them is most of the work."""
    rng = random.Random(3)
    root.mkdir()
    for number in range(count):
        (root / f"file{number:03d}").write_bytes(rng.randbytes(1 << 20))
    return root
