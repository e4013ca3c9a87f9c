"""Shared by all tests: settings of Hypothesis, markers that depend on the machine, and a clean environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "lox",
    deadline=None,  # a slow machine is no failure
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    print_blob=True,
)
settings.register_profile("lox-ci", settings.get_profile("lox"), derandomize=True)
settings.load_profile("lox-ci" if os.environ.get("CI") else "lox")


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
    """No test sees the settings of the person who runs it, nor touches that person's cache."""
    for name in [name for name in os.environ if name.startswith("LOX_") and name != "LOX_KERNELS"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LOX_CACHE_DIR", str(_session_cache(tmp_path_factory)))
    yield


def _session_cache(factory: pytest.TempPathFactory) -> Path:
    cache = factory.getbasetemp() / "lox-cache"
    cache.mkdir(mode=0o700, exist_ok=True)
    return cache
