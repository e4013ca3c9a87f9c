"""The audit log: who did what to what, in a chain of hashes per tenant, so that a row cannot be changed or taken out.

Every row holds the SHA-256 of its canonical JSON, which names the hash of the row before it. Who can write to the
database can make a new chain; who noted the newest hash elsewhere (``lox-server check`` prints it) finds that out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Index, LargeBinary, String, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from control.auth.roles import Principal
from control.db.base import Base, new_id, now
from model.wire.base import rfc3339

NOBODY = UUID(int=0)  # the chain of what belongs to no tenant
FIRST = bytes(32)


class AuditRow(Base):
    """One act."""

    __tablename__ = "audit"
    __table_args__ = (Index(None, "tenant_id", "sequence", unique=True),)

    uuid: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    tenant_id: Mapped[UUID]  # not a reference: the log outlives the tenant
    sequence: Mapped[int]
    at: Mapped[datetime]
    actor_kind: Mapped[str] = mapped_column(String(16))
    actor: Mapped[UUID | None]
    actor_name: Mapped[str] = mapped_column(String(254))
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[UUID | None]
    remote: Mapped[str] = mapped_column(String(64))
    details: Mapped[dict[str, Any]]
    previous: Mapped[bytes] = mapped_column(LargeBinary(32))
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))


class AuditHeadRow(Base):
    """The end of a chain; updating it first makes writers of one chain wait for one another."""

    __tablename__ = "audit_heads"

    tenant_id: Mapped[UUID] = mapped_column(primary_key=True)
    sequence: Mapped[int]
    hash: Mapped[bytes] = mapped_column(LargeBinary(32))


async def record(
    db: AsyncSession,
    tenant: UUID | None,
    actor: Principal | None,
    action: str,
    subject: UUID | None = None,
    remote: str = "",
    details: Mapping[str, object] | None = None,
) -> None:
    """Adds a row in the transaction of `db`. `tenant` None: the chain of the server itself."""
    chain = tenant or NOBODY
    made = sqlite.insert if db.get_bind().dialect.name == "sqlite" else postgresql.insert
    await db.execute(made(AuditHeadRow).values(tenant_id=chain, sequence=0, hash=FIRST).on_conflict_do_nothing())
    head = (
        await db.execute(
            update(AuditHeadRow)
            .where(AuditHeadRow.tenant_id == chain)
            .values(sequence=AuditHeadRow.sequence + 1)
            .returning(AuditHeadRow.sequence, AuditHeadRow.hash)
        )
    ).one()
    row = AuditRow(
        tenant_id=chain,
        sequence=head.sequence,
        at=now(),
        actor_kind=actor.kind if actor else "nobody",
        actor=actor.uuid if actor else None,
        actor_name=actor.name[:254] if actor else "",
        action=action,
        subject=subject,
        remote=remote[:64],
        details=json.loads(json.dumps(dict(details or {}), default=str)),
        previous=head.hash,
        hash=FIRST,
    )
    row.hash = hash_of(row)
    db.add(row)
    await db.execute(update(AuditHeadRow).where(AuditHeadRow.tenant_id == chain).values(hash=row.hash))


def hash_of(row: AuditRow) -> bytes:
    """The hash that a row must have."""
    fields = [
        str(row.tenant_id), row.sequence, rfc3339(row.at), row.actor_kind, str(row.actor), row.actor_name,
        row.action, str(row.subject), row.remote, row.details, row.previous.hex(),
    ]  # fmt: skip
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """`rows` were looked at; `broken` is the sequence of the first that is wrong, `why` says how; `head` is the end."""

    rows: int
    broken: int | None
    why: str
    head: bytes


async def verify(db: AsyncSession, tenant: UUID | None) -> Verdict:
    """Follows the chain of a tenant to its end."""
    chain, previous, count = tenant or NOBODY, FIRST, 0
    rows = await db.stream_scalars(
        select(AuditRow).where(AuditRow.tenant_id == chain).order_by(AuditRow.sequence).execution_options(yield_per=500)
    )
    async for row in rows:
        count += 1
        if row.sequence != count:
            return Verdict(count, count, "a row is missing", previous)
        if row.previous != previous or row.hash != hash_of(row):
            return Verdict(count, count, "the row is not as it was written", previous)
        previous = row.hash
    head = await db.get(AuditHeadRow, chain)
    if head is not None and (head.sequence, head.hash) != (count, previous):
        return Verdict(count, count + 1, "rows at the end are missing", previous)
    return Verdict(count, None, "", previous)
