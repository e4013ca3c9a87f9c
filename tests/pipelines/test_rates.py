"""Rates are kept, privately; those of another host or another time are known to be stale."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.bench import put_cost
from pipelines.rates import FRESH_DAYS, SAMPLES_KEPT, Cost, Crowding, Packing, RateBook, Rates, host_facts
from repository.store.base import Bytes
from repository.store.local import LocalStore

COST = Cost(2e-9, 1e-9)
PACKING = Packing("zstd", 3, COST, COST, 0.4)
RATES = Rates(
    "/data",
    10,
    10_000,
    0.9,
    {"read": COST, "upload": COST},
    COST,
    Crowding(4, 1.1, 1.5, 1e-10),
    (PACKING,),
    host_facts(),
    1000.0,
)


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


def test_the_store_is_measured_with_objects_that_lie_in_memory_as_packs_do(tmp_path: Path) -> None:
    """Whoever writes what does not begin at a page pays for a copy that no backup makes."""
    addresses, sizes = list[int](), set[int]()

    class Watched(LocalStore):
        def put(self, name: str, parts: Sequence[Bytes]) -> None:
            views = [np.frombuffer(part, np.uint8) for part in parts]
            addresses.extend(view.ctypes.data for view in views)
            sizes.add(sum(view.size for view in views))
            super().put(name, parts)

    cost = put_cost(Watched(str(tmp_path)), 2)
    assert cost.wall > 0 and len(sizes) == len(addresses) >= 2  # no two are alike
    assert [address % 4096 for address in addresses] == [0] * len(addresses)
