"""The metrics of what the muxer has counted."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from muxer.monitoring.certificate_expiry import CertificateExpiries
from muxer.monitoring.metrics import MuxerCollector, poll_metrics, total_metrics
from muxer.monitoring.view import ViewSources, gather_status
from muxer.status.activity import DURATION_BUCKETS, Activity, DurationHistogram, WorkTotals
from tests.support.fleet_views import NOW, fleet_view, worker_view
from tests.support.monitoring import create_certificate, create_sources, parse_samples
from tests.support.populated_sources import populated_sources
from tests.support.status_views import running_job


def scrape_metrics(sources: ViewSources) -> dict[str, float]:
    return parse_samples(MuxerCollector(sources).render_exposition("")[0].decode())


def test_everything_that_was_counted_is_exported(tmp_path: Path) -> None:
    found = scrape_metrics(populated_sources(tmp_path))
    assert found['muxer_targets_total{outcome="muxed"}'] == 2
    assert found['muxer_targets_total{outcome="failed"}'] == 1
    assert found['muxer_targets_total{outcome="already done"}'] == 0
    assert found['muxer_results_total{method="copy"}'] == found['muxer_results_total{method="re-encode"}'] == 1
    assert found["muxer_muxed_seconds_total"] == 90 and found["muxer_padding_seconds_total"] == 5
    assert found['muxer_moved_bytes_total{direction="fetched",service="RWS"}'] == 500
    assert found['muxer_errors_total{service="RWS",type="ServiceUnavailable"}'] == 1
    assert found['muxer_polls_total{result="succeeded"}'] == found['muxer_polls_total{result="failed"}'] == 1
    assert found['muxer_last_poll_recordings{kind="found"}'] == 3 and found['muxer_last_poll_targets{kind="waiting"}'] == 1
    assert found["muxer_last_poll_reach_seconds"] == 6000
    whole = found["muxer_last_whole_window_timestamp_seconds"]
    assert whole == found["muxer_last_successful_poll_timestamp_seconds"]
    assert 1000 <= found["muxer_oldest_unmuxed_age_seconds"] < 1100
    assert found['muxer_service_up{service="RWS"}'] == 1 and found['muxer_service_up{service="S3 bucket calls"}'] == 0
    assert found["muxer_outages_total"] == 1
    assert time.time() - found['muxer_service_last_success_timestamp_seconds{service="RWS"}'] < 60
    assert found['muxer_journal_targets{state="done"}'] == found['muxer_journal_targets{state="retry"}'] == 1
    assert found['muxer_journal_targets{state="aside"}'] == 0
    assert found["muxer_workers"] == 5 and found["muxer_queue_size"] == 20 and found["muxer_window_seconds"] == 43_200
    assert found["muxer_disk_reserved_bytes"] == 1 << 20 and found["muxer_disk_free_bytes"] > 0
    assert found["muxer_ready"] == 0 and found["muxer_live"] == 1


def test_a_step_is_a_histogram_whose_buckets_add_up() -> None:
    durations = DurationHistogram()
    for seconds in (0.01, 0.05, 0.3, 7000.0):
        durations.add_duration(seconds)
    [steps] = [
        metric
        for metric in total_metrics(WorkTotals(steps={"mux": durations}))
        if metric.name == "muxer_step_duration_seconds"
    ]
    samples = {
        (sample.name, sample.labels.get("le")): sample.value for sample in steps.samples if sample.labels["step"] == "mux"
    }
    counts = [samples["muxer_step_duration_seconds_bucket", str(bound)] for bound in DURATION_BUCKETS]
    assert counts[:4] == [2, 2, 2, 3] and counts == sorted(counts) and counts[-1] == 3
    assert samples["muxer_step_duration_seconds_bucket", "+Inf"] == samples["muxer_step_duration_seconds_count", None] == 4
    assert samples["muxer_step_duration_seconds_sum", None] == pytest.approx(7000.36)
    assert {item.labels["step"] for item in steps.samples} >= {"check", "fetch", "mux", "publish"}


def test_before_the_first_poll_there_are_no_poll_metrics(tmp_path: Path) -> None:
    sources = create_sources(tmp_path)
    assert [metric.name for metric in poll_metrics(sources.activity.take_snapshot().polls, time.time())] == ["muxer_polls"]
    found = scrape_metrics(sources)
    assert found["muxer_ready"] == 0 and found['muxer_targets_total{outcome="muxed"}'] == 0
    assert found['muxer_service_up{service="RWS"}'] == 1 and 'muxer_service_up{service="RCS"}' not in found
    assert 'muxer_journal_targets{state="done"}' not in found


def test_without_open_recordings_the_age_is_zero(tmp_path: Path) -> None:
    sources = create_sources(tmp_path)
    sources.activity.record_poll_success({}, 0.1, None)
    assert scrape_metrics(sources)["muxer_oldest_unmuxed_age_seconds"] == 0


def test_certificate_expiry_is_exported_and_updated_when_a_certificate_is_replaced(tmp_path: Path) -> None:
    sources = populated_sources(tmp_path)
    expiries = CertificateExpiries(sources.config)
    found = {(expiry.kind, expiry.name): expiry.at for expiry in expiries.read_expiries(sources.recipients())}
    assert set(found) == {("trusted_ca", "htcc"), ("monitoring", "monitoring"), ("recipient", "recipient")}
    day = 86_400
    assert all(0.9 * day < at - datetime.now(UTC).timestamp() <= day for at in found.values())
    certificate, _, _ = create_certificate(tmp_path, end=10)
    certificate.touch()
    [renewed] = [item.at for item in expiries.read_expiries(()) if item.kind == "monitoring"]
    assert renewed > found["monitoring", "monitoring"] + 8 * day
    certificate.unlink()
    assert expiries.read_expiries(()) == ()


def test_fleet_metrics_exist_only_with_a_fleet(tmp_path: Path) -> None:
    sources = create_sources(tmp_path)
    assert not [name for name in scrape_metrics(sources) if name.startswith("muxer_fleet")]
    lanes = {"recording-muxer": 2, "recording-muxer.today": 40, "recording-muxer.backlog": 0}
    at_work = worker_view(running=(running_job("call-1", "mux"), running_job("call-2", "store")))
    changes = {"lanes": lanes, "dead": 3, "queued": 45, "running": 2, "oldest": NOW - 90}
    found = scrape_metrics(
        replace(sources, fleet=lambda: fleet_view(at_work, worker_view(1, threads=2, rate=30.5), **changes))
    )
    fleet_metrics = {
        name.removeprefix("muxer_fleet_"): value for name, value in found.items() if name.startswith("muxer_fleet")
    }
    assert fleet_metrics == {
        "up": 1,
        "workers": 2,
        'queue_messages{queue="recording-muxer"}': 2,
        'queue_messages{queue="recording-muxer.today"}': 40,
        'queue_messages{queue="recording-muxer.backlog"}': 0,
        "dead_letters": 3,
        "queued": 45,
        "running": 2,
        "oldest_message_age_seconds": 90,
        'worker_targets_per_hour{worker="host-0/worker-0"}': 120,
        'worker_targets_per_hour{worker="host-1/worker-0"}': 30.5,
        'worker_threads{worker="host-0/worker-0"}': 4,
        'worker_threads{worker="host-1/worker-0"}': 2,
        'worker_running{worker="host-0/worker-0"}': 2,
        'worker_running{worker="host-1/worker-0"}': 0,
        'worker_seen_seconds{worker="host-0/worker-0"}': 2,
        'worker_seen_seconds{worker="host-1/worker-0"}': 2,
    }
    assert (found["muxer_workers"], found["muxer_running_targets"], found["muxer_queued_targets"]) == (6, 2, 45)
    assert found["muxer_queue_size"] == 5000 and found["muxer_longest_running_seconds"] == 60


def test_only_known_values_are_exported_for_an_unavailable_broker_and_silent_workers(tmp_path: Path) -> None:
    silent = worker_view(seen=NOW - 90, running=(running_job("call-1", "mux"),))
    sources = replace(create_sources(tmp_path), fleet=lambda: fleet_view(silent, connected=False, queued=7))
    found = scrape_metrics(sources)
    fleet_metrics = {
        name.removeprefix("muxer_fleet_"): value for name, value in found.items() if name.startswith("muxer_fleet")
    }
    seen = {'worker_seen_seconds{worker="host-0/worker-0"}': 90}
    assert fleet_metrics == {"up": 0, "workers": 0, "queued": 7, "running": 1, "oldest_message_age_seconds": 0} | seen
    assert found["muxer_workers"] == found["muxer_longest_running_seconds"] == 0


def test_a_worker_and_its_replacement_are_one_series(tmp_path: Path) -> None:
    dead = worker_view(seen=NOW - 100)
    alive = worker_view(name="host-0/worker-0/999", pid=999, rate=7.0)
    found = scrape_metrics(replace(create_sources(tmp_path), fleet=lambda: fleet_view(alive, dead)))
    assert found['muxer_fleet_worker_targets_per_hour{worker="host-0/worker-0"}'] == 7
    assert found['muxer_fleet_worker_seen_seconds{worker="host-0/worker-0"}'] == 2


def test_secrets_in_messages_of_services_are_not_shown(tmp_path: Path) -> None:
    sources = create_sources(tmp_path, webdav__password="very secret")
    sources.activity.count_error("WebDAV https://user:very%20secret@dav", "Transient")
    text = MuxerCollector(sources).render_exposition("")[0].decode()
    assert "secret" not in text and 'service="WebDAV https://***@dav"' in text


def test_the_view_contains_the_data_of_the_journal(tmp_path: Path) -> None:
    view = gather_status(populated_sources(tmp_path))
    assert view.counts == {"done": 1, "retry": 1} and len(view.samples) == 1 and len(view.hours) == 25
    [done], [failed] = view.recent, view.failures
    assert done.name == "1_muxed.mp4" and done.facts["method"] == "copy"
    assert (failed.error, failed.reason, failed.state, failed.attempts) == ("ValueError", "broken", "retry", 1)
    now_hour = view.hours[-1]
    assert (now_hour.muxed, now_hour.failed, now_hour.media_seconds, now_hour.bytes) == (1, 1, 60.0, 1000)
    assert [service.name for service in view.services if not service.up] == ["S3 bucket calls"] and view.warnings == ()
    assert view.disk is not None and view.disk.reserved == 1 << 20


def test_a_poll_of_the_newest_calls_keeps_the_time_of_the_whole_window() -> None:
    done = Activity()
    for is_whole in (True, False):
        done.record_poll_success({"found": 1}, 0.1, None)
        done.record_reach(600.0, is_whole=is_whole, seconds_to_whole=60.0)
    polls = done.take_snapshot().polls
    assert polls.last_success is not None and polls.whole_success is not None and polls.whole_due is not None
    assert polls.whole_success < polls.last_success < polls.whole_due and polls.reach == 600
