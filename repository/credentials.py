"""What it takes to attach to an open repository from another process, as bytes for a private file."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass

from repository.keyring import Epoch, KeyRing, epoch_name, parse_epoch_name
from repository.slots import KeySlot, Unlocked
from repository.writers import WriterKey


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """All it takes to attach to a repository without its password. A secret: pass it through private files only."""

    repo_id: bytes
    config: bytes
    keys: KeyRing
    unlocked: Unlocked | None

    def encode(self) -> bytes:
        """As bytes that only `decode` of the same version reads."""
        epochs = {epoch_name(one.number, one.id): one.key.hex() for one in self.keys.epochs}
        fields: dict[str, object] = {
            "repo_id": self.repo_id.hex(),
            "config": b64encode(self.config).decode(),
            "epochs": epochs,
            "doubt": self.keys.doubt,
        }
        if (writer := self.keys.writer) is not None:
            assert self.keys.id_key is not None
            machine = WriterKey(self.repo_id, self.config, self.keys.id_key, self.keys.chunker_key, "", writer)
            fields["writer"] = machine.encode()
        if (unlocked := self.unlocked) is not None:
            slot = b64encode(unlocked.slot.encode()).decode()
            keys = {"key": unlocked.key.hex(), "private": unlocked.private.hex()}
            fields["unlocked"] = {"id": unlocked.slot.id, "slot": slot, **keys}
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, data: bytes) -> Credentials:
        """What `encode` gave. The file is ours and private: nothing about it is doubted."""
        fields = json.loads(data)
        repo_id, unlocked = bytes.fromhex(fields["repo_id"]), None
        if given := fields.get("unlocked"):
            slot = KeySlot.decode(given["id"], b64decode(given["slot"]))
            unlocked = Unlocked(slot, bytes.fromhex(given["key"]), bytes.fromhex(given["private"]))
        if text := fields.get("writer"):
            writer = WriterKey.parse(text)
            keys = KeyRing(repo_id, writer.id_key, writer.chunker_key, writer=writer.keys)
        else:
            keys = _key_ring(repo_id, fields["epochs"], fields["doubt"])
        return cls(repo_id, b64decode(fields["config"]), keys, unlocked)

    def __repr__(self) -> str:
        return f"Credentials({self.repo_id.hex()}, secret)"


def _key_ring(repo_id: bytes, keys: dict[str, str], doubt: str) -> KeyRing:
    if not keys:
        return KeyRing.public(repo_id)
    epochs = []
    for name, key in sorted(keys.items()):
        place = parse_epoch_name(name)
        assert place is not None
        epochs.append(Epoch.of(repo_id, *place, bytes.fromhex(key)))
    return KeyRing.of(epochs[0].key, repo_id, epochs[1:], doubt)
