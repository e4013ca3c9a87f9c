from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from model.errors import Exists, Refused, StoreError
from repository.store import Bytes, LocalStore, MemoryStore, Store, open_store
from repository.store.probe import ProbeReport, probe
from repository.store.wrapped import WrappedStore
from repository.store.wrappers import Fault, FaultyStore, RecordingStore


def traits(report: ProbeReport) -> dict[str, bool | None]:
    return {finding.name: finding.good for finding in report.findings}


def test_a_folder_does_all_that_is_needed_and_is_left_empty(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "repo"))
    store.put("config", [b"was here"])
    report = probe(store, object_size=100_000, objects=5, lanes=2)
    assert report.usable and set(traits(report).values()) == {True}
    assert report.overwrites is False and report.left_behind == []
    assert report.latency and report.upload and report.download
    assert report.clock_difference == 0
    assert list(store.list()) == [("config", 8)]


def test_a_quick_probe_moves_little() -> None:
    store = RecordingStore(MemoryStore())
    report = probe(store, full=False)
    assert report.usable and report.upload is None
    assert sum(call.nbytes for call in store.of("put")) < 2000


def test_a_store_that_overwrites_is_told_and_usable(tmp_path: Path) -> None:
    report = probe(open_store(f"memory://{tmp_path.name}/x"), full=False)
    assert report.overwrites is True and report.usable
    assert traits(report)["put if absent"] is False


def test_a_store_that_drops_the_second_object_is_not_praised() -> None:
    class Dropping(WrappedStore):
        def put_unasked(self, name: str, parts: Sequence[Bytes]) -> None:
            try:
                self.inner.put(name, parts)
            except Exists:
                pass

    report = probe(Dropping(MemoryStore()), full=False)
    assert report.overwrites is False
    assert traits(report)["put if absent"] is None


class _Lagging(WrappedStore):
    """Listings lag behind by one write."""

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        return iter(list(self.inner.list(prefix))[:-1])


class _NoRanges(WrappedStore):
    """Sends the whole object whatever was asked."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        return self.inner.get(name)


@pytest.mark.parametrize(("kind", "trait"), [(_Lagging, "list after write"), (_NoRanges, "ranges")])
def test_a_store_that_lacks_what_is_needed_is_not_usable(kind: type[WrappedStore], trait: str) -> None:
    report = probe(kind(MemoryStore()), full=False)
    assert traits(report)[trait] is False
    assert not report.usable


def test_damage_on_the_way_is_found() -> None:
    faults = [Fault("get", "", change=lambda data: data[:-1] + b"!" if len(data) > 5000 else data)]
    report = probe(FaultyStore(MemoryStore(), faults), object_size=10_000, objects=2)
    assert traits(report)["large objects"] is False and not report.usable


def test_what_cannot_be_deleted_is_named() -> None:
    inner = MemoryStore()
    report = probe(FaultyStore(inner, [Fault("delete", "", Refused("no", why="locked"))]), full=False)
    assert report.usable and traits(report)["delete"] is None
    assert report.left_behind == [name for name, _ in inner.list()] != []


@pytest.mark.parametrize("ahead", [-3600.0, -20.0, 20.0, 3600.0])
def test_a_clock_that_is_wrong_is_measured(tmp_path: Path, ahead: float) -> None:
    class Skewed(WrappedStore):
        def written(self, name: str) -> int | None:
            return (self.inner.written(name) or 0) + int(ahead) * 10**9

    report = probe(Skewed(LocalStore(str(tmp_path))), full=False)
    assert report.clock_difference == pytest.approx(ahead, abs=1.1)
    assert traits(report)["clock"] is (abs(ahead) < 300)


def test_after_an_error_nothing_stays() -> None:
    inner = MemoryStore()
    with pytest.raises(StoreError):
        probe(FaultyStore(inner, [Fault("get", "", StoreError("broken"), skip=1)]))
    assert list(inner.list()) == []


def test_the_interface_is_all_it_needs() -> None:
    class Plain(Store):
        """A store that knows nothing of probing."""

        def __init__(self) -> None:
            self.inner = MemoryStore()
            self.url = "plain"

        def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
            return self.inner.get(name, offset, length)

        def put(self, name: str, parts: Sequence[Bytes]) -> None:
            self.inner.put(name, parts)

        def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
            return self.inner.list(prefix)

        def size(self, name: str) -> int:
            return self.inner.size(name)

        def delete(self, name: str) -> None:
            self.inner.delete(name)

    report = probe(Plain(), full=False)
    assert report.usable and report.overwrites is False
    assert traits(report)["clock"] is None
