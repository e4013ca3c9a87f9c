"""From routes to an application: a request is limited, authenticated, allowed, validated, answered, in this order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from uuid import uuid4

import structlog
from aiohttp import hdrs, web
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from control.api import idempotency
from control.api.bodies import in_pieces
from control.api.call import Call
from control.api.limits import caller_of
from control.api.problems import Forbidden, Problem, Unauthenticated, invalid, response_of
from control.api.routes import NOBODY, Result, Route
from control.auth.authenticate import principal_of, tenant_of
from control.auth.roles import Principal
from control.metrics.requests import Requests
from control.services import Services

SERVICES: web.AppKey[Services] = web.AppKey("services", Services)
REQUESTS: web.AppKey[Requests] = web.AppKey("requests", Requests)
REQUEST_ID = "request_id"
SILENCE_SECONDS, BODY_SECONDS = 15.0, 600.0  # within a body, and for all of it: nobody holds a connection for ever
SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=31536000",
}
_PROBLEM_OF = {404: "not-found", 405: "method-not-allowed", 413: "too-large"}


def add_routes(app: web.Application, routes: Iterable[Route]) -> None:
    """Puts `routes` into `app`, whose services must be there."""
    for route in routes:
        app.router.add_route(route.method, route.path, _endpoint(app[SERVICES], route))


def _endpoint(services: Services, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        principal = await _admitted(services, route, request)
        tenant = await tenant_of(services, principal, request) if route.tenant else None
        raw = b"" if route.streaming else await _read(request, route.body_bytes)
        body = _parsed(route.body, raw)
        query = _query(route.query, request)
        call = Call(services, route, request, principal, tenant, body, query)
        if route.method != hdrs.METH_POST or principal is None or route.streaming:
            return _answer(route, await route.handler(call))
        return await idempotency.once(call, raw, lambda: _answered(call))

    return endpoint


async def _answered(call: Call) -> web.StreamResponse:
    return _answer(call.route, await call.route.handler(call))


async def _admitted(services: Services, route: Route, request: web.Request) -> Principal | None:
    remote = caller_of(request.remote or "")
    if route.principals == NOBODY:
        services.limits.take(route.limit, remote)
        return None
    try:
        principal = await principal_of(services, request)
    except Unauthenticated:  # only these count: others behind the same address go on
        services.limits.take("failures", remote)
        raise
    structlog.contextvars.bind_contextvars(actor=str(principal.uuid), tenant=str(principal.tenant_id))
    services.limits.take(route.limit, str(principal.uuid))
    if principal.kind not in route.principals:
        raise Forbidden("this is not for " + ("agents" if principal.kind == "agent" else "people"))
    if route.scope is not None and not principal.may(route.scope):
        raise Forbidden(f"this needs the scope {route.scope}")
    return principal


async def _read(request: web.Request, limit: int) -> bytes:
    """The body, of which no more than `limit` bytes are ever in memory."""
    if (request.content_length or 0) > limit:
        raise Problem(f"the body is larger than {limit} bytes", status=413, kind="too-large")
    pieces, size = [], 0
    try:
        end = time.monotonic() + BODY_SECONDS
        async with asyncio.timeout(SILENCE_SECONDS) as patience:
            async for piece in request.content.iter_any():
                left = min(SILENCE_SECONDS, end - time.monotonic())
                patience.reschedule(asyncio.get_running_loop().time() + left)
                size += len(piece)
                if size > limit:
                    raise Problem(f"the body is larger than {limit} bytes", status=413, kind="too-large")
                pieces.append(piece)
    except TimeoutError:
        raise Problem("the rest of the body did not come", status=408, kind="slow") from None
    return b"".join(pieces)


def _parsed(model: type[BaseModel] | None, raw: bytes) -> BaseModel | None:
    if model is None:
        if raw.strip() not in (b"", b"{}"):
            raise Problem("this request has no body", status=422, kind="invalid")
        return None
    try:
        return model.model_validate_json(raw or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "json_invalid":
            raise Problem(f"the body is not JSON: {first['msg']}", kind="not-json") from None
        raise invalid(model, error) from None


def _query(model: type[BaseModel] | None, request: web.Request) -> BaseModel | None:
    given: dict[str, object] = {}
    for name in request.query:
        values = request.query.getall(name)
        given[name] = values[0] if len(values) == 1 else values
    if model is None:
        if given:
            raise Problem(f"there is no parameter {min(given)!r}", status=422, kind="invalid")
        return None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(model, error) from None


def _answer(route: Route, result: Result) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if result is None:
        return web.Response(status=204)
    status = next((code for code, model in route.returns.items() if model and isinstance(result, model)), route.status)
    return web.Response(text=result.model_dump_json(), status=status, content_type="application/json")


@web.middleware
async def outermost(request: web.Request, handler: Any) -> web.StreamResponse:
    """Gives each request an id, turns what goes wrong into problems, and logs it."""
    request_id = uuid4().hex
    request[REQUEST_ID] = request_id
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request=request_id)
    log, begin = request.app[SERVICES].log, time.monotonic()
    try:
        response: web.StreamResponse = await handler(request)
    except Problem as problem:
        response = response_of(problem, request_id)
    except web.HTTPException as error:
        response = response_of(_of_aiohttp(error), request_id)
    except PoolTimeout:
        log.error("no connection to the database was free", path=request.path)
        response = response_of(_busy("the server is busy"), request_id)
    except DBAPIError as error:
        response = response_of(_of_database(error, log), request_id)
    except (asyncio.CancelledError, ConnectionResetError):
        raise
    except Exception as error:
        if isinstance(error, ConnectionError) and request.transport is None:  # who asked is gone
            raise
        log.exception("request failed", method=request.method, path=request.path)
        detail = "something went wrong at the server; its log has more under the id of this request"
        response = response_of(Problem(detail, status=500, kind="server-error"), request_id)
    in_pieces(response)
    seconds = time.monotonic() - begin
    resource = request.match_info.route.resource
    request.app[REQUESTS].count(request.method, resource.canonical if resource else "", response.status, seconds)
    log.debug("request", method=request.method, path=request.path, status=response.status, seconds=round(seconds, 4))
    return response


def _of_aiohttp(error: web.HTTPException) -> Problem:
    headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
    kind = _PROBLEM_OF.get(error.status, "bad-request")
    return Problem(error.reason, status=error.status, kind=kind, headers=headers)


def _of_database(error: DBAPIError, log: Any) -> Problem:
    if isinstance(error, IntegrityError):
        log.info("conflict in the database", error=str(error.orig))
        return Problem("this conflicts with what is there", status=409, kind="conflict")
    if isinstance(error, DataError):
        log.warning("the database cannot hold this", error=str(error.orig))
        return Problem("a value is not one that can be stored", status=422, kind="invalid")
    log.error("database not available", error=str(error.orig))
    return _busy("the database cannot take this now")


def _busy(detail: str) -> Problem:
    return Problem(detail, status=503, kind="unavailable", headers={"Retry-After": "1"})


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """The signal ``on_response_prepare``: headers that every answer has."""
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Lox-Request"] = request.get(REQUEST_ID, "")
