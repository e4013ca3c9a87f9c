"""Damage on purpose, for tests and drills: what disks, networks and people do to stored objects, with a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import Missing, UsageError
from repository.footer import PACK_MAX
from repository.store import Store

KINDS = ("flip", "truncate", "delete", "swap")


@dataclass(frozen=True, slots=True)
class Harm:
    """What was done to an object, in words."""

    name: str
    what: str


def choose_packs(store: Store, count: int, seed: int) -> list[str]:
    """Names of `count` packs, chosen by `seed`. Raises UsageError if there are fewer."""
    names = [name for name, _ in store.list("packs/")]
    if count > len(names):
        raise UsageError("there are not so many packs", subject=str(count), why=f"{len(names)} in the repository")
    return random.Random(seed).sample(names, count)


def damage(store: Store, names: Sequence[str], kind: str, seed: int) -> list[Harm]:
    """Damage the objects `names`; equal arguments do equal damage to equal objects.

    ``flip`` changes one bit, ``truncate`` cuts the end off, ``delete`` removes the object, ``swap`` exchanges it with
    another one of its folder. Raises UsageError for an object that is not there or has no other to be swapped with.
    """
    rng = random.Random(f"{seed} {kind}")
    return [_damage_one(store, name, kind, rng) for name in names]


def _damage_one(store: Store, name: str, kind: str, rng: random.Random) -> Harm:
    data = _read(store, name)
    if kind == "delete":
        store.delete(name)
        return Harm(name, "deleted")
    if kind == "swap":
        return _swap(store, name, data, rng)
    if not data:
        raise UsageError("the object is empty already", subject=name)
    at = rng.randrange(len(data))
    if kind == "flip":
        bit = rng.randrange(8)
        _replace(store, name, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        return Harm(name, f"flipped bit {bit} of byte {at} of {len(data)}")
    if kind == "truncate":
        _replace(store, name, data[:at])
        return Harm(name, f"cut off after {at} of {len(data)} bytes")
    raise UsageError("no such kind of damage", subject=kind, hint=", ".join(KINDS))


def _swap(store: Store, name: str, data: bytes, rng: random.Random) -> Harm:
    others = [other for other, _ in store.list(name.partition("/")[0] + "/") if other != name]
    if not others:
        raise UsageError("there is no other object to swap it with", subject=name)
    other = rng.choice(others)
    theirs = _read(store, other)
    _replace(store, name, theirs)
    _replace(store, other, data)
    return Harm(name, f"swapped with {other}")


def _read(store: Store, name: str) -> bytes:
    try:
        return store.get(name, 0, PACK_MAX + 1)
    except Missing as error:
        raise UsageError("no such object in the repository", subject=name) from error


def _replace(store: Store, name: str, data: bytes) -> None:
    store.delete(name)
    store.put(name, [data])
