"""The metrics of a host: those that its runs write into a file, and what the agent itself knows, on one page.

Each run counts in its own process and adds to the file when it ends, so nothing is lost with the agent.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.config import Metrics
from agent.logs import log
from model.errors import ConfigError
from pipelines.metrics.catalog import BY_SAMPLE, STATUSES
from pipelines.metrics.endpoint import Endpoint, parse_listen
from pipelines.metrics.textfile import FILE_MAX, TextFile, parse
from pipelines.metrics.values import Samples, Values, registry_of

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

FALLBACK_PORT = 19100  # if 9100, which is node_exporter's, is taken
EVERYWHERE = "0.0.0.0"
PATIENCE = 0.5  # seconds to wait for a run that writes the file


class AgentMetrics:
    """Kept in `file`; served at `port` once `serve` was called, if it could be."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.port: int | None = None
        self.warning = ""
        self._values = Values()
        self._text = TextFile(os.fspath(file), self._values)
        self._endpoint: Endpoint | None = None
        self._expected: frozenset[str] = frozenset()
        self._gone: frozenset[str] = frozenset()  # jobs of which the file may still tell
        self._told: set[str] = set()  # jobs of which a run was told that is not in the file yet

    def serve(self, config: Metrics) -> None:
        """Listen as the configuration says; if the port is taken at the fallback, with a warning; else nowhere."""
        if config.listen is None:
            return
        text = config.listen
        host, port = parse_listen(text[1:] if text.startswith(":") else text)
        host = EVERYWHERE if text.startswith(":") else host
        for each in dict.fromkeys((port, FALLBACK_PORT)):
            try:
                self._endpoint = Endpoint(self, host, each)
            except OSError as error:
                self.warning = f"metrics cannot be served at port {each}: {(error.strerror or str(error)).lower()}"
                log().warning(self.warning)
                continue
            self.port = self._endpoint.port
            if each != port:
                self.warning += f"; they are at port {each}"
            log().info("metrics are served", url=self._endpoint.url)
            return

    def close(self) -> None:
        """Say that the agent ends as it should, and let go of the port."""
        self.beat(0)
        if self._endpoint is not None:
            self._endpoint.close()

    def beat(self, interval: float) -> None:
        """The agent lives, and will say so again within so many seconds."""
        self._values.run_by("agent")
        self._values.beat(interval)
        self._write()

    def expect(self, jobs: Iterable[tuple[str, float | None]]) -> None:
        """These are the jobs, and how often each is to succeed (None: when somebody asks): all series are there before
        anything happens, and of jobs that were expected until now there are none any more."""
        expected = dict(jobs)
        for job, every in expected.items():
            for status in STATUSES:
                self._values.add("backup_total", 0, job, status)
            self._values.put("job_expected_interval_seconds", every or 0.0, job)
        self._gone = (self._gone | self._expected) - expected.keys()
        self._expected = frozenset(expected)
        self._write(PATIENCE)

    def failed(self, job: str, status: str = "failed") -> None:
        """A run ended that could not count itself: it never began, or was killed."""
        self._values.add("backup_total", 1, job, status)
        self._values.put("running", 0, job, "backup")
        if status != "cancelled":
            self._values.put("backup_last_completion_timestamp_seconds", time.time(), job)
        self._told.add(job)
        self._write(PATIENCE)

    def samples(self) -> Samples:
        """All samples: counters as they are in the file, where everybody adds to them; gauges of the agent as now."""
        try:
            with self.file.open("rb") as opened:
                found = parse(opened.read(FILE_MAX).decode())
        except (OSError, ValueError, KeyError):
            return self._values.samples()
        own = self._values.samples()
        return found | {key: value for key, value in own.items() if BY_SAMPLE[key[0]].kind == "gauge"
                        and not (key in found and "speed" in key[0])}  # fmt: skip

    def registry(self) -> CollectorRegistry:
        """What prometheus_client serves."""
        return registry_of(self.samples)

    def _write(self, patience: float = 0.0) -> None:
        """What was told of a run is said once: the next run of the job says itself how it goes."""
        with suppress(ConfigError):
            if self._text.forget(self._gone, patience) if self._gone else self._text.write(patience):
                for job in self._told:
                    self._values.forget(job, "running", "backup_last_completion_timestamp_seconds")
                self._gone, self._told = frozenset(), set()
