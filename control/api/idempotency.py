"""A POST that is repeated with the same ``Idempotency-Key`` is done once, and answered twice.

Kept for a day per principal. A repetition with another body is refused; one while the first is under way is told to
wait. Answers that hold a secret are not kept: their repetition is told that the thing was done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from uuid import UUID

from aiohttp import web
from sqlalchemy import LargeBinary, Text, delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Mapped, mapped_column

from control.api.call import Call
from control.api.problems import Conflict, Problem
from control.auth.authenticate import TENANT
from control.db.base import Base, now

HEADER, KEY_MAX = "Idempotency-Key", 255
KEPT = timedelta(days=1)
ABANDONED = timedelta(minutes=2)  # a first attempt that said nothing for so long died with its process
ANSWER_MAX = 256 << 10


class IdempotencyRow(Base):
    """One request: `status` is None while it is under way."""

    __tablename__ = "idempotency"

    principal: Mapped[UUID] = mapped_column(primary_key=True)
    key: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    request: Mapped[bytes] = mapped_column(LargeBinary(32))
    status: Mapped[int | None]
    answer: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(index=True)


async def once(call: Call, raw: bytes, work: Callable[[], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """`work`'s answer, or that of the same request before. Raises Conflict and Problem."""
    given = call.request.headers.get(HEADER)
    if given is None:
        return await work()
    if not 1 <= len(given) <= KEY_MAX:
        raise Problem(f"{HEADER} has 1 to {KEY_MAX} characters", status=422, kind="invalid")
    principal, key = call.principal.uuid, hashlib.sha256(given.encode()).digest()
    what = f"{call.request.method} {call.request.path_qs} {call.request.headers.get(TENANT, '')}\n"
    request = hashlib.sha256(what.encode() + raw).digest()
    if (kept := await _begun(call, principal, key, request)) is not None:
        return _repeated(kept, request)
    try:
        answer = await work()
    except BaseException:
        await _forgotten(call, principal, key)
        raise
    await _done(call, principal, key, answer)
    return answer


async def _begun(call: Call, principal: UUID, key: bytes, request: bytes) -> IdempotencyRow | None:
    """None if this is the first attempt, else what there is of the one before."""
    moment = now()
    values = {"principal": principal, "key": key, "request": request, "at": moment}
    async with call.services.sessions.begin() as db:
        await db.execute(
            delete(IdempotencyRow).where(
                (IdempotencyRow.at < moment - KEPT)
                | ((IdempotencyRow.status.is_(None)) & (IdempotencyRow.at < moment - ABANDONED))
            )
        )
        made = sqlite.insert if db.get_bind().dialect.name == "sqlite" else postgresql.insert
        done = await db.execute(
            made(IdempotencyRow).values(**values).on_conflict_do_nothing().returning(IdempotencyRow.at)
        )
        if done.first() is not None:
            return None
        return await db.get(IdempotencyRow, (principal, key))


def _repeated(kept: IdempotencyRow, request: bytes) -> web.StreamResponse:
    if kept.request != request:
        raise Problem(f"this {HEADER} was used for another request", status=422, kind="idempotency-key-reused")
    if kept.status is None:
        raise Conflict("the same request is under way", kind="under-way", headers={"Retry-After": "1"})
    if kept.answer is None:
        raise Conflict("this was done; its answer holds what is shown only once", kind="done-already")
    headers = {"Idempotent-Replay": "true"}
    return web.Response(text=kept.answer, status=kept.status, content_type="application/json", headers=headers)


async def _done(call: Call, principal: UUID, key: bytes, answer: web.StreamResponse) -> None:
    text = None
    if isinstance(answer, web.Response) and not call.route.secret and len(answer.text or "") <= ANSWER_MAX:
        text = answer.text or ""
    await _set(call, principal, key, answer.status, text)


async def _set(call: Call, principal: UUID, key: bytes, status: int, text: str | None) -> None:
    mine = (IdempotencyRow.principal == principal) & (IdempotencyRow.key == key)
    async with call.services.sessions.begin() as db:
        await db.execute(update(IdempotencyRow).where(mine).values(status=status, answer=text))


async def _forgotten(call: Call, principal: UUID, key: bytes) -> None:
    mine = (IdempotencyRow.principal == principal) & (IdempotencyRow.key == key)
    async with call.services.sessions.begin() as db:
        await db.execute(delete(IdempotencyRow).where(mine))
