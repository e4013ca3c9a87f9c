from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.chunking import ChunkerParams
from model.errors import Damaged, Exists, LoxError, Missing, NewerFormat, NoRepository, UsageError, WrongPassword
from repository.config import Config, Operation
from repository.credentials import Credentials
from repository.keys import ChunkKeys, KdfParams
from repository.repository import Repository
from repository.seal import Cipher, ObjectKind
from repository.store import LocalStore, MemoryStore
from repository.store.wrappers import Fault, FaultyStore, RecordingStore
from tests.repository.damage import damaged, every_flip

CHEAP = KdfParams(64, 1, 1)
PARAMS = ChunkerParams(average=64 << 10)


def make(password: str | None = "pw") -> tuple[MemoryStore, Repository, str | None]:
    store = MemoryStore()
    encryption = "none" if password is None else "aes-256-gcm"
    repository, code = Repository.init(store, password, PARAMS, encryption, CHEAP)
    return store, repository, code


def exchange(store: MemoryStore, name: str, data: bytes) -> None:
    store.delete(name)
    store.put(name, [data])


@pytest.mark.parametrize("password", ["pw", None])
def test_what_is_created_opens(password: str | None) -> None:
    store, created, code = make(password)
    opened = Repository.open(store, password)
    assert opened.id == created.id
    assert opened.keys == created.keys
    assert opened.chunker == PARAMS
    assert opened.encrypted == (password is not None) == Repository.is_encrypted(store)
    assert (code is not None) == (password is not None)


def test_the_recovery_code_opens_it() -> None:
    store, created, code = make()
    assert code is not None
    opened = Repository.open(store, code.lower())
    assert opened.keys == created.keys
    with pytest.raises(UsageError):
        opened.change_password("new")


def test_a_wrong_password_is_a_wrong_password() -> None:
    store, _, _ = make()
    for wrong in ("other", None):
        with pytest.raises(WrongPassword):
            Repository.open(store, wrong)


def test_two_repositories_share_nothing() -> None:
    (_, one, _), (_, two, _) = make(), make()
    assert one.id != two.id
    assert one.keys.id_key != two.keys.id_key


def test_no_repository(tmp_path: Path) -> None:
    for store in (MemoryStore(), LocalStore(str(tmp_path / "nothing")), LocalStore(__file__)):
        with pytest.raises(NoRepository) as caught:
            Repository.open(store, "pw")
        assert caught.value.exit_code == 10
        with pytest.raises(NoRepository):
            Repository.is_encrypted(store)
    assert not (tmp_path / "nothing").exists()


def test_a_place_that_is_taken_is_not_created_again() -> None:
    store, created, _ = make()
    with pytest.raises(UsageError):
        Repository.init(store, "pw", kdf=CHEAP)
    assert Repository.open(store, "pw").keys == created.keys
    orphaned = MemoryStore()
    orphaned.put("packs/aa/aa", [b"data of a repository that lost its config"])
    with pytest.raises(UsageError):
        Repository.init(orphaned, "pw", kdf=CHEAP)


def test_password_and_encryption_go_together() -> None:
    with pytest.raises(UsageError):
        Repository.init(MemoryStore(), None)
    with pytest.raises(UsageError):
        Repository.init(MemoryStore(), "pw", encryption="none")
    with pytest.raises(UsageError):
        Repository.init(MemoryStore(), "", kdf=CHEAP)
    with pytest.raises(LoxError):
        Repository.init(MemoryStore(), "pw", encryption="rot13")


def test_the_config_is_stored_last() -> None:
    store = RecordingStore(MemoryStore())
    Repository.init(store, "pw", kdf=CHEAP)
    assert [call.name.partition("/")[0] for call in store.of("put")] == ["keys", "keys", "config"]


def test_an_interrupted_init_can_be_repeated() -> None:
    inner = MemoryStore()
    with pytest.raises(Exists):
        Repository.init(FaultyStore(inner, [Fault("put", "keys/", Exists("x"), skip=1)]), "pw", kdf=CHEAP)
    with pytest.raises(Damaged) as caught:
        Repository.open(inner, "pw")
    assert "init" in caught.value.hint
    created, _ = Repository.init(inner, "pw", kdf=CHEAP)
    assert Repository.open(inner, "pw").keys == created.keys


def test_losing_a_race_of_two_inits_is_told() -> None:
    inner = MemoryStore()
    Repository.init(inner, "pw", kdf=CHEAP)
    blind = FaultyStore(inner, [])
    blind.list = lambda prefix="": iter([])  # type: ignore[method-assign]
    with pytest.raises(UsageError):
        Repository.init(blind, "pw", kdf=CHEAP)


