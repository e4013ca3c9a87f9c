"""The store in the vault of a real server: the contract, and what only it promises."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from control.vault.uploads import RESUMED_MIN
from model.errors import ConfigError, LoxError, Missing, Refused, StoreError, StoreFull, UsageError
from repository.store import Store, open_store
from repository.store.probe import probe
from tests.contracts.store import StoreContract
from tests.control.servers import Client
from tests.control.vault.cutting import line_to
from tests.control.vault.serving import VaultServer, vault_server

PACK = "packs/aa/" + "0" * 32


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultServer]:
    with vault_server(tmp_path_factory.mktemp("vault")) as server:
        yield server


@pytest.fixture(scope="module")
def token(server: VaultServer) -> Path:
    return server.token()


@pytest.fixture
def credentials(server: VaultServer, token: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(token))
    monkeypatch.setenv("LOX_VAULT_CA_FILE", str(server.ca))
    return token


@pytest.fixture
def store(server: VaultServer, credentials: Path) -> Store:
    return open_store(server.place(server.repository()))


class TestVault(StoreContract):
    beside = "config"

    @pytest.fixture
    def store(self, server: VaultServer, credentials: Path) -> Store:
        return open_store(server.place(server.repository()))


def test_a_probe_finds_all_good(store: Store) -> None:
    report = probe(store, object_size=2 << 20, objects=2, lanes=2)
    assert report.usable and report.overwrites is False and report.left_behind == []
    assert [finding.name for finding in report.findings if finding.good is not True] == []


def test_long_listings_come_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from repository.store import vault

    monkeypatch.setattr(vault, "_PAGE", 7)
    names = [f"index/{number:032x}" for number in range(30)]
    for name in names:
        store.put(name, [b"x"])
    assert [name for name, _ in store.list("index/")] == names


@pytest.mark.slow
def test_an_upload_whose_connection_broke_goes_on_where_it_broke(server: VaultServer, credentials: Path) -> None:
    data = os.urandom(32 * RESUMED_MIN)
    with line_to(server.port) as line:
        store = open_store(server.place(server.repository(), line.port))
        store.put("config", [b"x"])
        line.carried, line.carries = 0, 28 * RESUMED_MIN
        store.put(PACK, [data[:100], data[100:]])
        assert line.broken == 1
        assert line.carried < len(data) + 8 * RESUMED_MIN, "only what was still on its way came twice"
        assert store.get(PACK) == data


def test_a_download_that_breaks_is_repeated(server: VaultServer, credentials: Path) -> None:
    data = os.urandom(3 << 20)
    repository = server.repository()
    open_store(server.place(repository)).put(PACK, [data])
    with line_to(server.port) as line:
        store = open_store(server.place(repository, line.port))
        assert store.exists(PACK)
        line.carries = 1
        assert store.get(PACK) == data and line.broken == 1


def test_who_may_not_delete_is_refused_and_nothing_goes(server: VaultServer, store: Store,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(server.token(["vault:get", "vault:put"])))
    agent = open_store(store.url)
    agent.put(PACK, [b"kept"])
    with pytest.raises(Refused, match="vault:delete"):
        agent.delete(PACK)
    assert agent.get(PACK) == b"kept"
    monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(server.token(["vault:get"])))
    reader = open_store(store.url)
    assert reader.get(PACK) == b"kept"
    with pytest.raises(Refused, match="vault:put"):
        reader.put("config", [b"x"])


def test_of_agents_only_the_maintenance_agent_of_a_repository_deletes(
    server: VaultServer, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first, first_file), (_, second_file) = server.agent(), server.agent()
    url = server.place(server.repository(maintenance=first))
    monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(second_file))
    second = open_store(url)
    second.put(PACK, [b"of the second"])
    with pytest.raises(Refused, match="only the maintenance agent"):
        second.delete(PACK)
    monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(first_file))
    maintenance = open_store(url)
    assert maintenance.get(PACK) == b"of the second"
    maintenance.delete(PACK)
    with pytest.raises(Missing):
        second.get(PACK)


@pytest.mark.slow
def test_deletions_are_in_the_audit_log_summed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with vault_server(tmp_path / "server") as server:
        token, reader = server.token(), Client(server, server.token(["audit:read"]).read_text().strip())
        monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(token))
        monkeypatch.setenv("LOX_VAULT_CA_FILE", str(server.ca))
        repository = server.repository()
        store = open_store(server.place(repository))
        names = [f"packs/{number:02}" for number in range(12)]
        for name in names:
            store.put(name, [b"x" * 100])
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(store.delete, names))
        server.stop(signal.SIGKILL)
        server.start()
        shown = [(one["action"], one["subject"]) for one in reader.ok("GET", "/api/v1/audit")["items"]]
        assert shown == [("vault.delete.begin", str(repository))], "what a killed server did leaves a trace"
        for name in names:
            store.put(name, [b"x" * 100])
            store.delete(name)
        server.stop()
        server.start()
        newest, begin, _ = reader.ok("GET", "/api/v1/audit")["items"]
        assert (newest["action"], begin["action"]) == ("vault.delete", "vault.delete.begin")
        told = hashlib.sha256("".join(f"{name}\n" for name in names).encode()).hexdigest()
        assert newest["details"] == {"objects": 12, "bytes": 1200, "names": names, "sha256_of_names": told}
        assert reader.ok("GET", "/api/v1/audit/verify")["intact"]


def test_the_api_tells_how_much_a_repository_takes(server: VaultServer, store: Store) -> None:
    store.put(PACK, [bytes(12_345)])
    ask = Client(server, server.token(["repositories:read"]).read_text().strip())
    uuid = store.url.rpartition("/")[2]
    assert ask.ok("GET", f"/api/v1/repositories/{uuid}")["used_bytes"] == 12_345


def test_what_is_of_another_tenant_is_not_there(server: VaultServer, store: Store,
                                                monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    store.put(PACK, [b"secret"])
    other = server.add_tenant()
    monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(server.token(tenant=other)))
    foreign, nothing = open_store(store.url), open_store(server.place(other))
    texts = _refusals(foreign) + _refusals(nothing)
    assert texts[:5] == texts[5:], "the same as of what never was"
    assert store.get(PACK) == b"secret"
    assert not os.path.exists(server.data_dir / "vault" / str(other)), "and no folder was made"


def _refusals(store: Store) -> list[tuple[type[StoreError], str]]:
    """What each request is answered with."""
    found = []
    for action in (
        lambda: store.get(PACK),
        lambda: store.size(PACK),
        lambda: store.delete(PACK),
        lambda: list(store.list()),
        lambda: store.put(PACK, [b"x"]),
    ):
        with pytest.raises(StoreError) as caught:
            action()
        found.append((type(caught.value), str(caught.value)))
    return found


def test_a_quota_that_is_used_up(server: VaultServer, credentials: Path) -> None:
    store = open_store(server.place(server.repository(quota=3 << 20)))
    store.put(PACK, [bytes(2 << 20)])
    began = time.monotonic()
    with pytest.raises(StoreFull, match="quota") as caught:
        store.put(PACK[:-1] + "1", [bytes(64 << 20)])
    assert caught.value.exit_code == 16 and time.monotonic() - began < 15
    store.put(PACK[:-1] + "2", [bytes(1 << 20)])


def test_a_credential_that_was_exchanged_is_read_again(server: VaultServer, store: Store, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    file = tmp_path / "credential"
    old, new = server.token().read_text(), server.token().read_text()
    file.write_text(old)
    monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(file))
    working = open_store(store.url)
    working.put("config", [b"1"])
    file.write_text(new)
    server.revoke(old)
    working.put(PACK, [b"2"])
    server.revoke(new)
    with pytest.raises(Refused, match="token"):
        working.get(PACK)


def test_a_server_that_is_not_trusted_learns_no_token(server: VaultServer, store: Store,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.delenv("LOX_VAULT_CA_FILE")
    with pytest.raises(Refused, match="not trusted"):
        open_store(store.url).get("config")


def test_a_server_of_yesterday_is_refused(store: Store, server: VaultServer) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.data_dir / "tls" / "server.crt", server.data_dir / "tls" / "server.key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            client, _ = listener.accept()
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(client, server_side=True)

        thread = threading.Thread(target=accept)
        thread.start()
        with pytest.raises(Refused, match=r"TLS 1\.3"):
            open_store(server.place(server.repository(), listener.getsockname()[1])).get("config")
        thread.join()


@pytest.mark.parametrize(
    ("url", "environment", "error", "text"),
    [
        ("lox+https://host/x", {}, UsageError, "not a repository in a vault"),
        ("lox+https://user:word@host/x", {}, UsageError, "a URL with a password"),
        ("lox+https://host/00000000-0000-0000-0000-000000000001", {}, ConfigError, "LOX_VAULT_TOKEN_FILE"),
        ("lox+https://host/00000000-0000-0000-0000-000000000001", {"LOX_VAULT_TOKEN_FILE": "/nowhere"}, ConfigError,
         "cannot read the credential"),
        ("lox+https://host/00000000-0000-0000-0000-000000000001", {"LOX_VAULT_TOKEN_FILE": "/dev/null"}, ConfigError,
         "its first line is none"),
        ("lox+https://host/00000000-0000-0000-0000-000000000001", {"LOX_VAULT_CA_FILE": "/nowhere"}, ConfigError,
         "cannot read the certificate"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense(
    url: str, environment: dict[str, str], error: type[LoxError], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=text):
        open_store(url).get("config")


class Raw:
    """Requests as no client of ours sends them."""

    def __init__(self, server: VaultServer, token: Path) -> None:
        self._where = server.port, ssl.create_default_context(cafile=server.ca)
        self._token = token.read_text().strip()

    def __call__(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str]]:
        connection = http.client.HTTPSConnection("127.0.0.1", self._where[0], context=self._where[1], timeout=20)
        given = {name.replace("_", "-"): text for name, text in headers.items()}
        connection.request(method, path, body, {"Authorization": f"Bearer {self._token}", **given})
        response = connection.getresponse()
        response.read()
        connection.close()
        return response.status, {name.lower(): text for name, text in response.getheaders()}


DIGEST = "blake3=:6kFQAGYVlm3fVr6yC5xOPQFRVjBxoQ8nQ6W5zJTc9Xo=:"  # of something else


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 428),
        ({"If_None_Match": "*"}, 400),
        ({"If_None_Match": "*", "Repr_Digest": "sha-256=:AAAA:"}, 400),
        ({"If_None_Match": "*", "Repr_Digest": DIGEST}, 409),
        ({"If_None_Match": "*", "Repr_Digest": DIGEST, "Content_Range": "bytes 5-9/10"}, 409),
        ({"If_None_Match": "*", "Repr_Digest": DIGEST, "Content_Range": "bytes 0-4/10"}, 400),
        ({"If_None_Match": "*", "Repr_Digest": DIGEST, "Content_Range": "bytes 9-5/10"}, 400),
        ({"If_None_Match": "*", "Repr_Digest": DIGEST, "Content_Range": "bytes 0-4/9999999999999999"}, 400),
    ],
)
def test_a_put_that_does_not_say_what_comes_stores_nothing(
    server: VaultServer, token: Path, headers: dict[str, str], status: int
) -> None:
    repository = server.repository()
    raw = Raw(server, token)
    assert raw("PUT", f"/api/v1/vault/{repository}/objects/{PACK}", b"12345", **headers)[0] == status
    assert raw("HEAD", f"/api/v1/vault/{repository}/objects/{PACK}")[0] == 404
    folder = server.data_dir / "vault" / str(server.tenant) / str(repository)
    assert [path for path in folder.rglob("*") if path.is_file() and path.name != ".usage"] == []


@pytest.mark.parametrize(
    "name",
    ["../../../tls/ca.key", "%2e%2e/%2e%2e/tls/ca.key", "packs/..%2f..%2fx", ".usage", "packs/.uploads/x", "other",
     "config/x", "packs%00", "packs/%0a", "PACKS/x", "packs/" + "a" * 200, quote("/etc/passwd", safe="")],
)  # fmt: skip
def test_no_name_leaves_the_folder(server: VaultServer, token: Path, name: str) -> None:
    repository, raw = server.repository(), Raw(server, token)
    headers = {"If_None_Match": "*", "Repr_Digest": DIGEST}
    assert raw("PUT", f"/api/v1/vault/{repository}/objects/{name}", b"x", **headers)[0] in (404, 405, 422)
    for method in ("GET", "HEAD", "DELETE"):
        assert raw(method, f"/api/v1/vault/{repository}/objects/{name}")[0] in (404, 405, 422)


def test_ranges_as_others_ask_for_them(server: VaultServer, token: Path, store: Store) -> None:
    store.put(PACK, [b"0123456789"])
    raw, path = Raw(server, token), f"/api/v1/vault/{store.url.rpartition('/')[2]}/objects/{PACK}"
    status, headers = raw("GET", path, Range="bytes=2-4")
    assert status == 206 and headers["content-range"] == "bytes 2-4/10" and headers["content-length"] == "3"
    assert raw("GET", path, Range="bytes=10-")[0] == 416
    assert raw("GET", path, Range="bytes=0-1,4-5")[0] == 400
    status, headers = raw("GET", path)
    assert status == 200 and headers["content-length"] == "10" and headers["accept-ranges"] == "bytes"


def test_without_a_token_nothing_is_told(server: VaultServer, store: Store, tmp_path: Path) -> None:
    store.put(PACK, [b"x"])
    (tmp_path / "token").write_text("lox_api_nothing")
    raw = Raw(server, tmp_path / "token")
    path = f"/api/v1/vault/{store.url.rpartition('/')[2]}/objects"
    statuses = [raw(method, f"{path}/{PACK}")[0] for method in ("GET", "HEAD", "PUT", "DELETE")]
    assert [*statuses, raw("GET", path)[0]] == [401] * 5
    with pytest.raises(Missing):
        store.get("packs/aa/nothing")


@pytest.mark.slow
def test_memory_of_the_server_is_flat_while_many_put_and_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 at a time: what they need is a few MiB each, whatever the size of the objects, and comes once."""
    with vault_server(tmp_path / "server") as server:
        monkeypatch.setenv("LOX_VAULT_TOKEN_FILE", str(server.token()))
        monkeypatch.setenv("LOX_VAULT_CA_FILE", str(server.ca))
        assert server.process is not None
        memory = psutil.Process(server.process.pid).memory_info
        store, data = open_store(server.place(server.repository())), os.urandom(24 << 20)

        def put_and_get(number: int) -> None:
            name = f"packs/aa/{number:032x}"
            store.put(name, [data])
            assert store.get(name, 0, len(data) + 1) == data
            store.delete(name)

        before, after = memory().rss, []
        with ThreadPoolExecutor(16) as pool:
            for _ in range(3):
                list(pool.map(put_and_get, range(16)))
                after.append(memory().rss)
        assert after[0] - before < 160 << 20, "of 768 MiB that went through"
        assert after[2] - after[0] < 24 << 20
