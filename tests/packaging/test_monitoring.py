"""Shipped rules, dashboards and docs/metrics.md speak only of metrics that there are, and promtool takes the rules."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.metrics.catalog import BY_SAMPLE, CATALOG
from pipelines.metrics.values import label_names
from tests.packaging.project import ROOT
from tests.pipelines.scraping import promtool

RULES = ROOT / "configs" / "prometheus"
DASHBOARDS = sorted((ROOT / "configs" / "grafana").glob("*.json"))
PAGE = (ROOT / "docs" / "metrics.md").read_text()
TARGET = {"job", "instance"}  # labels that every scraped series has
# What may stand in our expressions beside metrics and labels.
WORDS = {
    "and", "or", "unless", "by", "on", "offset", "time", "sum", "max", "avg", "count", "group", "rate", "increase",
    "vector",    "histogram_quantile", "quantile_over_time", "present_over_time", "le",
}  # fmt: skip
VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*"}

METRIC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^}]*\})?")
MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"')
GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def rules(name: str) -> list[dict[str, Any]]:
    """All rules of a file."""
    content = yaml.safe_load((RULES / name).read_text())
    return [rule for group in content["groups"] for rule in group["rules"]]


def recorded() -> dict[str, set[str]]:
    """Series that recording rules make → the labels they may have: their names tell."""
    known = {"instance": "instance", "job": "job", "stage": "stage", "op": "op"}
    return {
        rule["record"]: {known[part] for part in rule["record"].partition(":")[0].split("_")}
        for rule in rules("lox-recording.yml")
    }


def complaints(expression: str) -> list[str]:
    """Names and labels of an expression that nobody provides."""
    found = []
    labels_of = {sample: {*label_names(metric, sample)} for sample, metric in BY_SAMPLE.items()} | recorded()
    bare = GROUPING.sub(" ", expression)
    reachable: set[str] = set()
    for name, selector in METRIC.findall(re.sub(r'"(?:[^"\\]|\\.)*"', '""', bare)):
        if name in labels_of:
            reachable |= labels_of[name]
        elif name not in WORDS and not re.fullmatch(r"[smhd]", name):
            found.append(f"no such metric: {name}")
        assert not selector or name in labels_of or found
    for name, selector in METRIC.findall(bare):
        for label in MATCHER.findall(selector):
            if label not in labels_of.get(name, set()) | TARGET:
                found.append(f"{name} has no label {label}")
    for group in GROUPING.findall(expression):
        found += [
            f"no label {label}" for label in re.findall(r"\w+", group) if label not in reachable | TARGET | {"le"}
        ]
    return found


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels, those in rows too."""
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", ())


def expressions(path: Path) -> list[str]:
    """Every expression of a dashboard, with its variables filled in."""
    texts = [target["expr"] for panel in panels(json.loads(path.read_text())) for target in panel.get("targets", ())]
    for variable, value in VARIABLES.items():
        texts = [text.replace(variable, value) for text in texts]
    return texts


@pytest.mark.parametrize("name", ["lox-alerts.yml", "lox-recording.yml"])
def test_rules_speak_of_metrics_that_there_are(name: str) -> None:
    assert {rule["expr"]: found for rule in rules(name) if (found := complaints(rule["expr"]))} == {}


def test_the_check_of_expressions_finds_what_is_wrong() -> None:
    assert complaints("rate(lox_agent_backup_totals[5m])") == ["no such metric: lox_agent_backup_totals"]
    assert complaints('lox_agent_backup_total{path="x"}') == ["lox_agent_backup_total has no label path"]
    assert complaints("sum by (stage) (lox_agent_backup_total)") == ["no label stage"]
    assert complaints("rates(lox_agent_backup_total[5m])") == ["no such metric: rates"]
    assert complaints('sum by (job, le) (rate(lox_agent_backup_run_duration_seconds_bucket{le="10.0"}[5m]))') == []


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: str(path.stem))
def test_dashboards_speak_of_metrics_that_there_are(path: Path) -> None:
    found = expressions(path)
    assert len(found) >= 10
    assert {text: wrong for text in found if (wrong := complaints(text))} == {}
    dashboard = json.loads(path.read_text())
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert {"datasource", "instance", "job"} == set(variables)
    for query in [each["query"]["query"] for each in variables.values() if each["type"] == "query"]:
        name = re.match(r"label_values\((\w+)", query)
        assert name and name[1] in BY_SAMPLE
    builtin = {"timeseries", "stat", "table", "bargauge"}
    assert {panel["type"] for panel in panels(dashboard)} <= builtin, "nobody wants to install plugins"
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels(dashboard))


