"""Which variant runs is chosen by the environment, once; the compiled one also lives under old system-call filters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Denies openat2 with EPERM, as container runtimes did that were older than the call, then runs the tests given.
FILTERED = """
import ctypes, struct, sys
import pytest
OPENAT2, EPERM = 437, 1
program = b"".join(struct.pack("=HBBI", *line) for line in (
    (0x20, 0, 0, 0),  # load the number of the call
    (0x15, 0, 1, OPENAT2),
    (0x06, 0, 0, 0x00050000 | EPERM),
    (0x06, 0, 0, 0x7FFF0000),  # allow
))
lines = ctypes.create_string_buffer(program)
head = struct.pack("@HP", len(program) // 8, ctypes.addressof(lines))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
if libc.prctl(22, 2, ctypes.create_string_buffer(head)):
    sys.exit(77)
assert libc.syscall(OPENAT2, -100, b".", b"", 0) == -1 and ctypes.get_errno() == EPERM
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-k", "native", *sys.argv[1:]]))
"""


def variant(wanted: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "LOX_KERNELS"}
    if wanted is not None:
        environment["LOX_KERNELS"] = wanted
    program = "import kernels; print(kernels.VARIANT, kernels.cut_files.__module__)"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_environment_chooses() -> None:
    assert variant("reference").stdout.split() == ["reference", "kernels.chunk"]
    assert variant("auto").stdout == variant(None).stdout == variant("").stdout


def test_native_is_the_default_where_it_was_built() -> None:
    pytest.importorskip("kernels._native", exc_type=ImportError)
    assert variant(None).stdout.split() == variant("native").stdout.split() == ["native", "kernels.native"]


def test_an_unknown_variant_is_an_error() -> None:
    result = variant("fast")
    assert result.returncode
    assert "LOX_KERNELS" in result.stderr or "fast" in result.stderr


@pytest.mark.slow
def test_without_openat2(tmp_path: Path) -> None:
    pytest.importorskip("kernels._native", exc_type=ImportError)
    tests = [str(Path(__file__).parent / name) for name in ("test_tree.py", "test_tree_files.py")]
    command = [sys.executable, "-c", FILTERED, f"--basetemp={tmp_path / 'run'}", *tests]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode == 77:
        pytest.skip("this system allows no system-call filters")
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr
