"""Bytes at rest: keys, sealed objects, packs, index, manifest, snapshots; `repository.store` is where they lie."""
