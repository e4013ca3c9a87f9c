"""Shared by all tests: settings of Hypothesis, markers that depend on the machine, and a clean environment."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.nonces import ledger

ledger.install()  # before anything imports the class

settings.register_profile(
    "lox",
    deadline=None,  # a slow machine is no failure
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
settings.register_profile("lox-ci", settings.get_profile("lox"), derandomize=True)
_LEDGER, _FOUND = pytest.StashKey[Path](), pytest.StashKey[tuple[int, int, int]]()

settings.load_profile("lox-ci" if os.environ.get("CI") else "lox")


def pytest_configure(config: pytest.Config) -> None:
    """All processes of this run, its workers and their children, write into one ledger of nonces."""
    if not hasattr(config, "workerinput") and ledger.VARIABLE not in os.environ:
        os.environ[ledger.VARIABLE] = tempfile.mkdtemp(prefix="lox-nonces-")
        config.stash[_LEDGER] = Path(os.environ[ledger.VARIABLE])
    beside = os.fspath(Path(ledger.__file__).parent)
    known = os.environ.get("PYTHONPATH", "")
    if beside not in known.split(os.pathsep):
        os.environ["PYTHONPATH"] = beside + (os.pathsep + known if known else "")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No key encrypted twice with one nonce, in whichever process; only the first process of the run looks."""
    folder = session.config.stash.get(_LEDGER, None)
    if folder is None:
        return
    session.config.stash[_FOUND] = found = ledger.repeated(folder)
    shutil.rmtree(folder, ignore_errors=True)
    del os.environ[ledger.VARIABLE]
    if found[2]:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash.get(_FOUND, None)
    if found is not None:
        processes, encryptions, repeats = found
        what = f"{repeats:,} repeated a key with a nonce" if repeats else "no key met a nonce twice"
        terminalreporter.write_line(f"AES-GCM: {encryptions:,} encryptions in {processes:,} processes, {what}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `root` are skipped, visibly, for other users."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run the suite with sudo or in a container")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the settings of the person who runs it, nor touches that person's cache and records."""
    for name in [name for name in os.environ if name.startswith("LOX_") and name != "LOX_KERNELS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOX_CACHE_DIR", str(_of_session(tmp_path_factory, "lox-cache")))
    monkeypatch.setenv("LOX_STATE_DIR", str(_of_session(tmp_path_factory, "lox-state")))
    yield


def _of_session(factory: pytest.TempPathFactory, name: str) -> Path:
    folder = factory.getbasetemp() / name
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
