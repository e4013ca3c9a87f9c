"""Lists in parts: newest first, each part beginning after the last item of the one before, whatever came in between."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.ext.asyncio import AsyncSession

from control.api.problems import Invalid
from model.wire.base import Page, rfc3339

Item = TypeVar("Item", bound=BaseModel)
LIMIT, LIMIT_MAX = 50, 500


class ListQuery(BaseModel):
    """``?limit=&cursor=`` of every list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(LIMIT, ge=1, le=LIMIT_MAX)
    cursor: str | None = Field(None, max_length=200)


async def page(
    session: AsyncSession,
    rows: Select[Any],
    order: tuple[Any, Any],
    query: ListQuery,
    model: type[Page[Item]],
    item: Callable[[Any], Item],
) -> Page[Item]:
    """One part of `rows`, which select one thing each. `order`: columns of a time and of the id. Raises Invalid."""
    time, uuid = order
    if query.cursor is not None:
        rows = rows.where(_after(time, uuid, query.cursor))
    found = (await session.scalars(rows.order_by(time.desc(), uuid.desc()).limit(query.limit + 1))).all()
    shown = found[: query.limit]
    rest = len(found) > query.limit
    cursor = _cursor(getattr(shown[-1], time.key), getattr(shown[-1], uuid.key)) if rest else None
    return model(items=[item(row) for row in shown], next=cursor)


def _cursor(time: datetime, uuid: UUID) -> str:
    return base64.urlsafe_b64encode(json.dumps([rfc3339(time), str(uuid)]).encode()).decode().rstrip("=")


def _after(time: Any, uuid: Any, cursor: str) -> ColumnElement[bool]:
    try:
        given = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        moment, last = datetime.fromisoformat(given[0]), UUID(given[1])
        if moment.tzinfo is None:
            raise ValueError
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, binascii.Error, OverflowError):
        raise Invalid("cursor", "this is none that a list gave as next") from None
    return or_(time < moment, and_(time == moment, uuid < last))
