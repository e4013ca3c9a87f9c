"""Routes of the server itself: is it up, what is it, the document of its API, metrics, the audit log."""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select, text

from control.api.call import Call
from control.api.problems import Problem
from control.api.routes import NOBODY, Routes
from control.audit import AuditRow, verify
from model import __version__
from model.wire.base import Answer, Page
from model.wire.people import AuditEntry, AuditVerdict

routes = Routes()


class Health(Answer):
    """`status` is ok."""

    status: str
    version: str


class AuditQuery(BaseModel):
    """Entries with a sequence below `before`, the newest first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    action: Annotated[str, Field(max_length=64, pattern=r"^[a-z.-]+$")] | None = None


@routes.add("GET", "/healthz", principals=NOBODY, returns={200: Health}, limit="free")
async def healthz(call: Call) -> Health:
    """Whether this process answers"""
    return Health(status="ok", version=__version__)


@routes.add("GET", "/readyz", principals=NOBODY, returns={200: Health}, limit="free")
async def readyz(call: Call) -> Health:
    """Whether it can work: the database answers, and it is not about to stop"""
    if call.services.stopping.is_set():
        raise Problem("the server is about to stop", status=503, kind="unavailable")
    async with call.reading() as db:
        await db.execute(text("SELECT 1"))
    return Health(status="ok", version=__version__)


@routes.add("GET", "/api/v1/openapi.json", principals=NOBODY, returns={200: None})
async def openapi(call: Call) -> web.Response:
    """This document: OpenAPI 3.1"""
    return web.Response(text=_document(call.services.settings.url), content_type="application/json")


@cache
def _document(url: str) -> str:
    """It takes long to make, and anybody may ask for it."""
    from control.api.openapi import document
    from control.app import all_routes

    return json.dumps(document(all_routes(), url))


@routes.add("GET", "/api/v1/audit", scope="audit:read", query=AuditQuery, returns={200: Page[AuditEntry]})
async def list_audit(call: Call) -> Page[AuditEntry]:
    """List what was done, the newest first"""
    given = call.query(AuditQuery)
    query = select(AuditRow).where(AuditRow.tenant_id == call.tenant)
    if given.cursor is not None:
        query = query.where(AuditRow.sequence < given.cursor)
    if given.action is not None:
        query = query.where(AuditRow.action == given.action)
    async with call.reading() as db:
        rows = list((await db.scalars(query.order_by(AuditRow.sequence.desc()).limit(given.limit + 1))).all())
    more = str(rows[given.limit - 1].sequence) if len(rows) > given.limit else None
    return Page[AuditEntry](items=[_entry(row) for row in rows[: given.limit]], next=more)


def _entry(row: AuditRow) -> AuditEntry:
    names = [name for name in AuditEntry.model_fields if name != "hash"]
    return AuditEntry(**{name: getattr(row, name) for name in names}, hash=row.hash.hex())


@routes.add("GET", "/api/v1/audit/verify", scope="audit:read", returns={200: AuditVerdict})
async def verify_audit(call: Call) -> AuditVerdict:
    """Whether the chain of the audit log holds"""
    async with call.reading() as db:
        found = await verify(db, call.tenant)
    return AuditVerdict(
        rows=found.rows, intact=found.broken is None, broken_at=found.broken, why=found.why, head=found.head.hex()
    )