def test_dashboards_have_ids_of_their_own_and_panels_do_not_overlap() -> None:
    dashboards = [json.loads(path.read_text()) for path in DASHBOARDS]
    assert [path.stem for path in DASHBOARDS] == ["fleet", "pipeline", "storage"]
    assert len({dashboard["uid"] for dashboard in dashboards}) == 3
    for dashboard in dashboards:
        places = [panel["gridPos"] for panel in panels(dashboard)]
        cells = [
            (x, y)
            for at in places
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ]
        assert len(cells) == len(set(cells)) and all(x < 24 for x, _ in cells)


def test_promtool_takes_rules_and_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    texts = [text for path in DASHBOARDS for text in expressions(path)]
    content = {
        "groups": [{"name": "g", "rules": [{"record": f"r{at}", "expr": text} for at, text in enumerate(texts)]}]
    }
    (tmp_path / "dashboards.yml").write_text(json.dumps(content))
    checked = promtool(
        "check", "rules", tmp_path / "dashboards.yml", RULES / "lox-alerts.yml", RULES / "lox-recording.yml"
    )
    assert checked.returncode == 0, checked.stderr.decode()
    checked = promtool("check", "config", RULES / "prometheus.yml")
    assert checked.returncode == 0, checked.stderr.decode()


@pytest.mark.parametrize("name", ["lox-alerts_test.yml", "lox-alerts-days_test.yml", "lox-recording_test.yml"])
def test_rules_do_what_their_tests_say(name: str) -> None:
    tested = promtool("test", "rules", RULES / name)
    assert tested.returncode == 0, (tested.stdout + tested.stderr).decode()


def test_every_alert_is_tested_and_has_its_part_in_the_handbook() -> None:
    pages = [yaml.safe_load(path.read_text()) for path in RULES.glob("lox-alerts*_test.yml")]
    tests = [test for page in pages for test in page["tests"]]
    fired = {case["alertname"] for test in tests for case in test.get("alert_rule_test", ()) if case.get("exp_alerts")}
    alerts = rules("lox-alerts.yml")
    assert fired == {rule["alert"] for rule in alerts}
    headings = {re.sub(r"[^a-z0-9-]", "", text.lower()) for text in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)}
    for rule in alerts:
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["runbook"] == f"docs/metrics.md#{rule['alert'].lower()}"
        assert rule["alert"].lower() in headings


def test_the_handbook_lists_every_metric_as_it_is() -> None:
    rows = re.findall(r"^\| `(lox_agent_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", PAGE, re.MULTILINE)
    wanted = [
        (metric.name, metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.help)
        for metric in CATALOG
    ]
    assert [(name, kind, labels.strip(), text.strip()) for name, kind, labels, text in rows] == wanted


def test_the_names_that_the_product_promises_are_there() -> None:
    """Word for word: dashboards of others count on them."""
    promised = {
        "lox_agent_backup_total": ("job", "status"),
        "lox_agent_backup_duration_seconds": ("job",),
        "lox_agent_backup_size_bytes": ("job",),
        "lox_agent_backup_files_count": ("job",),
        "lox_agent_dedup_ratio": ("job",),
        "lox_agent_upload_speed_bytes_per_second": (),
        "lox_agent_heartbeat_timestamp": (),
    }
    assert {name: BY_SAMPLE[name].labels for name in promised} == promised
