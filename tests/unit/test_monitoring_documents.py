"""The metrics, their documentation, the dashboard and the alert rules name the same things."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from muxer.monitoring.metrics import MuxerCollector
from muxer.status.activity import MAX_NAMED_SERVICES, OTHERS, Activity
from tests.support.monitoring import create_sources, parse_samples
from tests.support.populated_sources import populated_fleet_sources

DOCS = Path(__file__).resolve().parents[2] / "docs"
DASHBOARD, ALERTS, PAGE = (DOCS / name for name in ("grafana-dashboard.json", "alerts.yml", "monitoring.md"))
NAME = re.compile(r"\b((?:muxer|process)_[a-z_]+)\b")
UNITS = {"none", "s", "bytes", "Bps", "percentunit"}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names of all samples of a muxer in which everything has occurred."""
    folder = tmp_path_factory.mktemp("metrics")
    exposition, _ = MuxerCollector(populated_fleet_sources(folder)).render_exposition("")
    return {name.partition("{")[0] for name in parse_samples(exposition.decode())}


def metric_family(sample: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", sample)


def documented_metrics() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| `((?:muxer|process)_\w+)` \| (\w+) \|([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    return {name: (kind, labels) for name, kind, labels in rows}


def dashboard_panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def panel_expressions() -> list[str]:
    return [target["expr"] for panel in dashboard_panels() for target in panel["targets"]]


def test_exactly_the_existing_metrics_are_documented(samples: set[str]) -> None:
    assert {metric_family(sample) for sample in samples} == set(documented_metrics())


def test_types_and_labels_are_those_of_the_page(tmp_path: Path) -> None:
    exposition = MuxerCollector(populated_fleet_sources(tmp_path)).render_exposition("")[0].decode()
    for name, (kind, labels) in documented_metrics().items():
        assert f"# TYPE {name} {kind}\n" in exposition
        found = re.findall(rf"^{name}(?:_bucket)?\{{(.*)\}} ", exposition, re.MULTILINE)
        names = {label for item in found for label in re.findall(r'(\w+)="', item)} - {"le"}
        assert names == set(re.findall(r"`(\w+)`", labels)), name


def test_the_dashboard_and_the_alerts_use_existing_metrics(samples: set[str]) -> None:
    used_metrics = {name for text in panel_expressions() for name in NAME.findall(text)}
    assert used_metrics and used_metrics <= samples
    rules = "\n".join(re.findall(r"expr: (?:\|\n(?:\s{10}.*\n)+|.*)", ALERTS.read_text()))
    used_metrics = set(NAME.findall(rules))
    assert len(used_metrics) > 10 and used_metrics <= samples


def test_every_alert_is_explained() -> None:
    alerts = re.findall(r"alert: (\w+)", ALERTS.read_text())
    assert alerts and re.findall(r"^\| `(Muxer\w+)` ", PAGE.read_text(), re.MULTILINE) == alerts


def test_the_dashboard_has_what_grafana_needs() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 36 and dashboard["title"] and dashboard["uid"]
    variables = {item["name"]: item for item in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource" and variables["datasource"]["query"] == "prometheus"
    assert {"job", "instance"} <= set(variables)
    ids = [one["id"] for one in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard_panels():
        assert panel["title"] and panel["targets"] and panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"]["uid"] == "${datasource}" and panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}" and '{job="$job",instance=~"$instance"' in target["expr"]


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken
        taken |= cells


def test_an_unbounded_number_of_services_has_a_bounded_number_of_series(tmp_path: Path) -> None:
    """Metadata can name any number of WebDAV servers."""
    activity = Activity()
    for number in range(500):
        activity.count_error(f"WebDAV https://{number}.example.com", "Transient")
        activity.count_bytes("fetched", f"WebDAV https://{number}.example.com", 1)
    totals = activity.take_snapshot().totals
    assert len(totals.errors) == len(totals.moved) == MAX_NAMED_SERVICES + 1
    assert totals.errors[OTHERS, "Transient"] == 500 - MAX_NAMED_SERVICES
    sources = create_sources(tmp_path)
    for number in range(500):
        with sources.circuit_breaker.call(f"S3 bucket {number}"):
            pass
    exposition = MuxerCollector(sources).render_exposition("")[0].decode()
    assert exposition.count("muxer_service_last_success_timestamp_seconds{") == 50
