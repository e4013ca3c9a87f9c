"""What Prometheus is told of runs: by real runs, while they run and afterwards, over HTTP and in a file."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from model.errors import ConfigError
from pipelines.backup import BackupReport
from pipelines.metrics.catalog import BY_SAMPLE, CATALOG
from pipelines.metrics.endpoint import Endpoint
from pipelines.metrics.run import MeteredWatch, RunMeter, reason_of
from pipelines.metrics.textfile import TextFile, parse
from pipelines.metrics.values import Values, exposition
from pipelines.options import Watch
from repository.store import LocalStore, MemoryStore
from repository.store.base import Bytes
from repository.store.measured import MeasuredStore, Requests
from repository.store.wrapped import WrappedStore
from runtime.trace import StageTrace, Trace
from tests.pipelines.helpers import Place, as_nobody
from tests.pipelines.scraping import Scraped, fetch, one, promtool, scrape

JOB = "web-files"
READ = ("lox_agent_stage_bytes_total", frozenset({("job", JOB), ("stage", "read"), ("direction", "out")}))
KNOWN_COMPLAINT = 'lox_agent_backup_files_count non-histogram and non-summary metrics should not have "_count" suffix'


class Gate(WrappedStore):
    """Calls `meanwhile` before the first pack is stored, in the thread of a lane that stores it."""

    def __init__(self, inner: LocalStore, meanwhile: Callable[[], None]) -> None:
        super().__init__(inner)
        self._meanwhile = meanwhile
        self._packs = 0

    def put(self, name: str, parts: Sequence[Bytes]) -> None:
        if name.startswith("packs/"):
            self._packs += 1
            if self._packs == 1:
                self._meanwhile()
        super().put(name, parts)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three files that do not compress, 24 MiB; one of them twice."""
    root = tmp_path / "tree"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_bytes(os.urandom(8 << 20))
    (root / "c").write_bytes((root / "a").read_bytes())
    return root


def metered(
    place: Place, values: Values, tree: Path, request: Mapping[str, object] = MappingProxyType({}), **more: object
) -> BackupReport:
    """A backup with a meter, as the command makes it; `request` is what is asked of it."""
    meter = RunMeter(values, JOB, "backup", **more)  # type: ignore[arg-type]
    report = place.backup(tree, watch=MeteredWatch(meter, Watch()), **request)
    meter.backed_up(report)
    meter.ended("partial" if report.problems else "success")
    return report


def test_a_run_is_scraped_while_it_runs_and_afterwards(tmp_path: Path, tree: Path) -> None:
    pages: list[str] = []

    def look() -> None:
        deadline = time.monotonic() + 20
        page = fetch(endpoint.url)
        while READ not in scrape(page) or not scrape(page)[READ]:  # a tick of the run is some time off
            assert time.monotonic() < deadline
            time.sleep(0.05)
            page = fetch(endpoint.url)
        pages.append(page)

    values = Values()
    endpoint = Endpoint(values, "127.0.0.1", 0)
    try:
        place = Place(tmp_path / "r", store=Gate(LocalStore(os.fspath(tmp_path / "r")), look), lanes=1)
        place.repository.store = MeasuredStore(place.repository.store)
        begin = time.time()
        report = metered(place, values, tree)
        pages.append(fetch(endpoint.url))
    finally:
        endpoint.close()
    during, after = map(scrape, pages)

    assert one(during, "running", job=JOB, operation="backup") == 1
    assert 0 < during[READ] <= 24 << 20
    assert one(during, "backup_total", job=JOB, status="success") == 0
    assert one(during, "heartbeat_timestamp") >= begin
    assert one(during, "heartbeat_interval_seconds") > 0

    assert one(after, "running", job=JOB, operation="backup") == 0
    _agrees(after, report)
    assert one(after, "heartbeat_interval_seconds") == 0
    assert begin <= one(after, "backup_last_success_timestamp_seconds", job=JOB) <= time.time()
    for key, value in during.items():  # counters never go back
        if BY_SAMPLE[key[0]].kind != "gauge":
            assert after[key] >= value, key


