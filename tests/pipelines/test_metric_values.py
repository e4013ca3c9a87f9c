"""How requests of stores are counted, how histograms count, and where metrics may be served."""

from __future__ import annotations

import math
import time

import pytest

from model.errors import StoreFull, Transient, UsageError
from pipelines.metrics.endpoint import parse_listen
from pipelines.metrics.values import Values, exposition
from repository.store import MemoryStore
from repository.store.measured import MeasuredStore, Requests
from repository.store.wrappers import Fault, FaultyStore
from tests.pipelines.scraping import one, scrape

JOB = "web-files"


def test_requests_are_counted_by_how_they_ended() -> None:
    requests = Requests()
    faults = [Fault("put", "packs/", StoreFull("full"), times=1), Fault("get", "config", Transient("later"), times=2)]
    store = MeasuredStore(FaultyStore(MemoryStore(), faults), requests)
    with pytest.raises(StoreFull):
        store.put("packs/aa", [b"x" * 100])
    store.put("packs/aa", [b"x" * 100, b"y"])
    store.put("config", [b"z"])
    for _ in range(2):
        with pytest.raises(Transient):
            store.get("config")
    assert store.get("packs/aa", 1, 50) == b"x" * 50
    assert len(list(store.list())) == 2
    assert store.exists("nothing") is False
    values = Values(Requests())
    values._requests = requests
    found = scrape(exposition(values.samples()).decode())
    counts = {
        (dict(labels)["op"], dict(labels)["outcome"]): value
        for (name, labels), value in found.items()
        if name == "lox_agent_store_request_seconds_count"
    }
    assert counts == {
        ("put", "full"): 1, ("put", "ok"): 2, ("get", "transient"): 2, ("get", "ok"): 1, ("list", "ok"): 1,
        ("size", "missing"): 1,
    }  # fmt: skip
    assert one(found, "upload_bytes_total") == 102
    assert one(found, "download_bytes_total") == 50
    assert one(found, "store_failures_total", outcome="full") == 1
    assert one(found, "store_failures_total", outcome="transient") == 2
    assert one(found, "store_failures_total", outcome="error") == 0


def test_a_listing_is_measured_without_what_is_done_between_its_names() -> None:
    requests = Requests()
    inner = MemoryStore()
    for number in range(3):
        inner.put(f"packs/{number}", [b""])
    for _ in MeasuredStore(inner, requests).list("packs/"):
        time.sleep(0.05)
    assert requests.take().requests["list", "ok"].seconds < 0.04


def test_histograms_count_upwards_to_infinity() -> None:
    values = Values(Requests())
    for seconds in (5.0, 10.0, 100.0, 1e6):
        values.observe("backup_run_duration_seconds", seconds, JOB)
    found = scrape(exposition(values.samples()).decode())
    buckets = {
        float(dict(labels)["le"]): value
        for (name, labels), value in found.items()
        if name.endswith("duration_seconds_bucket")
    }
    assert [buckets[bound] for bound in (10.0, 60.0, 300.0, 86400.0, math.inf)] == [2, 2, 3, 3, 4]
    assert one(found, "backup_run_duration_seconds_sum", job=JOB) == pytest.approx(1000115.0)


# ---- where to listen


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9100", ("127.0.0.1", 9100)),
        (":9100", ("127.0.0.1", 9100)),
        ("localhost:0", ("localhost", 0)),
        ("0.0.0.0:9100", ("0.0.0.0", 9100)),
        ("[::1]:9100", ("::1", 9100)),
    ],
)
def test_nothing_is_opened_to_others_unless_it_is_said(text: str, place: tuple[str, int]) -> None:
    assert parse_listen(text) == place


@pytest.mark.parametrize("text", ["", "nine", "host", "host:", "host:70000", "a b:1", "::1:9100", "http://x:1"])
def test_a_place_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a place to listen"):
        parse_listen(text)
