from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.errors import Exists, LoxError, Missing, Refused, StoreError, StoreFull, Transient, UsageError
from repository.store import LocalStore, MemoryStore, Store, open_store
from repository.store.wrappers import Fault, FaultyStore, RecordingStore
from tests.contracts.store import StoreContract


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(str(tmp_path / "deep" / "repo"))


class TestLocalStoreWithoutHardLinks(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, "no hard links here")

        monkeypatch.setattr(os, "link", refuse)
        return LocalStore(str(tmp_path / "repo"))


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class TestRecordingStore(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return RecordingStore(MemoryStore())


class TestFaultyStoreWithoutFaults(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return FaultyStore(MemoryStore(), [])


@pytest.fixture
def full_disk() -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = Path("/dev/shm") / f"lox-full-{os.getpid()}"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=False, capture_output=True
    )
    if mounted.returncode:
        place.rmdir()
        pytest.skip("cannot mount a tmpfs here: run as root outside a restricted container")
    yield place
    subprocess.run(["umount", str(place)], check=True)
    place.rmdir()


@pytest.mark.parametrize("size", [(1 << 20) - 1, 1 << 20, (3 << 20) + 4097, 5 << 20])
@pytest.mark.parametrize("skip", [0, 1])
@pytest.mark.parametrize("refused", [None, errno.EINVAL])
def test_large_objects_go_past_the_page_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, skip: int, refused: int | None
) -> None:
    """Whatever their size and place in memory, and whether or not the file system can do it."""
    memory = mmap.mmap(-1, size + 4096)
    memory[:] = os.urandom(len(memory))
    data = memoryview(memory)[skip : skip + size]
    direct: list[int] = []
    write = os.write

    def watched(fd: int, some: memoryview) -> int:
        if os.readlink(f"/proc/self/fd/{fd}").startswith(str(tmp_path)):
            direct.append(len(some))
        if refused and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(refused, os.strerror(refused))
        return write(fd, some)

    monkeypatch.setattr(os, "write", watched)
    store = LocalStore(str(tmp_path / "repo"))
    store.put("packs/aa/one", [data, b"tail"])
    assert store.get("packs/aa/one") == bytes(data) + b"tail"
    assert bool(direct) == (size >= 1 << 20 and skip == 0)


def test_files_are_private_and_read_only(tmp_path: Path) -> None:
    LocalStore(str(tmp_path / "repo")).put("packs/aa/one", [b"x"])
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "repo", *(tmp_path / "repo").rglob("*")]}
    assert all(mode == (0o400 if path.is_file() else 0o700) for path, mode in modes.items()), modes


def test_leftovers_and_strangers_are_invisible(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("keys/one", [b"x"])
    (tmp_path / "keys" / ".tmp-0123").write_bytes(b"half")
    (tmp_path / "keys" / "README").write_bytes(b"not ours")
    (tmp_path / "keys" / "link").symlink_to("one")
    os.mkfifo(tmp_path / "keys" / "fifo")
    (tmp_path / "lost+found").mkdir()
    assert list(store.list()) == [("keys/one", 1)]


def test_a_fifo_or_a_folder_in_place_of_an_object_does_not_hang(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    os.mkfifo(tmp_path / "config")
    (tmp_path / "index").mkdir()
    (tmp_path / "secret").write_bytes(b"s")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    for name in ("config", "index", "link"):
        with pytest.raises(StoreError):
            store.get(name)


def test_no_temporary_file_stays_after_a_refused_put(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("keys/one", [b"x"])
    with pytest.raises(Exists):
        store.put("keys/one", [b"y"])
    assert os.listdir(tmp_path / "keys") == ["one"]


def test_nothing_stays_when_the_disk_is_full(full_disk: Path) -> None:
    store = LocalStore(str(full_disk / "repo"))
    store.put("keys/one", [b"x"])
    with pytest.raises(StoreFull) as caught:
        store.put("packs/aa/big", [bytes(4 << 20)])
    assert caught.value.exit_code == 16
    assert caught.value.hint
    assert [path for path in full_disk.rglob("*") if path.is_file()] == [full_disk / "repo/keys/one"]
    store.put("packs/aa/small", [bytes(1000)])


def test_everything_is_synced_before_put_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(fd: int) -> None:
        order.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))[:5])
        real_fsync(fd)

    def link(source: str, target: str, **options: bool) -> None:
        order.append("link")
        real_link(source, target, **options)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    store = LocalStore(str(tmp_path / "repo"))
    store.put("packs/aa/one", [b"x"])
    # The new folders (repo into its parent, packs into repo, aa into packs), then file, name, folder of the name.
    assert order == [f"sync {tmp_path.name[:5]}", "sync repo", "sync packs", "sync .tmp-", "link", "sync aa"]
    order.clear()
    store.put("packs/aa/two", [b"x"])
    assert order == ["sync .tmp-", "link", "sync aa"]
    store.delete("packs/aa/two")
    assert order[-1] == "sync aa"


