"""Rates are kept, privately; those of another host or another time are known to be stale."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.rates import FRESH_DAYS, SAMPLES_KEPT, Cost, Packing, RateBook, Rates, host_facts

COST = Cost(2e-9, 1e-9)
PACKING = Packing("zstd", 3, COST, COST, 0.4)
RATES = Rates("/data", 10, 10_000, 0.9, {"read": COST, "upload": COST}, (PACKING,), host_facts(), 1000.0)


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    RateBook(folder).keep(RATES)
    odd = replace(RATES, sample=os.fsdecode(b"/not \xff text"))
    RateBook(folder).keep(odd)
    book = RateBook(folder)
    assert book.find("/data") == RATES and book.find(odd.sample) == odd and book.find("/other") is None
    assert RATES.packing("zstd", 3) == PACKING and RATES.packing("zstd", 9) is None
    assert (folder / "rates.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == ["rates.json"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 1, "rates": [{}]}', b"\xff", b"1" * (2 << 20)])
def test_a_spoiled_file_means_measuring_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rates.json").write_bytes(content)
    assert RateBook(tmp_path).find("/data") is None
    RateBook(tmp_path).keep(RATES)
    assert RateBook(tmp_path).find("/data") == RATES


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    book = RateBook(tmp_path)
    for number in range(SAMPLES_KEPT + 2):
        book.keep(replace(RATES, sample=f"/{number}", measured=float(number)))
    book = RateBook(tmp_path)
    assert book.find("/1") is None and book.find("/2") is not None and book.find(f"/{SAMPLES_KEPT + 1}") is not None


def test_stale_rates_say_why() -> None:
    now = host_facts()
    assert RATES.stale(now, 2000.0) == ""
    assert "cores" in RATES.stale(replace(now, cores=now.cores + 1), 2000.0)
    assert "kernels" in RATES.stale(replace(now, kernels="other"), 2000.0)
    assert "zstandard" in RATES.stale(replace(now, versions={**now.versions, "zstandard": "99"}), 2000.0)
    assert "days ago" in RATES.stale(now, 1000.0 + (FRESH_DAYS + 1) * 86400)
