"""Sizes, durations and times are read and written as people do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lox import units
from model.sizes import parse_size, write_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64KiB", 64 << 10),
        ("64k", 64 << 10),
        ("1M", 1 << 20),
        ("1 MiB", 1 << 20),
        ("10MB", 10**7),
        ("1.5g", 3 << 29),
        (".5K", 512),
        ("2tib", 2 << 40),
        ("17B", 17),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_sizes_are_understood(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1e9", "1.2.3M", "5 parsecs", "1KiBB", "999999999999G", "١", "1M\n2"])
def test_nonsense_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|file can be"):
        parse_size(text)


@given(st.integers(0, (1 << 63) - 1))
def test_a_written_size_is_read_as_what_it_was(size: int) -> None:
    assert parse_size(write_size(size)) == size


@given(st.integers(0, (1 << 63) - 1))
def test_printed_sizes_are_short_and_near(size: int) -> None:
    number, unit = units.format_size(size).split()
    assert len(number) <= 4
    power = 1024 ** units._IEC.index(unit)
    assert float(number) * power == pytest.approx(size, rel=0.006, abs=0.5)


def test_units_can_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert units.format_size(1_500_000) == "1.43 MiB"
    monkeypatch.setenv("LOX_UNITS", "si")
    assert units.format_size(1_500_000) == "1.50 MB"
    monkeypatch.setenv("LOX_UNITS", "raw")
    assert units.format_size(1_500_000) == "1500000"
    monkeypatch.setenv("LOX_UNITS", "furlongs")
    assert units.format_size(1_500_000) == "1.43 MiB"


def test_shares_say_none_and_all_only_when_true() -> None:
    assert units.format_share(0, 10) == "0 %"
    assert units.format_share(1, 10**6) == "0.1 %"
    assert units.format_share(999_999, 10**6) == "99 %"
    assert units.format_share(10, 10) == "100 %"
    assert units.format_share(0, 0) == "0 %"


def test_durations() -> None:
    seconds = [0.123, 59.94, 59.99, 3599.6, 86399, 273_600]
    assert [units.format_seconds(each) for each in seconds] == [
        "0.12 s", "59.9 s", "1:00 min", "1:00:00 h", "23:59:59 h", "3 d 04 h"
    ]  # fmt: skip


@pytest.mark.parametrize("time_ns", [-(1 << 63), (1 << 63) - 1, -1, 0, 1_700_000_000_123_456_789])
def test_any_time_a_file_can_have_is_printed(time_ns: int) -> None:
    assert units.format_time(time_ns)
    stamp = units.rfc3339(time_ns)
    assert stamp is None or stamp.endswith("Z")


def test_json_times_keep_nanoseconds() -> None:
    assert units.rfc3339(1_700_000_000_123_456_789) == "2023-11-14T22:13:20.123456789Z"
    assert units.rfc3339(1_700_000_000_000_000_000) == "2023-11-14T22:13:20Z"