def _agrees(after: Scraped, report: BackupReport) -> None:
    assert one(after, "backup_total", job=JOB, status="success") == 1
    assert one(after, "backup_total", job=JOB, status="failed") == 0
    assert one(after, "backup_duration_seconds", job=JOB) == pytest.approx(report.seconds)
    assert one(after, "backup_size_bytes", job=JOB) == report.bytes_total == 24 << 20
    assert one(after, "backup_files_count", job=JOB) == one(after, "backup_files", job=JOB) == report.files == 3
    assert one(after, "dedup_ratio", job=JOB) == pytest.approx(report.bytes_total / report.bytes_new)
    assert one(after, "backup_read_bytes_total", job=JOB) == report.bytes_read
    assert one(after, "dedup_unique_bytes_total", job=JOB) == report.bytes_new
    assert one(after, "upload_bytes_total") >= report.bytes_stored > 0
    assert one(after, "upload_speed_bytes_per_second") > 0
    for line in report.trace.stages:
        stage = {"job": JOB, "stage": line.name}
        assert one(after, "stage_items_total", **stage, direction="in") == line.items_in
        assert one(after, "stage_bytes_total", **stage, direction="out") == line.bytes_out
        assert one(after, "stage_busy_seconds_total", **stage) == pytest.approx(line.busy)
        assert one(after, "stage_lanes", **stage) == line.lanes
        whole = sum(one(after, f"stage_{part}_seconds_total", **stage) for part in ("busy", "starved", "blocked"))
        assert whole >= line.lanes * report.trace.wall * 0.999


@pytest.mark.root
def test_problems_are_told_by_reason_and_without_names(tmp_path: Path, tree: Path) -> None:
    place, values = Place(tmp_path / "r", store=MemoryStore()), Values()
    place.backup(tree)  # imports what nobody may not
    (tree / "secret-name").write_text("x")
    for each in [tree, *tree.iterdir()]:
        each.chmod(0o755)
    (tree / "secret-name").chmod(0)
    for each in [tmp_path, *tmp_path.parents][:4]:
        each.chmod(each.stat().st_mode | 0o011)
    with as_nobody():
        report = metered(place, values, tree)
    text = exposition(values.samples()).decode()
    problems = dict(report.problems)  # folders above ours may not be read either
    assert os.fsencode(tree / "secret-name")[1:] in problems and set(problems.values()) == {"permission denied"}
    assert "secret-name" not in text and str(tree) not in text
    found = scrape(text)
    assert one(found, "backup_errors_total", job=JOB, reason="permission") == len(problems)
    assert one(found, "backup_total", job=JOB, status="partial") == 1
    assert one(found, "backup_problems", job=JOB) == len(problems)


@pytest.mark.ray
def test_lanes_in_other_processes_are_counted_too(tmp_path: Path, tree: Path) -> None:
    values = Values()
    place = Place(tmp_path / "r", executor="ray")
    place.repository.store = MeasuredStore(place.repository.store)
    report = metered(place, values, tree)
    after = scrape(exposition(values.samples()).decode())
    _agrees(after, report)
    packs = sum(1 for _ in place.repository.store.list("packs/"))
    assert one(after, "store_request_seconds_count", op="put", outcome="ok") >= packs
    assert any(dict(labels).get("executor") == "ray" for name, labels in after if name == "lox_agent_build_info")


def full_of_everything() -> Values:
    """Values in which every metric has a series."""
    values = Values(Requests())
    for operation in ("check", "backup"):
        meter = RunMeter(values, JOB, operation, every=86400.0)
        meter.traced(_trace(1.0, busy=0.5))
        meter.problem("permission denied")
        meter.checked(0)
        meter.ended("success")
    values.run_by("threads")
    values.observe("backup_run_duration_seconds", 61.0, JOB)
    for metric in CATALOG:
        if metric.kind == "gauge" and (metric.name, ()) not in values.samples() and metric.labels == ("job",):
            values.put(metric.name.removeprefix("lox_agent_"), 1.0, JOB)
        if metric.kind == "counter" and metric.labels == ("job",):
            values.add(metric.name.removeprefix("lox_agent_"), 1, JOB)
    values._requests.count("put", "ok", 0.3, sent=10)
    return values


