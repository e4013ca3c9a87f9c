"""What the end of a run tells an operator: it failed, paths are missing, it came out much larger than before."""

from __future__ import annotations

from statistics import median
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.raising import raise_alert, resolve_alerts, resolve_of_job
from control.jobs.tables import JobRow
from control.runs.tables import RunRow
from model.wire.runs import Finished

BEFORE = 10  # earlier runs to compare with
ENOUGH = 3  # of them are needed
SMALL = 10 << 20  # bytes that are no anomaly
FACTOR = 2.0


async def note_findings(session: AsyncSession, row: RunRow, event: Finished, job: JobRow | None) -> None:
    """Raise and resolve alerts by how `row` ended."""
    subject = job.uuid if job is not None else row.uuid
    name = job.name if job is not None else f"the {row.kind}"
    about: dict[str, Any] = {"agent": row.agent_uuid, "job": job.uuid if job else None, "run": row.uuid}
    if event.status == "failed":
        error = event.error
        why = f"{error.what}: {error.why}" if error and error.why else (error.what if error else "see its log")
        text = f"{name} failed: {why}"
        await raise_alert(session, row.tenant_id, "failed", subject, text, severity="critical", **about)
    if event.status not in ("success", "partial") or job is None:
        return
    await resolve_alerts(session, "failed", subject)
    await resolve_of_job(session, "lost", subject)
    missing = event.summary.missing_paths
    if missing:
        text = f"{name}: {len(missing)} of its paths are not there: {', '.join(missing[:3])}"
        await raise_alert(session, row.tenant_id, "missing_paths", subject, text, **about)
    else:
        await resolve_alerts(session, "missing_paths", subject)
    earlier = await _earlier(session, job)
    if len(earlier) >= ENOUGH:
        await _compare(session, row, event, earlier, name, about)


async def _earlier(session: AsyncSession, job: JobRow) -> list[dict[str, Any]]:
    """Summaries of the newest runs that came to an end before this one, whose summary is not written yet."""
    rows = await session.scalars(
        select(RunRow.summary)
        .where(RunRow.job_uuid == job.uuid, RunRow.status.in_(("success", "partial")), RunRow.uuid != job.last_run_uuid)
        .order_by(RunRow.created_at.desc())
        .limit(BEFORE)
    )
    return [summary for summary in rows if summary]


async def _compare(
    session: AsyncSession, row: RunRow, event: Finished, earlier: list[dict[str, Any]], name: str, about: dict[str, Any]
) -> None:
    assert row.job_uuid is not None
    usual, now = median(summary["bytes"] for summary in earlier), event.summary.bytes
    if abs(now - usual) > SMALL and not usual / FACTOR <= now <= usual * FACTOR:
        text = f"{name}: {now:,} bytes were backed up; the runs before had about {usual:,.0f}"
        await raise_alert(session, row.tenant_id, "size_anomaly", row.job_uuid, text, **about)
    else:
        await resolve_alerts(session, "size_anomaly", row.job_uuid)
    if not event.summary.deduplicated:  # all that was read counts as new: it tells nothing, good or bad
        return
    known = [summary for summary in earlier if summary["bytes"] and summary.get("deduplicated", True)]
    new = [summary["bytes_new"] / summary["bytes"] for summary in known]
    share = event.summary.bytes_new / now if now else 0.0
    if new and event.summary.bytes_new > SMALL and share > 0.5 and median(new) < 0.1:
        text = f"{name}: {share:.0%} of the data was new; before it was about {median(new):.0%}"
        await raise_alert(session, row.tenant_id, "dedup_collapse", row.job_uuid, text, **about)
    else:
        await resolve_alerts(session, "dedup_collapse", row.job_uuid)
