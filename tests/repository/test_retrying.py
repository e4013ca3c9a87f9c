from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from model.errors import Exists, Missing, Refused, Transient
from repository.store import MemoryStore, Store
from repository.store.retrying import BUDGET, CAP, FIRST_BUDGET, RetryingStore
from repository.store.wrapped import WrappedStore
from repository.store.wrappers import Fault, FaultyStore
from tests.contracts.store import StoreContract


class Clock:
    """Time that passes only when somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def patient(inner: Store, faults: list[Fault], clock: Clock, budget: float = BUDGET) -> RetryingStore:
    draw = random.Random(7).uniform
    return RetryingStore(FaultyStore(inner, faults), budget, sleep=clock.sleep, clock=lambda: clock.now, draw=draw)


class TestRetryingStore(StoreContract):
    """Every third get fails, every put once loses its answer."""

    @pytest.fixture
    def store(self) -> Store:
        faults = [Fault("get", "", Transient("reset"), skip=number * 2, times=1) for number in range(50)]
        faults += [Fault("put", "", Transient("no answer"), late=True, skip=0, times=1)]
        faults += [Fault("list", "", Transient("busy"), times=2)]
        return patient(MemoryStore(), faults, Clock())


def test_waits_grow_and_are_drawn_from_all_of_their_range() -> None:
    clock = Clock()
    store = patient(MemoryStore(), [Fault("size", "", Transient("busy"), skip=1, times=400)], clock, budget=1e9)
    store.inner.put("config", [b"x"])
    assert store.size("config") == store.size("config") == 1
    assert len(clock.waits) == 400
    for number, wait in enumerate(clock.waits):
        assert 0 <= wait <= min(CAP, 0.5 * 2**number)
    late = clock.waits[10:]
    assert min(late) < 2 and max(late) > 28 and 13 < sum(late) / len(late) < 17


def test_the_store_says_how_long_to_wait() -> None:
    clock = Clock()
    store = patient(MemoryStore(), [Fault("put", "", Transient("busy", retry_after=12.0), times=1)], clock)
    store.put("config", [b"x"])
    assert len(clock.waits) == 1 and 12.0 <= clock.waits[0] <= 12.5


def test_it_gives_up_when_the_budget_is_spent() -> None:
    clock = Clock()
    store = patient(MemoryStore(), [Fault("size", "", Transient("down", why="no connection"), skip=1)], clock)
    store.inner.put("config", [b"x"])
    store.size("config")
    with pytest.raises(Transient, match="no connection") as caught:
        store.size("config")
    assert BUDGET - CAP <= clock.now <= BUDGET
    assert "attempts" in caught.value.hint


def test_a_store_that_never_answered_is_given_less_time() -> None:
    clock = Clock()
    with pytest.raises(Transient):
        patient(MemoryStore(), [Fault("get", "", Transient("no such host"))], clock).get("config")
    assert clock.now <= FIRST_BUDGET


@pytest.mark.parametrize("kind", [Refused, Exists, Missing])
def test_what_is_not_transient_is_not_repeated(kind: type[Exception]) -> None:
    clock = Clock()
    with pytest.raises(kind):
        patient(MemoryStore(), [Fault("delete", "", kind("no"))], clock).delete("config")
    assert clock.waits == []


def test_a_put_whose_answer_got_lost_is_done() -> None:
    inner, data = MemoryStore(), random.Random(1).randbytes(20 << 20)
    store = patient(inner, [Fault("put", "", Transient("no answer"), late=True, times=1)], Clock())
    store.put("packs/aa/one", [data[:1000], memoryview(data)[1000:]])
    assert inner.get("packs/aa/one") == data


@pytest.mark.parametrize("other", [b"longer than ours", b"same"])
def test_after_a_lost_put_somebody_elses_object_is_not_taken_for_ours(other: bytes) -> None:
    class Racing(WrappedStore):
        def put(self, name: str, parts: object) -> None:
            if not self.inner.exists(name):
                self.inner.put(name, [other])
                raise Transient("no answer")
            raise Exists("object exists already", subject=name)

    inner = MemoryStore()
    store = RetryingStore(Racing(inner), sleep=lambda _: None)
    with pytest.raises(Exists):
        store.put("keys/one", [b"ours"])
    assert inner.get("keys/one") == other


def test_a_name_that_was_taken_before_is_taken() -> None:
    inner = MemoryStore()
    inner.put("keys/one", [b"same"])
    with pytest.raises(Exists):
        RetryingStore(inner).put("keys/one", [b"same"])


def test_a_delete_whose_answer_got_lost_is_done() -> None:
    inner = MemoryStore()
    inner.put("keys/one", [b"x"])
    patient(inner, [Fault("delete", "", Transient("no answer"), late=True, times=1)], Clock()).delete("keys/one")
    assert not inner.exists("keys/one")


def test_a_listing_that_breaks_off_goes_on_where_it_was() -> None:
    class Breaking(WrappedStore):
        broken = 0

        def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
            for number, each in enumerate(self.inner.list(prefix)):
                if number % 7 == 6 and self.broken < number:
                    Breaking.broken = number
                    raise Transient("reset")
                yield each

    inner = MemoryStore()
    for number in range(40):
        inner.put(f"packs/{number:02d}", [b"." * number])
    clock = Clock()
    store = RetryingStore(Breaking(inner), sleep=clock.sleep)
    assert list(store.list("packs/")) == list(inner.list("packs/"))
    assert len(clock.waits) == 5
