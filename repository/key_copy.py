"""A copy of all that is needed to open a repository, kept elsewhere: config, key slots, epochs, notes on writers.

    file = JSON: version, repository id, objects by name (base64), checksum

It holds no secret that the store does not hold: without a password or recovery code it opens nothing. Should the
folder `keys/` or the config be lost or damaged, it brings the repository back; without, all data would be lost.
"""

from __future__ import annotations

from base64 import b64decode, b64encode

from model.errors import Damaged, Exists, LoxError, Missing, UsageError
from repository.config import CONFIG_NAME
from repository.documents import decode_document, document_checksum, encode_document, take, take_hex
from repository.epochs import EPOCH_MAX
from repository.keys import REPO_ID_SIZE
from repository.seal import Envelope
from repository.slots import FOLDER
from repository.store import Store

COPY_MAX = 512 << 20  # bytes of a file
OBJECTS_MAX = 10_000
OBJECT_BYTES_MAX = 64 << 20

_VERSION = 1


def export_keys(store: Store, repo_id: bytes) -> bytes:
    """The file for the repository in `store`. Raises StoreError."""
    objects: dict[str, object] = {}
    for name in (CONFIG_NAME, *(name for name, _ in store.list(FOLDER))):
        try:
            objects[name] = b64encode(store.get(name, 0, OBJECT_BYTES_MAX)).decode()
        except Missing:  # removed since it was listed
            continue
    document: dict[str, object] = {"version": _VERSION, "repo_id": repo_id.hex(), "objects": objects}
    return encode_document(document | {"checksum": document_checksum(document)})


def import_keys(store: Store, data: bytes) -> list[str]:
    """Put back what the store lacks of a file made by `export_keys`; the names of these objects.

    What is there stays as it is, even if it differs. Slots that were removed since the copy was made come back too:
    they open what they opened then. Raises Damaged for a file that is not whole, UsageError if the store holds another
    repository, StoreError.
    """
    subject = "copy of the keys"
    document = decode_document(data, subject, COPY_MAX)
    if document.pop("checksum", None) != document_checksum(document):
        raise Damaged("the copy of the keys does not match its checksum", subject=subject)
    repo_id, objects = take_hex(document, "repo_id", REPO_ID_SIZE, subject), take(document, "objects", dict, subject)
    if len(objects) > OBJECTS_MAX or not all(_is_ours(name) for name in objects):
        raise Damaged("the copy of the keys holds other things", subject=subject)
    _refuse_other(store, repo_id)
    restored = []
    # The config last: with it the repository is there again.
    for name in sorted(objects, key=lambda name: (name == CONFIG_NAME, name)):
        try:
            store.put(name, [b64decode(str(objects[name]), validate=True)])
        except Exists:
            continue
        except ValueError as error:
            raise Damaged("the copy of the keys is not valid", subject=name) from error
        restored.append(name)
    return restored


def _is_ours(name: object) -> bool:
    from repository.store.base import is_part

    return isinstance(name, str) and (
        name == CONFIG_NAME or (name.startswith(FOLDER) and all(is_part(part) for part in name.split("/")))
    )


def _refuse_other(store: Store, repo_id: bytes) -> None:
    try:
        found = Envelope.parse(store.get(CONFIG_NAME, 0, EPOCH_MAX), CONFIG_NAME).repo_id
    except LoxError:  # lost or damaged: that is what the copy is for
        return
    if found != repo_id:
        raise UsageError("the copy of the keys is of another repository", subject=store.url, why=repo_id.hex()[:8])
