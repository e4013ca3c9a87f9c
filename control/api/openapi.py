"""The OpenAPI 3.1 document of the routes: what they take and give, from the same models that check it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from control.api.problems import CONTENT_TYPE
from control.api.routes import NOBODY, Route, parameters
from control.auth.authenticate import COOKIE, TENANT
from control.auth.roles import SCOPES
from model import __version__

_REF = "#/components/schemas/{model}"
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {
                    "pointer": {"type": "string"},
                    "detail": {"type": "string"},
                    "hint": {"type": "string"},
                },
            },
        },
    },
}


def document(routes: Iterable[Route], url: str = "/") -> dict[str, Any]:
    """The document. `url` is where the server is."""
    known = sorted(routes, key=lambda route: (route.path, route.method))
    names, schemas = _schemas(known)
    paths: dict[str, dict[str, Any]] = {}
    for route in known:
        path = re.sub(r"\{([^}:]+):[^}]*\}", r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "LOX Backup", "version": __version__, "description": _about()},
        "servers": [{"url": url}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Problem": _PROBLEM},
            "responses": {"Problem": {"description": "What went wrong (RFC 9457)", "content": _content("Problem")}},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
                "agent": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _about() -> str:
    return "Scopes:\n\n" + "\n".join(f"- `{scope}`: {meaning}" for scope, meaning in SCOPES.items())


def _schemas(routes: list[Route]) -> tuple[dict[type[BaseModel], str], dict[str, Any]]:
    taken = {model for route in routes for model in (route.body, route.query) if model}
    given = {model for route in routes for model in route.returns.values() if model}
    wanted = [(model, "validation") for model in sorted(taken, key=lambda model: model.__name__)]
    wanted += [(model, "serialization") for model in sorted(given - taken, key=lambda model: model.__name__)]
    found, definitions = models_json_schema(wanted, ref_template=_REF)  # type: ignore[arg-type]
    names: dict[Any, str] = {model: reference["$ref"].rpartition("/")[2] for (model, _), reference in found.items()}
    return names, definitions.get("$defs", {})


def _operation(route: Route, names: dict[type[BaseModel], str]) -> dict[str, Any]:
    words = re.sub(r"\{([^}:]+)[^}]*\}", r"\1", route.path.removeprefix("/api/v1"))
    operation: dict[str, Any] = {
        "operationId": route.method.lower() + re.sub(r"[^A-Za-z0-9]+", "_", words),
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_headers(route)],
        "responses": _responses(route, names),
        "security": _security(route),
    }
    if route.scope:
        operation["x-scope"] = route.scope
    if route.body:
        media = {"schema": {"$ref": _REF.format(model=names[route.body])}, "example": route.example}
        operation["requestBody"] = {"required": True, "content": {"application/json": media}}
    elif route.streaming and route.method in ("PUT", "POST", "PATCH"):
        operation["requestBody"] = {"content": {"application/octet-stream": {"schema": {"type": "string"}}}}
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _parameter_schema(name)}
        for name in parameters(route.path)
    ]


def _parameter_schema(name: str) -> dict[str, Any]:
    return {"type": "string", "format": "uuid"} if name.endswith("_uuid") else {"type": "string"}


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    if route.query is None:
        return []
    schema = route.query.model_json_schema(ref_template=_REF)
    needed = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in needed, "schema": fields}
        for name, fields in schema.get("properties", {}).items()
    ]


def _headers(route: Route) -> list[dict[str, Any]]:
    found = []
    if route.tenant and "user" in route.principals:
        about = "The tenant to act within, for those who stand above tenants"
        found.append({"name": TENANT, "in": "header", "description": about, "schema": {"type": "string"}})
    if route.method == "POST" and route.principals != NOBODY and not route.streaming:
        about = "Makes a repetition of this request harmless for a day"
        schema = {"type": "string", "minLength": 1, "maxLength": 255}
        found.append({"name": "Idempotency-Key", "in": "header", "description": about, "schema": schema})
    return found


def _responses(route: Route, names: dict[type[BaseModel], str]) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, model in route.returns.items():
        responses[str(status)] = {"description": HTTPStatus(status).phrase}
        if model:
            reference = {"$ref": _REF.format(model=names[model])}
            responses[str(status)]["content"] = {"application/json": {"schema": reference}}
    return {**responses, "default": {"$ref": "#/components/responses/Problem"}}


def _content(name: str) -> dict[str, Any]:
    return {CONTENT_TYPE: {"schema": {"$ref": _REF.format(model=name)}}}


def _security(route: Route) -> list[dict[str, list[str]]]:
    names = {"user": "session", "token": "token", "agent": "agent"}
    return [{names[kind]: []} for kind in sorted(route.principals)]
