"""What the parts of one server process share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from control.api.limits import Limits
from control.api.routes import Routes
from control.auth.passwords import Passwords
from control.auth.roles import Principal
from control.auth.secrets import Secret
from control.db.engine import Sessions

if TYPE_CHECKING:
    from control.settings import ServerSettings

P = TypeVar("P")
Authenticator = Callable[["Services", Secret], Awaitable["Principal | None"]]


@dataclass(slots=True)
class Services:
    """One per process. `parts` is for what a part keeps in memory, by the type of it: see `part`."""

    settings: ServerSettings
    engine: AsyncEngine
    sessions: Sessions
    limits: Limits = field(default_factory=Limits)
    passwords: Passwords = field(default_factory=Passwords)
    authenticators: dict[str, Authenticator] = field(default_factory=dict)
    """By the kind of the secret: who carries it, or None if it is not valid (any more)."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server is about to stop: what waits long should answer now."""
    log: Any = field(default_factory=lambda: structlog.get_logger("control"))
    parts: dict[type, Any] = field(default_factory=dict)

    def keep(self, thing: object) -> None:
        """Makes `thing` what `part` gives for its type."""
        self.parts[type(thing)] = thing

    def part(self, kind: type[P]) -> P:
        """What was kept of this type."""
        found = self.parts[kind]
        assert isinstance(found, kind)
        return found


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the server: its routes, and what runs beside them while the server is up.

    `start` gives a context that is entered before the first request and left after the last one. `lead` is the same
    for what only one of several processes may do.
    """

    name: str
    routes: Routes
    start: Callable[[Services], AbstractAsyncContextManager[None]] | None = None
    lead: Callable[[Services], AbstractAsyncContextManager[None]] | None = None
