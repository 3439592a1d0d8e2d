"""A muxer in memory in which everything that the metrics can show has occurred."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from muxer.errors import ServiceUnavailable
from muxer.gir.rws import Certificate
from muxer.journal.journal import BacklogSample, Journal, TargetKey, epoch_now
from muxer.monitoring.view import ViewSources
from muxer.status import activity
from muxer.status.last_audit import LastAudit
from tests.support.fleet_views import fleet_view, worker_view
from tests.support.monitoring import create_certificate, create_sources
from tests.support.tls import pem_bundle, self_signed

COPIED_FACTS = {"method": "copy", "length": 60.0, "padding": 2.5, "bytes": 1000}


def populated_sources(folder: Path) -> ViewSources:
    """Return sources with a value for every metric."""
    certificate, key, _ = create_certificate(folder)
    paths = {"htcc__trusted_ca": certificate, "monitoring__certificate": certificate, "monitoring__key": key}
    options: dict[str, object] = {**paths, "audit__every": "7 days"}
    sources = create_sources(folder, journal=_create_journal(folder / "journal.sqlite3"), **options)
    recipient = Certificate("recipient", pem_bundle(self_signed("recipient")).decode())
    _record_activity(sources.activity)
    with sources.circuit_breaker.call("RWS"):
        pass
    error = ServiceUnavailable("no answer")
    error.service = "S3 bucket calls"
    sources.circuit_breaker.trip(error)
    audit = LastAudit(epoch_now() - 60, 1, epoch_now() - 3600, 20, 10, {"missing": 1})
    return replace(sources, recipients=lambda: (recipient,), audit=lambda: audit)


def populated_fleet_sources(folder: Path) -> ViewSources:
    """Return sources with a value for every metric, including those of a fleet."""
    return replace(populated_sources(folder), fleet=lambda: fleet_view(worker_view()))


def _record_activity(done: activity.Activity) -> None:
    done.record_poll_start()
    done.record_poll_success(
        {"found": 3, "ours": 3, "without_screen": 1, "already_done": 1, "waiting": 1}, 0.25, epoch_now() - 1000
    )
    done.record_reach(6000, is_whole=True, seconds_to_whole=2250)
    done.record_poll_failure("ServiceUnavailable: no answer")
    done.count_error("RWS", "ServiceUnavailable")
    done.count_bytes(activity.FETCHED, "RWS", 500)
    done.count_bytes(activity.STORED, "S3 bucket calls", 1000)
    done.count_outcome("muxed", COPIED_FACTS)
    done.count_outcome("muxed", COPIED_FACTS | {"method": "starts between keyframes", "length": 30.0})
    done.count_outcome("failed", {})


def _create_journal(path: Path) -> Path:
    journal = Journal(path)
    journal.record_done(TargetKey("1_muxed.mp4", "1", "agent"), epoch_now(), COPIED_FACTS)
    journal.record_failure(TargetKey("2_muxed.mp4", "2", "agent"), ValueError("broken"), epoch_now())
    journal.record_sample(BacklogSample(int(epoch_now()), 1, 2, 3, epoch_now()))
    journal.close()
    return path