def _trace(wall: float, busy: float, items: int = 1, starved: float = 0.0) -> Trace:
    line = StageTrace("read", "read-upload", 1, items, items, 10 * items, 10 * items, busy, starved)
    return Trace("threads", wall, (line,), fed=items, acked=0)


def test_every_metric_of_the_catalog_can_be_scraped_and_promtool_has_no_complaint_but_one() -> None:
    data = exposition(full_of_everything().samples())
    names = {BY_SAMPLE[name].name for name, _ in scrape(data.decode())}
    assert names == {metric.name for metric in CATALOG}
    checked = promtool("check", "metrics", given=data)
    # The name is given by what the product promises; lox_agent_backup_files is the same number under a better one.
    assert checked.stderr.decode().splitlines() == [KNOWN_COMPLAINT]


def test_a_counter_of_a_trace_never_goes_back_and_goes_on_with_the_next_plan() -> None:
    values = Values(Requests())
    meter = RunMeter(values, JOB, "copy")

    def seen(name: str) -> float:
        return one(scrape(exposition(values.samples()).decode()), name, job=JOB, stage="read")

    meter.traced(_trace(1.0, busy=0.1, starved=0.9))
    meter.traced(_trace(2.0, busy=1.5, starved=0.5))  # the long item is finished: that was work, not waiting
    assert seen("stage_starved_seconds_total") == pytest.approx(0.9)
    meter.traced(_trace(3.0, busy=1.6, starved=1.4))
    assert seen("stage_starved_seconds_total") == pytest.approx(1.4)
    meter.traced(_trace(0.5, busy=0.4, starved=0.1))  # a further plan of the same run
    meter.ended("success")
    assert seen("stage_busy_seconds_total") == pytest.approx(2.0)
    assert seen("stage_starved_seconds_total") == pytest.approx(1.5)


def test_progress_is_when_something_changed_not_when_somebody_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000, 2000))
    monkeypatch.setattr("time.time", lambda: float(next(now)))
    values = Values(Requests())
    meter = RunMeter(values, JOB, "check")

    def got_on() -> float:
        return values.samples()["lox_agent_progress_timestamp_seconds", (JOB, "check")]

    meter.at("step", ("reading packs", 1))
    first = got_on()
    for _ in range(5):
        meter.at("step", ("reading packs", 1))
    assert got_on() == first
    meter.at("step", ("reading packs", 2))
    assert got_on() > first
    meter.ended("cancelled")


@pytest.mark.parametrize(
    ("status", "success", "completion"),
    [("success", True, True), ("partial", True, True), ("failed", False, True), ("cancelled", False, False)],
)
def test_what_counts_as_the_last_success_of_a_backup(status: str, success: bool, completion: bool) -> None:
    values = Values(Requests())
    RunMeter(values, JOB, "backup").ended(status)
    samples = values.samples()
    assert (("lox_agent_backup_last_success_timestamp_seconds", (JOB,)) in samples) == success
    assert (("lox_agent_backup_last_completion_timestamp_seconds", (JOB,)) in samples) == completion
    assert samples["lox_agent_backup_total", (JOB, status)] == 1


def test_a_partial_restore_is_no_success() -> None:
    values = Values(Requests())
    RunMeter(values, "restore", "restore").ended("partial")
    assert not [key for key in values.samples() if "last_success" in key[0]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("permission denied", "permission"),
        ("vanished while reading", "vanished"),
        ("changed while reading", "changed"),
        ("input/output error", "io"),
        ("a chunk of it is in no index: lox check lists what is lost", "damaged"),
        ("/srv/secret-name: no idea", "other"),
    ],
)
def test_problems_are_counted_by_reason_and_nothing_of_their_text_is_a_label(text: str, reason: str) -> None:
    assert reason_of(text) == reason


# ---- the file


