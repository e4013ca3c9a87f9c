"""The repository: create, open, and the objects and keys that everything else goes through."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from model.chunking import ChunkerParams
from model.errors import Damaged, Exists, Missing, NoRepository, UsageError, WrongPassword
from repository.config import CONFIG_NAME, Config, Operation
from repository.keys import KEY_SIZE, REPO_ID_SIZE, ChunkKeys, KdfParams, KeyRing
from repository.seal import OBJECT_MAX, Cipher, CipherKind, Envelope, ObjectKind
from repository.slots import (
    FOLDER,
    KeySlot,
    SlotListing,
    create_password_slot,
    create_recovery_slot,
    read_slots,
    remove_slot,
    unlock,
)
from repository.store import Store, open_store

if TYPE_CHECKING:
    from repository.pack import PackReader


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """All it takes to attach to a repository without its password. A secret: pass it through private files only."""

    repo_id: bytes
    config: bytes
    master: bytes | None

    def __repr__(self) -> str:
        return f"Credentials({self.repo_id.hex()}, secret)"


class Repository:
    """An open repository. Thread-safe; not pickled: other processes `attach` with its `credentials`."""

    def __init__(self, store: Store, config: Config, master: bytes | None, slot: KeySlot | None = None) -> None:
        self.store = store
        self.config = config
        own = KeyRing.public(config.repo_id) if master is None else KeyRing.of(master, config.repo_id)
        self.keys = own.with_chunk_keys(config.chunk_keys)
        self.cipher = Cipher(self.keys)
        self.slot = slot  # the key slot that opened it, None without encryption or when attached
        self._master = master

    @classmethod
    def init(
        cls,
        store: Store,
        password: str | None,
        chunker: ChunkerParams | None = None,
        encryption: str = "aes-256-gcm",
        kdf: KdfParams | None = None,
        related: Repository | None = None,
    ) -> tuple[Repository, str | None]:
        """Create a repository in an empty place, and the recovery code that opens it should the password be lost.

        With `related` it cuts and names chunks as that repository does, whatever `chunker` says: what is copied from
        one to the other keeps its ids.

        The config is stored last: before it is there, there is no repository. Raises UsageError if there is one
        already or if the password and `encryption` do not go together.
        """
        chunker, shared = (chunker or ChunkerParams(), None) if related is None else _shared(related, encryption)
        config = Config(os.urandom(REPO_ID_SIZE), encryption, chunker, chunk_keys=shared)
        if (encryption == "none") != (password is None):
            raise UsageError("a password goes with encryption, and encryption with a password", subject=encryption)
        for prefix in (CONFIG_NAME, "packs/", "snapshots/"):
            if any(True for _ in store.list(prefix)):
                raise UsageError("there is a repository here already", subject=store.url, why=f"found {prefix}")
        master = slot = code = None
        if password is not None:
            master = os.urandom(KEY_SIZE)
            slot = create_password_slot(store, config.repo_id, master, password, "password of init", kdf)
            _, code = create_recovery_slot(store, config.repo_id, master, "recovery code of init")
        repository = cls(store, config, master, slot)
        try:
            repository.put_object(ObjectKind.CONFIG, CONFIG_NAME, config.encode())
        except Exists as error:
            raise UsageError("there is a repository here already", subject=store.url) from error
        return repository, code

    @classmethod
    def open(cls, store: Store, password: str | None) -> Repository:
        """Open with a password or recovery code; None for a repository without encryption.

        Raises NoRepository, WrongPassword, Damaged, NewerFormat. A password given for a repository that is not
        encrypted is a UsageError: somebody with access to the store may have put an open one in the place of ours.
        """
        envelope = _read_config(store)
        if envelope.cipher is CipherKind.NONE:
            if password is not None:
                raise UsageError(
                    "a password was given, but the repository is not encrypted",
                    subject=store.url,
                    hint="if you expected encryption, do not write to this repository; else leave the password out",
                )
            return cls._opened(store, envelope, None, None)
        if password is None:
            raise WrongPassword("the repository is encrypted and no password was given", subject=store.url)
        master, slot = unlock(store, envelope.repo_id, password)
        return cls._opened(store, envelope, master, slot)

    @classmethod
    def attach(cls, store: Store | str, credentials: Credentials) -> Repository:
        """Open as another process did: reads nothing and derives nothing from a password."""
        place = open_store(store) if isinstance(store, str) else store
        return cls(place, Config.decode(credentials.config), credentials.master)

    @staticmethod
    def is_encrypted(store: Store) -> bool:
        """Whether `open` needs a password. Raises NoRepository, Damaged, NewerFormat."""
        return _read_config(store).cipher is not CipherKind.NONE

    @classmethod
    def _opened(cls, store: Store, envelope: Envelope, master: bytes | None, slot: KeySlot | None) -> Repository:
        keys = KeyRing.public(envelope.repo_id) if master is None else KeyRing.of(master, envelope.repo_id)
        config = Config.decode(Cipher(keys).open_envelope(ObjectKind.CONFIG, CONFIG_NAME, envelope))
        if config.repo_id != envelope.repo_id or (config.encryption == "none") != (master is None):
            raise Damaged("the config contradicts its envelope", subject=CONFIG_NAME)
        config.require(Operation.READ)
        return cls(store, config, master, slot)

    @property
    def id(self) -> bytes:
        return self.config.repo_id

    @property
    def chunker(self) -> ChunkerParams:
        return self.config.chunker

    @property
    def encrypted(self) -> bool:
        return self._master is not None

    @cached_property
    def packs(self) -> PackReader:
        """Opens the packs of this repository."""
        from repository.pack import PackReader  # needs NumPy, whose import opening a repository need not wait for

        return PackReader(self.keys)

    def credentials(self) -> Credentials:
        """A picklable secret for `attach`."""
        return Credentials(self.id, self.config.encode(), self._master)

    def put_object(self, kind: ObjectKind, name: str, plain: bytes) -> int:
        """Seal and store an object; the bytes it takes. Raises Exists and other StoreErrors."""
        sealed = self.cipher.seal_object(kind, name, plain)
        self.store.put(name, [sealed])
        return len(sealed)

    def get_object(self, kind: ObjectKind, name: str) -> bytes:
        """Read and open an object. Raises Missing and other StoreErrors, Damaged, NewerFormat."""
        return self.cipher.open_object(kind, name, self.store.get(name, 0, OBJECT_MAX + 1))

    def list_keys(self) -> SlotListing:
        """The key slots, and those that cannot be read."""
        return read_slots(self.store, self.id)

    def add_password(self, password: str, label: str = "", kdf: KdfParams | None = None) -> KeySlot:
        """A further password that opens the repository."""
        return create_password_slot(self.store, self.id, self._secret(), password, label, kdf)

    def add_recovery_code(self, label: str = "") -> tuple[KeySlot, str]:
        """A further recovery code, shown once."""
        return create_recovery_slot(self.store, self.id, self._secret(), label)

    def remove_key(self, prefix: str) -> KeySlot:
        """Delete the key slot whose id begins with `prefix`. Raises NotFound, UsageError for the last one."""
        self._secret()
        return remove_slot(self.store, self.id, prefix)

    def change_password(self, password: str, kdf: KdfParams | None = None) -> KeySlot:
        """Replace the password slot that opened this repository: the new one is stored before the old one goes."""
        old = self.slot
        if old is None or old.kdf is None:
            raise UsageError("opened without a password: there is none to change", hint="lox key add adds one")
        new = create_password_slot(self.store, self.id, self._secret(), password, old.label, kdf)
        self.store.delete(old.name)
        self.slot = new
        return new

    def _secret(self) -> bytes:
        if self._master is None:
            raise UsageError("the repository is not encrypted: it has no keys", subject=self.store.url)
        return self._master

    def __repr__(self) -> str:
        return f"Repository({self.id.hex()} at {self.store.url})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a repository is not pickled; attach with its credentials")


def _shared(related: Repository, encryption: str) -> tuple[ChunkerParams, ChunkKeys | None]:
    """What a new repository has from `related`. Raises UsageError if only one of the two is encrypted."""
    keys = related.keys
    if related.encrypted != (encryption != "none"):
        raise UsageError(
            "repositories cut and name chunks alike only if both are encrypted, or none",
            subject=related.store.url,
            hint="leave out --encryption none" if related.encrypted else "use --encryption none",
        )
    return related.chunker, None if keys.id_key is None else ChunkKeys(keys.id_key, keys.chunker_key)


def _read_config(store: Store) -> Envelope:
    try:
        sealed = store.get(CONFIG_NAME, 0, OBJECT_MAX + 1)
    except Missing as error:
        if any(True for _ in store.list(FOLDER)):
            raise Damaged(
                "the repository has keys but no config",
                subject=store.url,
                hint="if lox init was interrupted, run it again; else restore the file config from a copy",
            ) from error
        raise NoRepository("no repository here", subject=store.url, hint="lox init creates one") from error
    envelope = Envelope.parse(sealed, CONFIG_NAME)
    if envelope.cipher is CipherKind.NONE and any(True for _ in store.list(FOLDER)):
        raise Damaged(
            "the repository has keys, but its config says it is not encrypted",
            subject=store.url,
            hint="somebody may have exchanged the config; do not write to this repository",
        )
    return envelope
