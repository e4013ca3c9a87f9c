"""A route as data: what it takes, gives and needs. The layer, the OpenAPI document and the tests read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web
from pydantic import BaseModel

if TYPE_CHECKING:
    from control.api.call import Call

Result = BaseModel | web.StreamResponse | None
Handler = Callable[["Call"], Awaitable[Result]]
BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    `scope`: what the principal must hold; None: any principal of `principals`. `principals` empty: nobody is asked who
    they are. `body`: the model of the JSON body; None: there is none, unless the route is `streaming`, which reads
    it by itself. `returns`: models by status; the first is the usual one, None: no body. `example`: a valid body.
    `secret`: the answer holds what is shown once: it is not kept for repetitions. `limit`: a class of control.limits.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    scope: str | None
    principals: frozenset[str]
    body: type[BaseModel] | None
    query: type[BaseModel] | None
    returns: Mapping[int, type[BaseModel] | None]
    example: Mapping[str, Any] | None
    streaming: bool
    secret: bool
    audit: str | None
    limit: str
    body_bytes: int
    tenant: bool

    @property
    def status(self) -> int:
        """The usual status."""
        return next(iter(self.returns))

    @property
    def tag(self) -> str:
        """The first noun of the path, by which the document groups routes."""
        return next((part for part in self.path.removeprefix("/api/v1").split("/") if part), "service")


PEOPLE = frozenset({"user", "token"})
AGENTS = frozenset({"agent"})
NOBODY: frozenset[str] = frozenset()


@dataclass(slots=True)
class Routes:
    """Routes of one part of the API, collected by its decorators."""

    all: list[Route] = field(default_factory=list)

    def add(
        self,
        method: str,
        path: str,
        *,
        scope: str | None = None,
        principals: frozenset[str] = PEOPLE,
        body: type[BaseModel] | None = None,
        query: type[BaseModel] | None = None,
        returns: Mapping[int, Any] | None = None,
        example: Mapping[str, Any] | None = None,
        streaming: bool = False,
        secret: bool = False,
        audit: str | None = None,
        limit: str = "ordinary",
        body_bytes: int = BODY_BYTES,
        tenant: bool = True,
    ) -> Callable[[Handler], Handler]:
        """``@routes.add("POST", "/things", ...)`` above a handler; the first line of its docstring is the summary.

        `audit` names the act for the audit log, as in ``job.create``; what changes something should have one.
        `tenant`: it acts within a tenant; principals above tenants name one in the header ``Lox-Tenant``.
        """

        def decorate(handler: Handler) -> Handler:
            summary = (handler.__doc__ or "").strip().split("\n")[0].removesuffix(".")
            assert summary, f"{method} {path} has no docstring"
            assert body is None or example is not None, f"{method} {path} has no example of its body"
            self.all.append(
                Route(
                    method, path, handler, summary, scope, principals, body, query, dict(returns or {204: None}),
                    example, streaming, secret, audit, limit, body_bytes, tenant and principals != NOBODY,
                )
            )  # fmt: skip
            return handler

        return decorate


def parameters(path: str) -> Sequence[str]:
    """Names of what stands in braces in a path."""
    return [part.partition("}")[0].partition(":")[0] for part in path.split("{")[1:]]
