"""Lists in parts: ``?limit=&cursor=``, newest first. The cursor is the UUID of the last item: UUIDs sort by time."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select
from sqlalchemy.ext.asyncio import AsyncSession

Row = TypeVar("Row")


class Paging(BaseModel):
    """What every list takes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: UUID | None = None


async def page(db: AsyncSession, query: Select[Row], key: Any, paging: Paging) -> tuple[list[Row], str | None]:
    """The rows of one part of `query`, sorted by the column `key` downwards, and the cursor of the next part."""
    if paging.cursor is not None:
        query = query.where(key < paging.cursor)
    rows: list[Row] = list((await db.scalars(query.order_by(key.desc()).limit(paging.limit + 1))).all())
    if len(rows) <= paging.limit:
        return rows, None
    rows = rows[: paging.limit]
    return rows, str(getattr(rows[-1], key.key))