def test_a_link_whose_answer_got_lost_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_link = os.link

    def link(source: str, target: str, **options: bool) -> None:
        real_link(source, target, **options)
        raise FileExistsError(errno.EEXIST, "as NFS says when it repeats the request")

    monkeypatch.setattr(os, "link", link)
    store = LocalStore(str(tmp_path))
    store.put("snapshots/one", [b"x"])
    assert list(store.list()) == [("snapshots/one", 1)]


def test_a_killed_writer_leaves_no_object(tmp_path: Path) -> None:
    script = """if True:
        import os, signal, sys
        from repository.store import LocalStore
        os.link = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
        LocalStore(sys.argv[1]).put("packs/aa/one", [bytes(100000)])
    """
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -9
    store = LocalStore(str(tmp_path))
    assert list(store.list()) == []
    store.put("packs/aa/one", [b"again"])
    assert store.get("packs/aa/one") == b"again"


def test_what_lay_deep_leaves_no_folder_and_nobody_trips_over_that(tmp_path: Path) -> None:
    stores = [LocalStore(str(tmp_path)) for _ in range(4)]
    stores[0].put("packs/ab/one", [b"x"])

    def come_and_go(number: int) -> int:
        for turn in range(60):
            name = f"sessions/same/{number}-{turn}"
            stores[number].put(name, [b"here"])
            stores[number].delete(name)
        return 60

    with ThreadPoolExecutor(len(stores)) as pool:
        assert sum(pool.map(come_and_go, range(len(stores)))) == 240
    assert list((tmp_path / "sessions").iterdir()) == [] and stores[0].exists("packs/ab/one")


def test_a_folder_removed_under_us_is_made_again(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    store.put("packs/aa/one", [b"x"])
    (tmp_path / "packs" / "aa" / "one").unlink()
    (tmp_path / "packs" / "aa").rmdir()
    store.put("packs/aa/two", [b"y"])
    assert store.get("packs/aa/two") == b"y"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, Refused),
        (errno.EACCES, Refused),
        (errno.EIO, Transient),
        (errno.ESTALE, Transient),
        (errno.EXDEV, StoreError),
    ],
)
def test_system_errors_become_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[LoxError]
) -> None:
    def fail(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    store = LocalStore(str(tmp_path))
    store.put("keys/one", [b"x"])
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError) as caught:
        store.put("keys/two", [b"y"])
    assert type(caught.value) is kind
    assert "keys/two" in str(caught.value)
    assert os.listdir(tmp_path / "keys") == ["one"]


def test_a_file_in_place_of_the_repository(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = LocalStore(str(tmp_path / "file"))
    with pytest.raises(Missing):
        store.get("config")
    assert list(store.list()) == []
    with pytest.raises(StoreError) as caught:
        store.put("config", [b"x"])
    assert not isinstance(caught.value, Missing)


def test_locations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert open_store("repo").url == str(tmp_path / "repo")
    assert open_store("./a:b").url == str(tmp_path / "a:b")
    assert open_store("file:///srv/my%20backup").url == "/srv/my backup"
    assert open_store(open_store("repo").url).url == str(tmp_path / "repo")


@pytest.mark.parametrize(
    "url",
    ["", "nosuch://bucket/x", "s3:bucket/x", "memory:77", "sftp:host:/x", "file://host/x", "file:relative", "a\0b"],
)
def test_locations_we_do_not_know(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert caught.value.hint


def test_a_name_that_is_not_utf8_is_a_location_too(tmp_path: Path) -> None:
    store = open_store(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    store.put("config", [b"x"])
    assert os.path.exists(os.fsencode(tmp_path) + b"/\xff/config")
    assert open_store(store.url).get("config") == b"x"


def test_recording() -> None:
    store = RecordingStore(MemoryStore())
    store.put("packs/aa/one", [b"12", b"345"])
    store.get("packs/aa/one", 1, 3)
    assert [(call.verb, call.nbytes, call.offset) for call in store.calls] == [("put", 5, 0), ("get", 3, 1)]
    assert len(store.of("get", "packs/")) == 1


def test_faults() -> None:
    inner = MemoryStore()
    faults = [
        Fault("put", "packs/", Transient("lost connection"), skip=1, times=1),
        Fault("put", "snapshots/", Transient("no answer"), late=True),
        Fault("get", "index/", change=lambda data: data[::-1]),
    ]
    store = FaultyStore(inner, faults)
    store.put("packs/aa/1", [b"1"])
    with pytest.raises(Transient):
        store.put("packs/aa/2", [b"2"])
    assert not inner.exists("packs/aa/2")
    store.put("packs/aa/2", [b"2"])
    with pytest.raises(Transient):
        store.put("snapshots/s", [b"s"])
    assert inner.exists("snapshots/s")
    store.put("index/i", [b"abc"])
    assert store.get("index/i") == b"cba"
