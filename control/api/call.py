"""One request on its way through a handler: who asks, what for, and the database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.limits import caller_of
from control.api.problems import Unknown
from control.api.routes import Route
from control.audit import record
from control.auth.roles import Principal
from control.services import Services

M = TypeVar("M", bound=BaseModel)


class Call:
    """What a handler is given.

    ``call.body(JobIn)`` and ``call.query(JobQuery)`` are validated already; ``call.uuid("job_uuid")`` is a parameter of
    the path; ``call.tenant`` the tenant within which it acts.
    """

    def __init__(
        self,
        services: Services,
        route: Route,
        request: web.Request,
        principal: Principal | None,
        tenant: UUID | None,
        body: BaseModel | None,
        query: BaseModel | None,
    ) -> None:
        self.services, self.route, self.request = services, route, request
        self._principal, self._tenant, self._body, self._query = principal, tenant, body, query
        self.subject: UUID | None = None
        """What the act is about, for the audit log; by default the last UUID of the path."""
        self.details: dict[str, object] = {}
        """More for the audit log; no secrets."""
        self._recorded = False

    @property
    def principal(self) -> Principal:
        """Who asks."""
        assert self._principal is not None, "the route asks nobody who they are"
        return self._principal

    @property
    def tenant(self) -> UUID:
        """Within which tenant."""
        assert self._tenant is not None, "the route acts within no tenant"
        return self._tenant

    @property
    def remote(self) -> str:
        """The address of the caller."""
        return self.request.remote or ""

    @property
    def caller(self) -> str:
        """Under which name limits count that address."""
        return caller_of(self.remote)

    def body(self, model: type[M]) -> M:
        """The body."""
        assert isinstance(self._body, model)
        return self._body

    def query(self, model: type[M]) -> M:
        """What came after the question mark."""
        assert isinstance(self._query, model)
        return self._query

    def uuid(self, name: str) -> UUID:
        """A parameter of the path. Raises Unknown if it is no UUID: then nothing has it."""
        try:
            return UUID(self.request.match_info[name])
        except ValueError:
            raise Unknown(name.removesuffix("_uuid").replace("_", " ")) from None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """A transaction. That of an act which is audited holds the record of it too: both happen, or neither."""
        async with self.services.sessions.begin() as db:
            yield db
            if self.route.audit and not self._recorded:
                await db.flush()
                subject = self.subject or self._named()
                await record(db, self._tenant, self._principal, self.route.audit, subject, self.remote, self.details)
                self._recorded = True

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """A session that only reads."""
        async with self.services.sessions() as db:
            yield db

    def _named(self) -> UUID | None:
        for text in reversed(list(self.request.match_info.values())):
            try:
                return UUID(text)
            except ValueError:
                continue
        return None
