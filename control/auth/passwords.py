"""Passwords of people: Argon2id, in a thread, only so many at a time that they cannot take all memory.

Parameters are the second recommended option of RFC 9106, 64 MiB and three passes, but with one lane: OpenSSL 3 works on
several lanes with threads of its own, and two such derivations at the same time wait for each other for ever.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from control.api.problems import Invalid
from control.api.turns import SECONDS, Turns

MEMORY_KIB, PASSES, LANES = 64 << 10, 3, 1
AT_ONCE = 4  # so at most 256 MiB
SHORTEST, LONGEST = 10, 1024  # characters
T = TypeVar("T")
_ALONE = threading.Lock()


class Passwords:
    """Makes and verifies hashes. `tries` of unknown people take as long as those of known ones.

    Raises Problem (503) when so many come at once that one would wait for more than `seconds`.
    """

    def __init__(self, seconds: float = SECONDS) -> None:
        self._turns = Turns(AT_ONCE, seconds)
        self._nobody: str | None = None

    async def hash(self, password: str) -> str:
        """In PHC format. Raises Invalid if the password is too short or too long."""
        if not SHORTEST <= len(password) <= LONGEST:
            raise Invalid("password", f"a password has {SHORTEST} to {LONGEST} characters")
        return await self._threaded(_hashed, password)

    async def verify(self, password: str, kept: str | None) -> bool:
        """Whether it is the one. With None, for people who do not exist, it is not, after the same time."""
        if len(password) > LONGEST:
            return False
        if kept is None:
            if self._nobody is None:
                self._nobody = await self._threaded(_hashed, os.urandom(16).hex())
            await self._threaded(_same, password, self._nobody)
            return False
        return await self._threaded(_same, password, kept)

    async def _threaded(self, work: Callable[..., T], *given: str) -> T:
        async with self._turns.take():
            return await asyncio.to_thread(work, *given)


def _hashed(password: str) -> str:
    salt = os.urandom(16)
    kdf = Argon2id(salt=salt, length=32, iterations=PASSES, lanes=LANES, memory_cost=MEMORY_KIB)
    return kdf.derive_phc_encoded(password.encode())


def _same(password: str, kept: str) -> bool:
    several = f",p={LANES}$" not in kept  # made with other parameters: such never two at a time
    try:
        with _ALONE if several else nullcontext():
            Argon2id.verify_phc_encoded(password.encode(), kept)
    except InvalidKey:
        return False
    return True
