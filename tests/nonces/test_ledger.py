"""The ledger of nonces finds what it is there for, in this process and in others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from repository import pack_keys, seal
from repository.pack import PackKind, PackWriter
from tests.nonces import ledger
from tests.repository.samples import back_up, new_repository

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of this test only: what is repeated on purpose must not fail the run."""
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path))
    return tmp_path


def test_the_program_under_test_is_recorded(folder: Path) -> None:
    assert hasattr(AESGCM, "_real")
    assert all(vars(module)["AESGCM"] is AESGCM for module in (pack_keys, seal))
    before = ledger.repeated(folder)
    repository = new_repository()
    back_up(repository, {b"data": None, b"data/file": b"content"})
    repository.rotate()
    files, total, repeats = ledger.repeated(folder)
    assert (before, files, repeats) == ((0, 0, 0), 1, 0)
    # 2 slots; 1 config; key, segment and footer of 2 packs; 1 index; 1 snapshot; past of 1 epoch
    assert total == 2 + 1 + 6 + 1 + 1 + 1


@pytest.mark.parametrize("way", ["encrypt", "encrypt_into"])
def test_a_repeated_nonce_is_found(folder: Path, way: str) -> None:
    key, nonce = os.urandom(32), os.urandom(12)
    for one in (AESGCM(key), AESGCM(bytearray(key))):  # two objects, one key
        if way == "encrypt":
            one.encrypt(nonce, b"x", b"")
        else:
            one.encrypt_into(nonce, b"x", b"", bytearray(17))
    AESGCM(key).encrypt(os.urandom(12), b"x", b"")
    AESGCM(os.urandom(32)).encrypt(nonce, b"x", b"")
    assert ledger.repeated(folder) == (1, 4, 1)


def test_a_writer_that_lost_its_randomness_would_be_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very thing the run is guarded against: a virtual machine that is rolled back, or a broken generator."""
    repository = new_repository()
    monkeypatch.setattr(os, "urandom", bytes)
    for _ in range(2):
        PackWriter(repository.keys, PackKind.DATA).finish()
    assert ledger.repeated(folder)[2] > 0


def test_other_processes_are_recorded_too(folder: Path) -> None:
    """A Python that is started anew, one that forks, and one that is killed."""
    script = """if True:
        import os, sys
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        one = AESGCM(bytes(32))
        one.encrypt(sys.argv[1].encode(), b"x", None)
        if not os.fork():
            one.encrypt(b"in the child", b"x", None)
            os.kill(os.getpid(), 9)
        os.wait()
        os.kill(os.getpid(), 9)
    """
    for nonce in ("first nonce.", "other nonce."):
        done = subprocess.run([sys.executable, "-c", script, nonce], check=False)
        assert done.returncode == -9
    assert ledger.repeated(folder) == (4, 4, 1)


def test_a_process_without_a_ledger_is_left_alone(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != ledger.VARIABLE}
    script = (
        "import sys; from cryptography.hazmat.primitives.ciphers.aead import AESGCM; sys.exit(hasattr(AESGCM, '_real'))"
    )
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)


CONFTEST = """
import sys
sys.path.insert(0, {root!r})
from tests.conftest import pytest_configure, pytest_sessionfinish, pytest_terminal_summary
"""

REPEATING = """
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

def test_one():
    AESGCM(bytes(32)).encrypt(bytes(12), b"x", None)

def test_other():
    AESGCM(bytes(32)).encrypt(bytes({last}), b"x", None)
"""


OTHERS = [("0", 12), ("2", 13)]


@pytest.mark.parametrize(
    ("workers", "last"),
    [("0", 13), ("2", 12), *(pytest.param(*more, marks=pytest.mark.slow) for more in OTHERS)],
)
def test_a_run_fails_if_any_of_its_processes_repeats_what_another_did(tmp_path: Path, workers: str, last: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(root=str(ROOT)))
    (tmp_path / "test_repeating.py").write_text(REPEATING.format(last=last))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "NONCE"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", workers, "."]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert ("repeated a key with a nonce" in done.stdout) == (last == 12)
    assert done.returncode == (1 if last == 12 else 0), done.stdout
