"""Every metric by name, kind, labels and meaning. Rules, dashboards and docs/metrics.md are checked against this.

Labels take few values: a job, a status, a stage. No path, no name of a file or of a run is ever one.
"""

from __future__ import annotations

from dataclasses import dataclass

from repository.store.measured import BUCKETS as REQUEST_BUCKETS

PREFIX = "lox_agent_"
RUN_BUCKETS = (10.0, 30.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0)  # seconds
STATUSES = ("success", "partial", "failed", "cancelled")
OPERATIONS = ("backup", "restore", "copy", "check", "prune")
REASONS = ("permission", "vanished", "changed", "io", "damaged", "other")
DIRECTIONS = ("in", "out")
FAILURES = ("full", "refused", "transient", "error")  # of what stores answer; that something is missing is an answer


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `alone`: of its series there is one at a time, a new one takes the place of the last."""

    name: str
    kind: str  # counter, gauge or histogram
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()  # of a histogram: upper bounds, ascending, without infinity
    alone: bool = False

    @property
    def samples(self) -> tuple[str, ...]:
        """The names under which its values appear."""
        if self.kind != "histogram":
            return (self.name,)
        return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")


def _counter(name: str, labels: tuple[str, ...], text: str) -> Metric:
    return Metric(PREFIX + name, "counter", labels, text)


def _gauge(name: str, labels: tuple[str, ...], text: str, alone: bool = False) -> Metric:
    return Metric(PREFIX + name, "gauge", labels, text, alone=alone)


_JOB = ("job",)
_BOTH = ("job", "operation")
_STAGE = ("job", "stage")
_FLOW = ("job", "stage", "direction")

CATALOG = (
    # Of backups.
    _counter("backup_total", ("job", "status"), "Backups that ended, by how they ended."),
    _gauge("backup_duration_seconds", _JOB, "How long the last finished backup took."),
    _gauge("backup_size_bytes", _JOB, "Content of the last snapshot."),
    _gauge("backup_files_count", _JOB, "Files in the last snapshot; the same as lox_agent_backup_files."),
    _gauge("backup_files", _JOB, "Files in the last snapshot."),
    _gauge("dedup_ratio", _JOB, "Content of all snapshots made, by what of it was new to the repository."),
    _gauge("backup_new_bytes", _JOB, "Content of the last snapshot that was new to the repository."),
    _gauge("backup_deduplicated", _JOB, "0: the last backup stored all that it read, new to the repository or not."),
    _gauge("backup_problems", _JOB, "Items of the last backup that could not be read whole."),
    _gauge("backup_mirrors_behind", _JOB, "Mirrors that lack something of the last backup."),
    _gauge("backup_last_success_timestamp_seconds", _JOB, "When the last backup ended that made a snapshot."),
    _gauge("backup_last_completion_timestamp_seconds", _JOB, "When the last backup ended, not cancelled."),
    _gauge("job_expected_interval_seconds", _JOB, "How often it is to succeed; 0: nobody waits for it."),
    Metric(PREFIX + "backup_run_duration_seconds", "histogram", _JOB, "How long finished backups took.", RUN_BUCKETS),
    _counter("backup_read_bytes_total", _JOB, "Bytes that finished backups read of their sources."),
    _counter("backup_stored_bytes_total", _JOB, "Bytes that finished backups added to the repository."),
    _counter("dedup_logical_bytes_total", _JOB, "Content of all snapshots made."),
    _counter("dedup_unique_bytes_total", _JOB, "What of that content was new to the repository."),
    _counter("backup_errors_total", ("job", "reason"), "Items that could not be read whole, by reason."),
    # Of restores, copies, checks and prunes.
    _counter("operation_total", ("job", "operation", "status"), "Other runs that ended, by how they ended."),
    _gauge("operation_duration_seconds", _BOTH, "How long the last of them took."),
    _gauge("operation_last_success_timestamp_seconds", _BOTH, "When the last of them ended that found nothing wrong."),
    _gauge("operation_last_completion_timestamp_seconds", _BOTH, "When the last of them ended, not cancelled."),
    _counter("operation_errors_total", ("job", "operation", "reason"), "Items such runs had trouble with, by reason."),
    _gauge("check_findings", _JOB, "What the last check found damaged."),
    # Of what runs now.
    _gauge("running", _BOTH, "1 while it runs; one that was killed leaves it at 1."),
    _gauge("progress_timestamp_seconds", _BOTH, "When it last got on."),
    _counter("stage_items_total", _FLOW, "Items that went into a stage and came out of it."),
    _counter("stage_bytes_total", _FLOW, "Bytes that went into a stage and came out of it."),
    _counter("stage_busy_seconds_total", _STAGE, "Seconds of all lanes in which the stage itself worked."),
    _counter("stage_starved_seconds_total", _STAGE, "Seconds of all lanes in which the stage had nothing to do."),
    _counter("stage_blocked_seconds_total", _STAGE, "Seconds of all lanes in which the stage could not go on."),
    _gauge("stage_lanes", _STAGE, "Lanes of the stage in its last run."),
    _gauge("items_under_way", _JOB, "Items fed into the graph that are not stored or written yet."),
    _counter("lane_deaths_total", _JOB, "Lanes that died and were started anew."),
    _counter("items_replayed_total", _JOB, "Items that went through the graph again because a lane died."),
    # Of the store.
    _gauge(
        "upload_speed_bytes_per_second",
        (),
        "Bytes a second sent to the store: of late, or by the last backup or copy.",
    ),
    _counter("upload_bytes_total", (), "Bytes sent to the store."),
    _counter("download_bytes_total", (), "Bytes received from the store."),
    Metric(
        PREFIX + "store_request_seconds",
        "histogram",
        ("op", "outcome"),
        "How long requests of the store took; each attempt is one.",
        REQUEST_BUCKETS,
    ),
    _counter("store_failures_total", ("outcome",), "Requests of the store that failed, by how."),
    # Of the program.
    _gauge("heartbeat_timestamp", (), "The same as lox_agent_heartbeat_timestamp_seconds."),
    _gauge("heartbeat_timestamp_seconds", (), "When the program last showed that it goes on."),
    _gauge("heartbeat_interval_seconds", (), "How often it is going to; 0 once it has ended as it should."),
    _gauge("build_info", ("version", "python", "executor"), "1; the labels say what runs.", alone=True),
)

BY_NAME = {metric.name: metric for metric in CATALOG}
BY_SAMPLE = {sample: metric for metric in CATALOG for sample in metric.samples}