def test_counters_go_on_in_the_file_and_gauges_are_those_of_the_last_run(tmp_path: Path, tree: Path) -> None:
    path = tmp_path / "lox.prom"
    place = Place(tmp_path / "r")
    reports = []
    for _ in range(2):
        values = Values()
        file = TextFile(os.fspath(path), values)
        reports.append(metered(place, values, tree, on_beat=lambda last, file=file: file.write(1.0)))
        (tree / "new").write_bytes(os.urandom(1000))
    found = scrape(path.read_text())
    assert one(found, "backup_total", job=JOB, status="success") == 2
    assert one(found, "backup_run_duration_seconds_count", job=JOB) == 2
    assert one(found, "backup_files_count", job=JOB) == reports[1].files == 4
    logical, new = (sum(getattr(report, name) for report in reports) for name in ("bytes_total", "bytes_new"))
    assert one(found, "dedup_logical_bytes_total", job=JOB) == logical
    assert one(found, "dedup_ratio", job=JOB) == pytest.approx(logical / new)
    assert one(found, "backup_new_bytes", job=JOB) == reports[1].bytes_new == 1000
    assert one(found, "stage_items_total", job=JOB, stage="scan", direction="out") == sum(
        report.trace.stage("scan").items_out for report in reports
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert {each.name for each in tmp_path.iterdir()} == {"lox.prom", ".lox.prom.lock", "r", "tree"}


def test_a_backup_without_deduplication_leaves_the_ratio_alone(tmp_path: Path, tree: Path) -> None:
    """It tells nothing of the data that all of it was stored again; that it was is told."""
    path, place, ratios = tmp_path / "lox.prom", Place(tmp_path / "r"), []
    for deduplicate in (True, False):
        values, request = Values(), {"mode": "full", "deduplicate": deduplicate}
        file = TextFile(os.fspath(path), values)
        metered(place, values, tree, request, on_beat=lambda last, file=file: file.write(1.0))
        found = scrape(path.read_text())
        ratios.append(one(found, "dedup_ratio", job=JOB))
        assert one(found, "backup_deduplicated", job=JOB) == int(deduplicate)
    assert ratios[0] == ratios[1] > 1
    assert one(found, "backup_new_bytes", job=JOB) == one(found, "backup_size_bytes", job=JOB)


def test_two_runs_write_one_file_and_lose_nothing(tmp_path: Path) -> None:
    path = os.fspath(tmp_path / "lox.prom")
    failures: list[BaseException] = []

    def write(job: str) -> None:
        values = Values(Requests())
        file = TextFile(path, values)
        try:
            for _ in range(25):
                values.add("backup_total", 1, job, "success")
                values.add("upload_bytes_total", 10)
                assert file.write(30.0)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(job,)) for job in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    found = scrape((tmp_path / "lox.prom").read_text())
    assert one(found, "backup_total", job="one", status="success") == 25
    assert one(found, "backup_total", job="two", status="success") == 25
    assert one(found, "upload_bytes_total") == 500


def test_the_file_is_whole_whenever_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "lox.prom"
    values = full_of_everything()
    file = TextFile(os.fspath(path), values)
    file.write(1.0)
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            values.add("upload_bytes_total", 1)
            file.write(1.0)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        for _ in range(30):
            assert {BY_SAMPLE[name].name for name, _ in scrape(path.read_text())} == {each.name for each in CATALOG}
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("content", [b"node_load1 0.5\n", b"\xff\xfe", b"lox_agent_backup_total{job= 1\n", b"hello\n"])
def test_a_file_that_is_not_ours_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.prom"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a file of our metrics"):
        TextFile(os.fspath(path), Values(Requests())).write(1.0)
    assert path.read_bytes() == content


def test_what_the_file_says_comes_back_exactly() -> None:
    samples = full_of_everything().samples()
    samples["lox_agent_backup_total", ('quo"te\\back\nline', "success")] = 7.0
    samples["lox_agent_backup_size_bytes", (JOB,)] = float((1 << 52) + 1)
    assert parse(exposition(samples).decode()) == samples


def test_build_info_of_an_older_version_does_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "lox.prom"
    path.write_text('lox_agent_build_info{version="0.0.1",python="3.9.1",executor="threads"} 1\n')
    values = Values(Requests())
    values.run_by("inline")
    TextFile(os.fspath(path), values).write(1.0)
    assert [dict(labels)["executor"] for name, labels in scrape(path.read_text()) if "build_info" in name] == ["inline"]


@pytest.fixture(autouse=True)
def _no_threads_stay() -> Iterator[None]:
    yield
    left = [thread for thread in threading.enumerate() if thread.name == "metrics"]
    assert all(not thread.is_alive() for thread in left), left
