"""Routes for Prometheus: numbers of a tenant and of this process, and where the metrics of its agents are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, get_args

import prometheus_client
from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from control.alerts.tables import AlertDeliveryRow, AlertRow, AlertTargetRow
from control.api.call import Call
from control.api.routes import Routes
from control.fleet.heartbeats import Heartbeats, status_of
from control.fleet.tables import AgentRow
from control.metrics.requests import Requests
from control.runs.tables import RunRow
from model.wire.agents import AgentStatus
from model.wire.alert_targets import TargetKind

routes = Routes()
STATUSES: tuple[AgentStatus, ...] = ("registered", "online", "offline", "revoked")


@routes.add("GET", "/metrics", scope="agents:read", returns={200: None})
async def metrics(call: Call) -> web.StreamResponse:
    """Metrics of the tenant, and of the process that answers"""
    async with call.reading() as db:
        agents = await _agents(call, db)
        runs = (
            await db.execute(
                select(RunRow.kind, RunRow.status, func.count())
                .where(RunRow.tenant_id == call.tenant)
                .group_by(RunRow.kind, RunRow.status)
            )
        ).all()
        is_open = AlertRow.resolved_at.is_(None) & AlertRow.acknowledged_at.is_(None)
        alerts = (
            await db.execute(
                select(AlertRow.kind, AlertRow.severity, func.count())
                .where(AlertRow.tenant_id == call.tenant, is_open)
                .group_by(AlertRow.kind, AlertRow.severity)
            )
        ).all()
        messages = await _messages(call, db)
    registry = CollectorRegistry()
    online = Gauge("lox_server_agents", "Agents by status", ["status"], registry=registry)
    found = Counter(status_of(row, call.services.part(Heartbeats).newest(row.uuid)) for row in agents)
    for status in STATUSES:
        online.labels(status).set(found[status])
    _fill(
        Gauge("lox_server_runs", "Runs that are known, by what they came to", ["kind", "status"], registry=registry),
        runs,
    )
    _fill(Gauge("lox_server_alerts_open", "Alerts nobody looks after", ["kind", "severity"], registry=registry), alerts)
    _tell_messages(registry, *messages)
    text = generate_latest(registry) + generate_latest(call.services.part(Requests).registry)
    return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Lox-Process": str(os.getpid())})


def _fill(gauge: Gauge, rows: Iterable[Any]) -> None:
    for first, second, number in rows:
        gauge.labels(first, second).set(number)


Rows = Sequence[Any]


async def _messages(call: Call, db: AsyncSession) -> tuple[Rows, Rows]:
    """How many messages about alerts got to targets, and how many are on their way."""
    counted = select(AlertTargetRow.kind, func.sum(AlertTargetRow.sent), func.sum(AlertTargetRow.failed))
    ended = await db.execute(counted.where(AlertTargetRow.tenant_id == call.tenant).group_by(AlertTargetRow.kind))
    waiting = await db.execute(
        select(AlertTargetRow.kind, func.count())
        .join(AlertDeliveryRow, AlertDeliveryRow.target_uuid == AlertTargetRow.uuid)
        .where(AlertTargetRow.tenant_id == call.tenant, AlertDeliveryRow.state == "waiting")
        .group_by(AlertTargetRow.kind)
    )
    return ended.all(), waiting.all()


def _tell_messages(registry: CollectorRegistry, ended: Rows, waiting: Rows) -> None:
    text = "Messages about alerts, by what became of them; falls when a target is removed"
    count = prometheus_client.Counter("lox_server_alert_messages", text, ["target", "result"], registry=registry)
    on_way = Gauge("lox_server_alert_messages_waiting", "Messages not there yet", ["target"], registry=registry)
    for kind in get_args(TargetKind):
        on_way.labels(kind).set(0)
    for kind, sent, failed in ended:
        count.labels(kind, "sent").inc(sent)
        count.labels(kind, "failed").inc(failed)
    for kind, number in waiting:
        on_way.labels(kind).set(number)


async def _agents(call: Call, db: AsyncSession) -> Iterable[AgentRow]:
    return (await db.scalars(select(AgentRow).where(AgentRow.tenant_id == call.tenant).order_by(AgentRow.uuid))).all()


@routes.add("GET", "/api/v1/prometheus/http_sd", scope="agents:read", returns={200: None})
async def targets(call: Call) -> web.StreamResponse:
    """Where agents serve their metrics, as Prometheus' http_sd_configs wants it"""
    beats, found = call.services.part(Heartbeats), []
    async with call.reading() as db:
        agents = await _agents(call, db)
    for row in agents:
        beat = beats.newest(row.uuid)
        port = beat.said.metrics_port if beat else (row.heartbeat or {}).get("metrics_port")
        if port and not row.revoked:
            labels = {
                "__meta_lox_agent_uuid": str(row.uuid),
                "__meta_lox_agent_name": row.name,
                "__meta_lox_os": row.os,
            }
            labels["__meta_lox_tags"] = f",{','.join(row.tags)}," if row.tags else ""
            found.append({"targets": [f"{row.hostname}:{port}"], "labels": labels})
    return web.json_response(found)
