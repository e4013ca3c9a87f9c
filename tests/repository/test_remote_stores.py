from __future__ import annotations

import getpass
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model.errors import Exists, LoxError, Missing, Refused, StoreError, StoreFull, Transient, UsageError
from repository.leftovers import LONGEST_WRITER
from repository.prune import prune
from repository.repair import repair
from repository.store import Store, open_store
from repository.store.remote import open_remote
from tests.contracts.store import StoreContract
from tests.repository.prunes import ALL, Home, bytes_of
from tests.repository.servers import BUCKET, azure_server, rclone_server, s3_server, sftp_server


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    with s3_server() as environment:
        yield environment


@pytest.fixture(scope="module")
def careless_s3() -> Iterator[dict[str, str]]:
    with s3_server(conditional=False) as environment:
        yield environment


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, dict[str, str]]]:
    with sftp_server(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def azurite() -> Iterator[dict[str, str]]:
    with azure_server() as environment:
        yield environment


@pytest.fixture(scope="module")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with rclone_server(tmp_path_factory.mktemp("rclone")) as environment:
        yield environment


@pytest.fixture
def azure_url(azurite: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    return _url_in(azurite, monkeypatch, tmp_path).replace("s3://", "az://")


@pytest.fixture
def s3_url(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    return _url_in(s3, monkeypatch, tmp_path)


@pytest.fixture
def sftp_url(sshd: tuple[int, dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    port, environment = sshd
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return f"sftp://{getpass.getuser()}@127.0.0.1:{port}{tmp_path}/deep/repo"


def _url_in(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A prefix of its own in the bucket for each test."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.parent.name}/{tmp_path.name}"


class TestS3(StoreContract):
    @pytest.fixture
    def store(self, s3_url: str) -> Store:
        return open_store(s3_url)


class TestS3WithoutConditions(StoreContract):
    """A server that ignores If-None-Match: we ask first, and the lanes of one process take turns with a name."""

    @pytest.fixture
    def store(self, careless_s3: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
        return open_store(_url_in(careless_s3, monkeypatch, tmp_path))


class TestRclone(StoreContract):
    """Another server that ignores If-None-Match, and none of ours."""

    @pytest.fixture
    def store(self, rclone: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Store:
        return open_store(_url_in(rclone, monkeypatch, tmp_path))


class TestAzure(StoreContract):
    @pytest.fixture
    def store(self, azure_url: str) -> Store:
        return open_store(azure_url)


class TestSftp(StoreContract):
    @pytest.fixture
    def store(self, sftp_url: str) -> Store:
        return open_store(sftp_url)


class TestMemoryOfFsspec(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return open_store(f"memory://{tmp_path.parent.name}/{tmp_path.name}")


@pytest.mark.parametrize("fixture", ["s3_url", "azure_url", "sftp_url"])
def test_another_process_finds_the_store_by_its_url(fixture: str, request: pytest.FixtureRequest) -> None:
    store = open_store(request.getfixturevalue(fixture))
    store.put("packs/aa/one", [b"from here"])
    script = """if True:
        import sys
        from repository.store import open_store
        store = open_store(sys.argv[1])
        assert store.get("packs/aa/one") == b"from here"
        store.put("packs/aa/two", [b"from there"])
    """
    subprocess.run([sys.executable, "-c", script, store.url], check=True, cwd=Path(__file__).parents[2])
    assert list(store.list()) == [("packs/aa/one", 9), ("packs/aa/two", 10)]
    assert store.get("packs/aa/two") == b"from there"


@pytest.mark.parametrize("fixture", ["s3_url", "azure_url", "sftp_url"])
def test_two_stores_see_each_other_at_once(fixture: str, request: pytest.FixtureRequest) -> None:
    """No listing is remembered."""
    url = request.getfixturevalue(fixture)
    here, there = open_store(url), open_store(url)
    assert list(here.list("index/")) == []
    there.put("index/a", [b"1"])
    assert list(here.list("index/")) == [("index/a", 1)]
    with pytest.raises(Exists):
        here.put("index/a", [b"2"])
    there.delete("index/a")
    assert list(here.list("index/")) == []
    here.put("index/a", [b"2"])
    assert there.get("index/a") == b"2"


@pytest.mark.parametrize("fixture", ["s3_url", "azure_url", "sftp_url"])
def test_who_asks_nobody_is_refused_by_the_server(fixture: str, request: pytest.FixtureRequest) -> None:
    store = open_store(request.getfixturevalue(fixture))
    store.put("snapshots/a", [b"first"])
    with pytest.raises(Exists):
        store.put_unasked("snapshots/a", [b"second"])
    assert store.get("snapshots/a") == b"first"


def test_a_bucket_that_is_not_there(s3_url: str) -> None:
    store = open_store("s3://no-such-bucket/x")
    for action in (lambda: store.put("config", [b"x"]), lambda: list(store.list())):
        with pytest.raises(StoreError) as caught:
            action()
        assert not isinstance(caught.value, Missing)
        assert "create the bucket" in caught.value.hint


def test_sftp_keeps_files_private_and_leaves_nothing_behind(sftp_url: str, tmp_path: Path) -> None:
    store = open_store(sftp_url)
    store.put("packs/aa/one", [b"x"])
    with pytest.raises(Exists):
        store.put_unasked("packs/aa/one", [b"y"])
    found = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "deep").rglob("*")}
    assert found == {"repo": "0o700", "packs": "0o700", "aa": "0o700", "one": "0o400"}


def test_sftp_sees_no_leftovers_and_strangers(sftp_url: str, tmp_path: Path) -> None:
    store = open_store(sftp_url)
    store.put("keys/one", [b"x"])
    keys = tmp_path / "deep" / "repo" / "keys"
    (keys / ".tmp-0123").write_bytes(b"half")
    (keys / "README").write_bytes(b"not ours")
    (keys / "link").symlink_to("one")
    assert list(store.list()) == [("keys/one", 1)]


KILLED = """
import os, signal, sys
from repository.store import open_store

class Dying(list):
    def __iter__(self):
        yield self[0]
        os.kill(os.getpid(), signal.SIGKILL)

open_store(sys.argv[1]).put("packs/aa/half", Dying([bytes(12 << 20), b"never"]))
"""


def test_prune_removes_over_sftp_what_killed_writers_left(sftp_url: str, tmp_path: Path) -> None:
    home = Home(open_store(sftp_url))
    home.keep(a=bytes_of(1, 4))
    ended = subprocess.run([sys.executable, "-c", KILLED, sftp_url], timeout=120, check=False)
    assert ended.returncode == -signal.SIGKILL
    folder = tmp_path / "deep" / "repo"
    (half,) = folder.rglob(".tmp-*")
    (name, *_) = home.packs()
    twin = (folder / name).parent / ".tmp-0123456789abcdef"  # killed when the object had its name already
    os.link(folder / name, twin)
    assert prune(home.repository, ALL).leftovers == 0 and half.stat().st_size > 0  # its writer may live
    for path in (half, twin):
        os.utime(path, (time.time() - 2 * LONGEST_WRITER / 1e9,) * 2)
    assert [each.path for each in repair(home.repository).leftovers] == sorted(
        os.fspath(path.relative_to(folder)) for path in (half, twin)
    )
    assert prune(home.repository, ALL).leftovers == 2
    assert not half.exists() and not twin.exists()
    home.verify()


def test_sftp_makes_a_folder_again_that_went_away(sftp_url: str, tmp_path: Path) -> None:
    store = open_store(sftp_url)
    store.put("packs/aa/one", [b"x"])
    store.delete("packs/aa/one")
    (tmp_path / "deep" / "repo" / "packs" / "aa").rmdir()
    store.put("packs/aa/two", [b"y"])
    assert store.get("packs/aa/two") == b"y"


def test_sftp_connects_again_when_the_connection_is_lost(sftp_url: str) -> None:
    store = open_store(sftp_url)
    store.put("packs/aa/one", [b"x"])
    inner = store.inner.inner  # type: ignore[attr-defined]
    inner._connection.abort()
    assert store.get("packs/aa/one") == b"x"


def test_sftp_refuses_a_host_it_does_not_know(sftp_url: str) -> None:
    Path(os.environ["HOME"], ".ssh", "known_hosts").rename(Path(os.environ["HOME"], "away"))
    try:
        with pytest.raises(Refused) as caught:
            open_store(sftp_url).get("config")
    finally:
        Path(os.environ["HOME"], "away").rename(Path(os.environ["HOME"], ".ssh", "known_hosts"))
    assert "ssh 127.0.0.1" in caught.value.hint


class _Answers(BaseHTTPRequestHandler):
    """Answers every request with the number that ends its path."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_HEAD = do_DELETE = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def moody_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    pytest.importorskip("obstore", reason="no S3 client: pip install obstore")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "very")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    yield open_remote("s3://bucket/x")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, StoreError),
        (401, Refused),
        (403, Refused),
        (404, Missing),
        (429, Transient),
        (500, Transient),
        (503, Transient),
        (507, StoreFull),
    ],
)
def test_answers_become_our_errors(moody_s3: Store, status: int, kind: type[LoxError]) -> None:
    with pytest.raises(StoreError) as caught:
        moody_s3.get(str(status))
    assert type(caught.value) is kind
    assert str(status) in str(caught.value)
    assert "127.0.0.1" not in str(caught.value)
    with pytest.raises(StoreError) as caught:
        moody_s3.put_unasked(str(status), [b"x"])
    assert type(caught.value) is (StoreError if kind is Missing else kind)


def test_no_server_is_transient(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("obstore", reason="no S3 client: pip install obstore")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "very")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(Transient, match="no connection"):
        open_remote("s3://bucket/x").get("config")


@pytest.mark.parametrize(
    "url",
    [
        "sftp://me:hunter2@host/srv",
        "s3://AKIAhunter2@bucket/x",
        "s3://key:hunter2@bucket/x",
        "az://container/x?sig=hunter2",
        "ftp://host/x#hunter2",
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value) + caught.value.hint
    assert "credentials come from" in caught.value.hint


@pytest.mark.parametrize(
    "url", ["nosuch://x/y", "http://host/x", "s3:///x", "sftp://host", "sftp://h:x/y", "s3://b/.."]
)
def test_urls_that_name_no_store(url: str) -> None:
    pytest.importorskip("obstore", reason="no S3 client: pip install obstore")
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [("s3://b/x", "obstore", "s3"), ("gs://b/x", "obstore", "gs"), ("sftp://h/x", "asyncssh", "sftp")],
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, url: str, module: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError) as caught:
        open_store(url)
    assert caught.value.subject == module
    assert caught.value.hint == f"pip install 'lox-backup[{extra}]'"


def test_a_local_store_loads_no_driver() -> None:
    script = """if True:
        import sys
        from repository.store import open_store
        open_store("/srv/x")
        print([name for name in ("fsspec", "obstore", "asyncssh", "asyncio", "urllib.request") if name in sys.modules])
    """
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", script], check=True, cwd=root, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_a_transient_error_keeps_its_wait_across_processes() -> None:
    error = pickle.loads(pickle.dumps(Transient("store failed", subject="packs/x", why="HTTP 503", retry_after=7.5)))
    assert isinstance(error, Transient)
    assert (error.retry_after, error.subject, error.why) == (7.5, "packs/x", "HTTP 503")
