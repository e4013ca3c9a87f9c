"""What goes wrong with a request, as RFC 9457 tells it: ``application/problem+json``.

Raise `Problem`, or one of those who know their status. Everything else that reaches the layer is a fault of ours: it
is logged with the id of the request, and the caller learns nothing but that id.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from aiohttp import web
from pydantic import BaseModel, ValidationError

CONTENT_TYPE = "application/problem+json"
TYPES = "urn:lox:problem:"


class Problem(Exception):
    """A request that is answered with a problem. `kind` is a short stable name of it; `errors` are single faults."""

    status = HTTPStatus.BAD_REQUEST
    kind = "bad-request"

    def __init__(
        self,
        detail: str,
        *,
        kind: str | None = None,
        status: int | None = None,
        errors: Sequence[dict[str, str]] = (),
        headers: dict[str, str] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(detail)
        self.detail, self.errors, self.headers, self.hint = detail, list(errors), headers or {}, hint
        self.kind, self.status = kind or self.kind, HTTPStatus(status or self.status)


class Unauthenticated(Problem):
    """Nobody known asks; says how one makes oneself known."""

    status, kind = HTTPStatus.UNAUTHORIZED, "unauthenticated"

    def __init__(self, detail: str = "this needs a valid token or session") -> None:
        super().__init__(detail, headers={"WWW-Authenticate": 'Bearer realm="lox"'})


class Forbidden(Problem):
    status, kind = HTTPStatus.FORBIDDEN, "forbidden"


class Unknown(Problem):
    """Also for what belongs to another tenant: nobody learns that it exists."""

    status, kind = HTTPStatus.NOT_FOUND, "not-found"

    def __init__(self, what: str = "object") -> None:
        super().__init__(f"there is no such {what}")


class Conflict(Problem):
    status, kind = HTTPStatus.CONFLICT, "conflict"


class Invalid(Problem):
    """A field of the body or the query that is wrong; `pointer` says which, as in ``source_paths/0``."""

    status, kind = HTTPStatus.UNPROCESSABLE_ENTITY, "invalid"

    def __init__(self, pointer: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{pointer}: {reason}", errors=[fault(pointer, reason, hint)], hint=hint)


class TooMany(Problem):
    """Too often; says how many seconds to wait."""

    status, kind = HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests"

    def __init__(self, seconds: float) -> None:
        super().__init__("too many requests", headers={"Retry-After": str(max(1, round(seconds + 0.5)))})


def fault(pointer: str, reason: str, hint: str = "") -> dict[str, str]:
    """One entry of `errors`."""
    return {"pointer": f"#/{pointer}", "detail": reason, **({"hint": hint} if hint else {})}


def invalid(model: type[BaseModel], error: ValidationError) -> Problem:
    """All that a model found wrong, with a guess at what was meant by unknown fields."""
    errors = [_fault_of(model, one) for one in error.errors(include_url=False, include_context=False)[:50]]
    first = errors[0]
    detail = f"{first['pointer'].removeprefix('#/') or 'the body'}: {first['detail']}"
    return Problem(detail, status=422, kind="invalid", errors=errors, hint=first.get("hint", ""))


def _fault_of(model: type[BaseModel], error: Any) -> dict[str, str]:
    pointer = "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in error["loc"])
    if error["type"] == "extra_forbidden":
        name = str(error["loc"][-1])
        close = difflib.get_close_matches(name, model.model_fields, n=1) if len(error["loc"]) == 1 else []
        return fault(pointer, "there is no such field", f"did you mean {close[0]}?" if close else "")
    reason = str(error["msg"]).removeprefix("Value error, ")
    return fault(pointer, reason[:1].lower() + reason[1:])


def response_of(problem: Problem, request_id: str) -> web.Response:
    """The answer that tells it."""
    document = {
        "type": TYPES + problem.kind,
        "title": problem.status.phrase,
        "status": int(problem.status),
        "detail": problem.detail,
        "instance": f"urn:lox:request:{request_id}",
        **({"hint": problem.hint} if problem.hint else {}),
        **({"errors": problem.errors} if problem.errors else {}),
    }
    return web.json_response(document, status=problem.status, content_type=CONTENT_TYPE, headers=problem.headers)