def test_an_open_repository_in_the_place_of_ours_gets_no_data() -> None:
    ours, _, _ = make()
    theirs, _, _ = make(None)
    with pytest.raises(UsageError):
        Repository.open(theirs, "pw")
    exchange(ours, "config", theirs.get("config"))
    for password in ("pw", None):
        with pytest.raises(LoxError):
            Repository.open(ours, password)
    with pytest.raises(Damaged):
        Repository.is_encrypted(ours)


def test_a_config_of_another_repository_does_not_open() -> None:
    (one, _, _), (two, _, _) = make(), make()
    exchange(one, "config", two.get("config"))
    with pytest.raises(Damaged):
        Repository.open(one, "pw")


def test_every_byte_of_the_config_counts() -> None:
    store, repository, _ = make()
    cipher = Cipher(repository.keys)
    for wrong in every_flip(store.get("config")):
        with pytest.raises(Damaged):
            cipher.open_object(ObjectKind.CONFIG, "config", wrong)
    exchange(store, "config", store.get("config")[:-1])
    with pytest.raises(Damaged):
        Repository.open(store, "pw")


def test_a_huge_config_is_not_read_whole() -> None:
    store = RecordingStore(MemoryStore())
    Repository.init(store, "pw", kdf=CHEAP)
    get = store.inner.get
    lengths: list[int | None] = []

    def watched(name: str, offset: int = 0, length: int | None = None) -> bytes:
        lengths.append(length)
        return get(name, offset, length)

    store.inner.get = watched  # type: ignore[method-assign]
    Repository.open(store, "pw")
    assert None not in lengths


def _config_with(**fields: object) -> bytes:
    document = json.loads(Config(bytes(16), "aes-256-gcm", PARAMS, 5).encode())
    return json.dumps(document | fields).encode()


def test_a_config_comes_back_as_it_was() -> None:
    features = ((Operation.READ, frozenset({"a", "b"})), (Operation.GC, frozenset({"c"})))
    shared = ChunkKeys(b"i" * 32, b"c" * 32)
    for config in (
        Config(bytes(16), "none", PARAMS, 5),
        Config(bytes(16), "aes-256-gcm", PARAMS, 5, features),
        Config(bytes(16), "aes-256-gcm", PARAMS, 5, chunk_keys=shared),
    ):
        assert Config.decode(config.encode()) == config
    assert (b"i" * 8).hex() not in repr(config) and "iiii" not in repr(config)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": 2},
        {"encryption": "kyber"},
        {"chunk_id": "blake3"},
        {"chunker": {"kind": "ae", "minimum": 1, "average": 2, "maximum": 3, "normalization": 0}},
    ],
)
def test_what_a_newer_version_configured_is_newer(fields: dict[str, object]) -> None:
    with pytest.raises(NewerFormat):
        Config.decode(_config_with(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"version": "1"},
        {"repo_id": "00"},
        {"created": None},
        {"features": {"read": "all"}},
        {"features": []},
        {"chunker": {"kind": "gear", "minimum": 4096, "average": 5000, "maximum": 1 << 22, "normalization": 2}},
        {"chunker": {"kind": "gear", "minimum": 4096, "average": 1 << 60, "maximum": 1 << 61, "normalization": 2}},
        {"chunker": {"kind": "gear"}},
        {"chunk_keys": None},
        {"chunk_keys": {"id": "00" * 32}},
        {"chunk_keys": {"id": "00" * 32, "chunker": "00" * 31}},
        {"encryption": "none", "chunk_id": "sha-256", "chunk_keys": {"id": "00" * 32, "chunker": "00" * 32}},
    ],
)
def test_an_impossible_config_is_damage(fields: dict[str, object]) -> None:
    with pytest.raises(Damaged):
        Config.decode(_config_with(**fields))


@given(damaged(Config(bytes(16), "none", PARAMS, 5).encode()))
def test_no_parser_error_gets_out_of_a_config(data: bytes) -> None:
    try:
        Config.decode(data)
    except (Damaged, NewerFormat):
        pass


def test_a_feature_this_version_lacks_stops_what_needs_it_only() -> None:
    store, repository, _ = make(None)
    for operation, opens in ((Operation.READ, False), (Operation.GC, True)):
        config = Config(repository.id, "none", PARAMS, 5, ((operation, frozenset({"holographic"})),))
        exchange(store, "config", repository.cipher.seal_object(ObjectKind.CONFIG, "config", config.encode()))
        with pytest.raises(NewerFormat) as caught:
            config.require(operation)
        assert "holographic" in str(caught.value)
        if opens:
            Repository.open(store, None).config.require(Operation.WRITE)
        else:
            with pytest.raises(NewerFormat):
                Repository.open(store, None)


