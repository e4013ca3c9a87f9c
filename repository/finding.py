"""Finding a repository in a store: its sealed config, and whether what lies there agrees with itself."""

from __future__ import annotations

from model.errors import Damaged, Missing, NoRepository
from repository.config import CONFIG_NAME
from repository.rereads import Rereads
from repository.seal import OBJECT_MAX, CipherKind, Envelope
from repository.slots import FOLDER
from repository.store import Store


def read_config(store: Store, rereads: Rereads | None = None) -> Envelope:
    """The envelope of the config, whose checksum fits. Raises NoRepository, Damaged, NewerFormat, StoreError."""
    try:
        envelope = (rereads or Rereads()).read(
            CONFIG_NAME, lambda: Envelope.parse(store.get(CONFIG_NAME, 0, OBJECT_MAX + 1), CONFIG_NAME)
        )
    except Missing as error:
        if any(True for _ in store.list(FOLDER)):
            raise Damaged(
                "the repository has keys but no config",
                subject=store.url,
                hint="if lox init was interrupted, run it again; else restore the file config from a copy",
            ) from error
        raise NoRepository("no repository here", subject=store.url, hint="lox init creates one") from error
    if envelope.cipher is CipherKind.NONE and any(True for _ in store.list(FOLDER)):
        raise Damaged(
            "the repository has keys, but its config says it is not encrypted",
            subject=store.url,
            hint="somebody may have exchanged the config; do not write to this repository",
        )
    return envelope
