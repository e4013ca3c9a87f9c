"""Reading metrics as Prometheus does, and promtool, which knows better than we what it takes."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

INSTALL = "promtool is not installed; on Debian: apt-get install --no-install-recommends prometheus"

Scraped = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(text: str) -> Scraped:
    """Samples by name and labels."""
    families = text_string_to_metric_families(text)
    return {
        (name, frozenset(labels.items())): value for family in families for name, labels, value, *_ in family.samples
    }


def one(scraped: Scraped, name: str, **labels: str) -> float:
    """The value of one series of ours."""
    return scraped[f"lox_agent_{name}", frozenset(labels.items())]


def fetch(url: str) -> str:
    """A page, as Prometheus would get it."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def promtool(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """What it prints and how it ends; a visible skip if there is none."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip(INSTALL)
    return subprocess.run([program, *map(str, arguments)], input=given, capture_output=True, check=False, timeout=60)