def test_objects(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    repository, _ = Repository.init(store, "pw", kdf=CHEAP)
    size = repository.put_object(ObjectKind.INDEX, "index/aa", b"records")
    assert size == store.size("index/aa")
    assert repository.get_object(ObjectKind.INDEX, "index/aa") == b"records"
    with pytest.raises(Exists):
        repository.put_object(ObjectKind.INDEX, "index/aa", b"others")
    with pytest.raises(Missing):
        repository.get_object(ObjectKind.INDEX, "index/bb")


@pytest.mark.parametrize("password", ["pw", None])
def test_another_process_attaches_without_the_password(tmp_path: Path, password: str | None) -> None:
    encryption = "none" if password is None else "aes-256-gcm"
    repository, _ = Repository.init(LocalStore(str(tmp_path / "r")), password, PARAMS, encryption, CHEAP)
    repository.put_object(ObjectKind.INDEX, "index/aa", b"records")
    credentials = tmp_path / "credentials"
    credentials.write_bytes(pickle.dumps(repository.credentials()))
    script = """if True:
        import pickle, sys
        from repository.repository import Repository
        from repository.seal import ObjectKind
        repository = Repository.attach(sys.argv[1], pickle.load(open(sys.argv[2], "rb")))
        assert repository.get_object(ObjectKind.INDEX, "index/aa") == b"records"
        print(repository.id.hex(), repository.chunker.average)
    """
    run = subprocess.run(
        [sys.executable, "-c", script, repository.store.url, str(credentials)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [repository.id.hex(), str(PARAMS.average)]


def test_attaching_reads_nothing() -> None:
    store, repository, _ = make()
    recording = RecordingStore(store)
    assert Repository.attach(recording, repository.credentials()).keys == repository.keys
    assert not recording.calls


def test_nothing_secret_is_printed_or_pickled() -> None:
    _, repository, _ = make()
    credentials = repository.credentials()
    assert credentials.unlocked is not None
    shown = f"{repository!r} {repository} {credentials!r} {credentials} {repository.keys!r} {repository.config!r}"
    for secret in (
        credentials.unlocked.private,
        repository.keys.epochs[0].object_key,
        repository.keys.master,
        repository.keys.id_key,
    ):
        assert secret is not None
        assert secret.hex() not in shown
        assert repr(secret)[2:-1] not in shown
    with pytest.raises(TypeError):
        pickle.dumps(repository)
    assert pickle.loads(pickle.dumps(credentials)) == credentials
    assert isinstance(credentials, Credentials)


def test_keys_are_managed() -> None:
    store, repository, code = make("one")
    assert code is not None
    repository.add_password("two", "second", CHEAP)
    _, other_code = repository.add_recovery_code("paper")
    assert [slot.label for slot in repository.list_keys().slots][2:] == ["second", "paper"]
    for secret in ("one", "two", code, other_code):
        assert Repository.open(store, secret).keys == repository.keys
    repository.remove_key(repository.list_keys().slots[2].id)
    with pytest.raises(WrongPassword):
        Repository.open(store, "two")
    assert Repository.open(store, "one").keys == repository.keys


def test_a_changed_password_is_the_only_one() -> None:
    store, _, code = make("old")
    repository = Repository.open(store, "old")
    repository.change_password("new", CHEAP)
    with pytest.raises(WrongPassword):
        Repository.open(store, "old")
    assert Repository.open(store, "new").keys == repository.keys
    assert code is not None
    assert Repository.open(store, code).keys == repository.keys
    repository.change_password("newer", CHEAP)
    assert len(repository.list_keys().slots) == 2


def test_a_password_change_that_fails_leaves_the_old_one() -> None:
    store, _, _ = make("old")
    faulty = FaultyStore(store, [Fault("put", "keys/", Exists("x"))])
    with pytest.raises(Exists):
        Repository.open(faulty, "old").change_password("new", CHEAP)
    Repository.open(store, "old")


def test_a_repository_without_encryption_has_no_keys() -> None:
    _, repository, _ = make(None)
    with pytest.raises(UsageError):
        repository.add_password("x")
    with pytest.raises(UsageError):
        repository.add_recovery_code("x")
    with pytest.raises(UsageError):
        repository.remove_key("x")
    assert repository.list_keys().slots == ()


@given(st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable()))
def test_any_text_is_a_password(password: str) -> None:
    store, created, _ = make(password)
    assert Repository.open(store, password).keys == created.keys


def test_opening_loads_nothing_heavy() -> None:
    script = """if True:
        import sys, repository.keys, repository.repository
        print([name for name in ("numpy", "pyarrow", "ray", "lz4", "kernels") if name in sys.modules])
    """
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
