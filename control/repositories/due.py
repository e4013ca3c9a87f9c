"""Which jobs store in a repository, and when it is maintained next."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, or_

from control.api.problems import Invalid
from control.db.base import now
from control.jobs.schedule import InvalidSchedule, check_schedule, next_time, zone_of
from control.jobs.tables import JobRow
from control.repositories.tables import RepositoryRow


def jobs_into(row: RepositoryRow) -> ColumnElement[bool]:
    """The condition that the data of a job goes to this repository."""
    mine = JobRow.repository_uuid == row.uuid
    if row.default:
        mine = or_(mine, JobRow.repository_uuid.is_(None))
    return and_(JobRow.tenant_id == row.tenant_id, mine)


def set_due(row: RepositoryRow) -> None:
    """Reckon anew when it is maintained next. Raises Invalid for a schedule that nothing can be made of."""
    try:
        zone_of(row.maintenance_timezone)
    except InvalidSchedule as error:
        raise Invalid("maintenance_timezone", str(error)) from None
    row.maintenance_due_at = None
    if row.maintenance_cron is None:
        return
    try:
        check_schedule(row.maintenance_cron, row.maintenance_timezone)
    except InvalidSchedule as error:
        raise Invalid("maintenance_cron", str(error)) from None
    if row.maintenance_agent_uuid is not None:
        row.maintenance_due_at = next_time(row.maintenance_cron, row.maintenance_timezone, now())
