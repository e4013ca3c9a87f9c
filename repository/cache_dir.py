"""Where caches of all repositories lie, and what a host remembers of its own work."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_cache_dir() -> Path:
    """`LOX_CACHE_DIR`, else where the platform wants caches."""
    if chosen := os.environ.get("LOX_CACHE_DIR"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lox"
    return _xdg("XDG_CACHE_HOME", ".cache")


def default_state_dir() -> Path:
    """`LOX_STATE_DIR`, else where the platform wants what is to be kept but is no setting (records of runs)."""
    if chosen := os.environ.get("LOX_STATE_DIR"):
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "lox"
    return _xdg("XDG_STATE_HOME", ".local/state")


def _xdg(variable: str, fallback: str) -> Path:
    base = os.environ.get(variable, "")
    return (Path(base) if os.path.isabs(base) else Path.home() / fallback) / "lox"
