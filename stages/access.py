"""How a stage in another process reaches the repository: by reference here, by a secret of the run elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from model.errors import LoxError, StoreError
from repository.cache_dir import default_cache_dir
from repository.condemned import condemned_packs
from repository.config import CONFIG_NAME
from repository.credentials import Credentials
from repository.fetch import ChunkFetcher
from repository.index import ChunkIndex
from repository.reading_index import ReadingIndex
from repository.repository import Repository
from repository.seal import OBJECT_MAX
from repository.store import Store, open_store
from repository.store.measured import REQUESTS
from repository.store.mirrored import Mirror, MirroredStore
from repository.verified import VerifiedLog
from runtime.private import Secret
from runtime.stage import Context

TELL_SECONDS = 0.1  # between two reports of a lane: what one that is killed did not tell is lost

_opened: dict[tuple[str, tuple[str, ...], str], Repository] = {}
_opening = threading.Lock()
_indexing = threading.Lock()


class RepositoryAccess:
    """A repository that can be handed to any lane.

    In this process it is the open repository itself. Before it can be pickled for another process `secure` makes a
    secret of the credentials; what travels is where to find it, never a key.
    """

    def __init__(self, repository: Repository | None, condemned: frozenset[bytes] | None = None) -> None:
        self._repository = repository  # None: for a plan that is only looked at, or not attached here yet
        self._index: ChunkIndex | None = None
        self._condemned = condemned  # packs not to be relied on; None: not known yet
        self._url = repository.store.url if repository is not None else ""
        self._mirrors = _mirrors_of(repository)
        self._secret: Secret | None = None
        self._fetcher: ChunkFetcher | None = None

    @property
    def repository(self) -> Repository:
        """The open repository, attached to on first use in this process."""
        if self._repository is None:
            assert self._secret is not None, "it came from another process"
            self._repository = _attach(self._url, self._mirrors, self._secret)
        return self._repository

    @property
    def index(self) -> ChunkIndex:
        """The index as it was when it was first asked for in this process, without packs that are lost or condemned,
        and without those of write-only machines that this host has not read and proved."""
        if self._index is None:
            if self._condemned is None:
                self._condemned = condemned_packs(self.repository)  # before the index: later ones are not relied on
            self._index = ChunkIndex.load(
                self.repository,
                default_cache_dir(),
                only_present=True,
                without=self._condemned,
                proved=self._proved_packs(),
            )
        return self._index

    @property
    def reading_index(self) -> ChunkIndex:
        """As `index`, with copies in condemned packs as the last resort: for reading, not for relying on."""
        index = self.index
        if self.repository.write_only or not (self._condemned or index.pack_table["written"].any()):
            return index
        index = ChunkIndex.load(self.repository, default_cache_dir(), only_present=True)
        return index.doubting_written().doubting_packs(self._condemned or ())

    @property
    def fetcher(self) -> ChunkFetcher:
        """Gets single chunks by id, wherever a copy of them is; made when it is first asked for in this process."""
        repository = self.repository
        with _indexing:
            if self._fetcher is None:
                index = ReadingIndex(repository, default_cache_dir(), lambda error: None)  # who plans the run tells
                self._fetcher = ChunkFetcher(repository, index)
            return self._fetcher

    def _proved_packs(self) -> frozenset[bytes] | None:
        """Packs that were sound when they were read last; None on a write-only machine, which relies on its own."""
        if self.repository.write_only:
            return None
        log = VerifiedLog.open(self.repository, default_cache_dir())
        return frozenset(log.times) - log.damaged

    @property
    def services(self) -> dict[str, Any]:
        """What lanes elsewhere tell this process of the repository, for the `host` of an executor."""
        return {_rereads_of(self.repository): self.repository.rereads}

    def report_to(self, context: Context) -> None:
        """What the lane that opens in `context` reads twice is told to the process that started the run."""
        rereads = self.repository.rereads
        service = context.services.get(_rereads_of(self.repository), rereads)
        if service is not rereads:
            rereads.counted_at = service

    def secure(self, keep: Callable[[bytes], Secret] | None) -> None:
        """Let lanes in other processes attach. `keep` is the executor's; None: it has none."""
        if keep is not None:
            self._secret = keep(self.repository.credentials().encode())

    def __getstate__(self) -> dict[str, Any]:
        assert self._secret is not None, "secure() comes before a repository leaves the process"
        fresh: dict[str, Any] = {"_repository": None, "_index": None, "_condemned": None, "_fetcher": None}
        return fresh | {"_url": self._url, "_mirrors": self._mirrors, "_secret": self._secret}


def _rereads_of(repository: Repository) -> str:
    return f"rereads of {repository.id.hex()}"


def _mirrors_of(repository: Repository | None) -> tuple[str, ...]:
    if repository is None or not isinstance(repository.store, MirroredStore):
        return ()
    return tuple(mirror.store.url for mirror in repository.store.mirrors)


def _attach(url: str, mirrors: tuple[str, ...], secret: Secret) -> Repository:
    with _opening:
        key = url, mirrors, secret.name
        if key not in _opened:
            repository = Repository.attach(url, Credentials.decode(secret.value))
            if mirrors:
                store = repository.store
                repository.store = MirroredStore(store, [_mirror_here(store, one) for one in mirrors])
            _opened[key] = repository
        return _opened[key]


def _mirror_here(primary: Store, url: str) -> Mirror:
    """A mirror that the host which started the run has looked at. If something else lies at its place here, or nothing,
    it is in trouble: what was sent to it would be lost in a folder of that name."""
    store = open_store(url)
    try:
        same = store.get(CONFIG_NAME, 0, OBJECT_MAX + 1) == primary.get(CONFIG_NAME, 0, OBJECT_MAX + 1)
    except LoxError as error:
        return Mirror(store, error)
    return Mirror(store, None if same else StoreError("not the same mirror on this host", subject=url))


class RequestsTold:
    """Lets the process that started the run know which requests of stores were made in the process of this lane."""

    def __init__(self, context: Context) -> None:
        service = context.services.get("requests", REQUESTS)
        self._service = None if service is REQUESTS else service  # None: it is that process
        self._next = time.monotonic()

    def tell(self, last: bool = False) -> None:
        """Now and then, and when the lane has nothing to do for the moment (`last`)."""
        if self._service is not None and (last or time.monotonic() >= self._next):
            self._next = time.monotonic() + TELL_SECONDS
            tally = REQUESTS.take()
            if tally.requests:
                self._service.add(tally)
