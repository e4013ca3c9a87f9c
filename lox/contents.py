"""Looking into snapshots: which there are, and what the manifest of one holds."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from lox.escape import safe
from lox.opening import open_repository
from lox.output import Output, json_line, output_of
from model.errors import Damaged, LoxError, Missing, NotFound, StoreError
from model.exits import ExitCode

if TYPE_CHECKING:
    from repository.annotations import Annotations
    from repository.document_cache import Listed
    from repository.fetch import ChunkFetcher
    from repository.index import ChunkIndex
    from repository.manifest_reader import ManifestReader
    from repository.repository import Repository
    from repository.snapshot import Snapshot, Snapshots
    from repository.store import Store

MODULES = ("repository.snapshot", "repository.fetch", "repository.query")
ID_SHOWN = 8  # digits of a snapshot id in text; any unique prefix is understood


class Catalogue:
    """The snapshots of one repository and their manifests. The index is loaded when the first manifest is opened."""

    def __init__(self, repository: Repository, output: Output, listed: Mapping[str, Listed] | None = None) -> None:
        self.repository = repository
        self._listed = dict(listed or {})
        self._output = output
        self._told: set[str] = set()
        self._index: ChunkIndex | None = None
        self._fetcher: ChunkFetcher | None = None

    @classmethod
    def open(
        cls, ctx: click.Context, modules: Sequence[str] = MODULES, prefixes: Sequence[str] = ("snapshots/",)
    ) -> Catalogue:
        """The catalogue of the repository this command line names; `modules` are those it will need, below `prefixes`
        lie the objects it will read: they are listed while the key is derived."""
        listed: dict[str, Listed] = {}

        def list_names(store: Store) -> None:
            with contextlib.suppress(StoreError):  # told when it is asked again
                for prefix in prefixes:
                    listed[prefix] = list(store.list(prefix))

        repository = open_repository(ctx, modules, list_names)
        return cls(repository, output_of(ctx), listed)

    def snapshots(self) -> Snapshots:
        """All of them, oldest first, and those that cannot be read."""
        from repository.cache_dir import default_cache_dir
        from repository.snapshot import SNAPSHOT_PREFIX, load_all

        return load_all(self.repository, default_cache_dir(), self._listed.pop(SNAPSHOT_PREFIX, None))

    def annotations(self) -> Annotations:
        """The notes of all of them."""
        from repository.annotations import NOTES_PREFIX, load_annotations
        from repository.cache_dir import default_cache_dir

        return load_annotations(self.repository, None, default_cache_dir(), self._listed.pop(NOTES_PREFIX, None))

    def snapshot(self, reference: str) -> Snapshot:
        """The one meant by an id, the beginning of one, or ``latest``. Raises NotFound."""
        from repository.snapshot import choose

        return choose(self.snapshots(), reference, self.repository.store.url)

    @property
    def index(self) -> ChunkIndex:
        """The chunk index, through the local cache."""
        if self._index is None:
            from repository.cache_dir import default_cache_dir
            from repository.index import ChunkIndex

            self._index = ChunkIndex.load(self.repository, default_cache_dir(), self.tell_damage)
        return self._index

    @property
    def fetcher(self) -> ChunkFetcher:
        """Gets chunks by id."""
        if self._fetcher is None:
            from repository.cache_dir import default_cache_dir
            from repository.fetch import ChunkFetcher
            from repository.reading_index import ReadingIndex

            index = ReadingIndex(self.repository, default_cache_dir(), self.tell_damage)
            self._fetcher = ChunkFetcher(self.repository, index)
        return self._fetcher

    def tell_damage(self, error: Damaged) -> None:
        """A warning about damage that does not keep the answer from being given; each is told once."""
        if (text := safe(str(error))) not in self._told:
            self._told.add(text)
            fields: dict[str, object] = {"message": text, "exit_code": int(error.exit_code)}
            click.echo(json_line("problem", fields) if self._output.json else f"lox: {text}", err=True)

    def manifest(self, snapshot: Snapshot) -> ManifestReader:
        """The table of entries of `snapshot`."""
        from repository.manifest_reader import ManifestReader

        return ManifestReader(snapshot.root, lambda ids: self._fetch(snapshot, ids))

    def _fetch(self, snapshot: Snapshot, ids: Sequence[bytes]) -> list[bytes]:
        """Chunks of the manifest of `snapshot`. Whoever looks into snapshots holds up no prune: what it moved
        elsewhere meanwhile is looked for again, and what it purged is gone. Raises NotFound, Damaged, StoreError."""
        try:
            return self.fetcher.fetch(ids)
        except (Damaged, Missing) as error:
            if not self.repository.store.exists(snapshot.name):
                raise NotFound(
                    "the snapshot was forgotten and purged while it was read",
                    subject=snapshot.short_id,
                    hint="lox snapshots lists those that are left",
                ) from error
        self._fetcher = None
        return self.fetcher.fetch(ids)


def tell_unreadable(output: Output, unreadable: Sequence[tuple[str, LoxError]]) -> ExitCode:
    """Tells of snapshots that could not be read, and gives the exit code that says so."""
    for name, error in unreadable:
        output.event("problem", object=name, message=safe(str(error)), exit_code=int(error.exit_code))
        output.note(f"lox: {safe(str(error))}")
    return unreadable[0][1].exit_code if unreadable else ExitCode.OK
