"""The metrics of memory, journal and certificates in the format of Prometheus. This module counts nothing itself."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from muxer import __version__
from muxer.audit.findings import FindingKind
from muxer.journal import history
from muxer.journal.journal import DONE, QUEUED, RETRY, RUNNING, SET_ASIDE, WANTED
from muxer.monitoring import health
from muxer.monitoring.certificate_expiry import CertificateExpiries, CertificateExpiry
from muxer.monitoring.fleet_metrics import fleet_metric_families
from muxer.monitoring.metric_helpers import counter_metric, gauge_metric, labelled_counter, labelled_gauge, single_label
from muxer.monitoring.view import (
    DiskSpace,
    ServiceStatus,
    ViewSources,
    current_correction_need,
    current_fleet,
    known_services,
    measured_space,
)
from muxer.net.circuit_breaker import RCS, RWS
from muxer.scheduling.executor import QUEUED_PER_WORKER
from muxer.status.activity import DURATION_BUCKETS, ActivitySnapshot, DurationHistogram, PollStatistics, WorkTotals
from muxer.status.last_audit import LastAudit
from muxer.status.poll_age import poll_progress

# Accepted media types: the library repeats every parameter of the request in the content type.
_ACCEPTED = re.compile(
    r"\s*[\w*.+-]+/[\w*.+-]+(\s*;\s*(version=\d{1,3}(\.\d{1,3}){0,2}|escaping=[a-z0-9-]+|charset=[\w-]+|q=[\d.]+))*\s*",
    re.ASCII,
)
# Labels that exist from the start, so that rates have a first value.
OUTCOME_LABELS = ("muxed", "already done", "failed")
METHOD_LABELS = ("copy", "re-encode")
STEP_LABELS = ("check", "fetch", "mux", "encrypt", "store", "publish", "delete", "label")
STATE_LABELS = (WANTED, QUEUED, RUNNING, DONE, RETRY, SET_ASIDE)
RECORDING_LABELS = ("found", "ours", "without_screen", "skipped")
TARGET_LABELS = ("already_done", "submitted", "waiting")


class MuxerCollector(Collector):
    """All metrics of this process."""

    def __init__(self, sources: ViewSources, of_servers: Callable[[], tuple[CertificateExpiry, ...]] = tuple) -> None:
        """Create it. `of_servers` returns the expiry of the server certificates. Each scrape reads all sources again."""
        self._sources, self._of_servers = sources, of_servers
        self._expiries = CertificateExpiries(sources.config)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render_exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, OpenMetrics or (the default) Prometheus, for an Accept header."""
        encode, kind = choose_encoder(",".join(kind for kind in accept.split(",") if _ACCEPTED.fullmatch(kind)))
        return encode(self._registry), kind

    def describe(self) -> Iterable[Metric]:
        """Return nothing: no metric is known before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family with its current values."""
        sources = self._sources
        snapshot, config = sources.activity.take_snapshot(), sources.config
        yield from _info_metrics(config.instance_name, snapshot.started)
        yield from total_metrics(snapshot.totals, sources.secret_mask)
        yield from self._work_metrics(snapshot)
        yield from poll_metrics(snapshot.polls, snapshot.at)
        help_text = "For how long the running poll has made progress; 0 between polls."
        yield gauge_metric("muxer_poll_progress_seconds", help_text, poll_progress(snapshot.polls, sources.heartbeat))
        help_text = "Time from the start of one poll to the next."
        yield gauge_metric("muxer_poll_interval_seconds", help_text, sources.poll_interval)
        if not sources.is_migration:
            window = config.processing.window_past * 60
            yield gauge_metric("muxer_window_seconds", "How far back the window of the polls starts.", window)
        known = (RWS,) if sources.is_rcs_unused else (RWS, RCS)
        yield from service_metrics(known_services(sources), known, sources.circuit_breaker.outage_count)
        yield deviation_metric(sources.deviations.kind_counts)
        yield from journal_metrics(history.read_counts(sources.journal), sources.is_journal_kept())
        need = current_correction_need(sources, snapshot.at)
        help_text = "Recordings that wait for a correction while nothing is muxed."
        yield gauge_metric("muxer_correction_needed", help_text, need.count if need else 0)
        yield from disk_metrics(measured_space(sources.disk), sources.disk.has_room())
        if config.audit.every:
            yield from audit_metrics(sources.audit(), config.audit.every)
        yield certificate_metric([*self._expiries.read_expiries(sources.recipients()), *self._of_servers()])
        yield gauge_metric("muxer_live", "Whether /livez returns 200.", not health.liveness_problems(sources))
        yield gauge_metric("muxer_ready", "Whether /readyz returns 200.", not health.readiness_problems(sources))

    def _work_metrics(self, snapshot: ActivitySnapshot) -> Iterator[Metric]:
        fleet, config, held = current_fleet(self._sources), self._sources.config, self._sources.held()
        if fleet is None:
            threads, running, at = config.advanced.worker_threads, snapshot.running, snapshot.at
            yield from work_metrics(threads, len(running), held - len(running), threads * QUEUED_PER_WORKER)
        else:
            running, at = tuple(one for _, one in fleet.running_jobs), fleet.at
            yield from work_metrics(fleet.thread_count, fleet.running, fleet.queued, config.fleet.max_queue)
            yield from fleet_metric_families(fleet)
        longest = max((at - one.begun for one in running), default=0.0)
        help_text = "How long the oldest running muxed file has been processed."
        yield gauge_metric("muxer_longest_running_seconds", help_text, max(0.0, longest))


def audit_metrics(audit: LastAudit, every_days: float) -> Iterator[Metric]:
    """Yield the metrics of the regular audits; before the first one has ended, only their interval."""
    yield gauge_metric("muxer_audit_interval_seconds", "Time from one audit to the next.", every_days * 86_400)
    if not audit.has_ended:
        return
    yield gauge_metric("muxer_audit_timestamp_seconds", "When the last audit ended.", audit.at)
    yield gauge_metric("muxer_audit_complete", "Whether the last audit found nothing wrong.", not audit.findings)
    yield gauge_metric("muxer_audit_calls", "Call recordings of the last audit.", audit.calls)
    yield gauge_metric("muxer_audit_files", "Muxed files of the last audit.", audit.files)
    found = dict.fromkeys((kind.value for kind in FindingKind), 0) | audit.findings
    yield labelled_gauge("muxer_audit_findings", "Findings of the last audit, by kind.", ["kind"], single_label(found))


def total_metrics(totals: WorkTotals, shown: Callable[[str], str] = str) -> Iterator[Metric]:
    """Yield the counters and histograms since the start. `shown` masks names of services."""
    outcomes = dict.fromkeys(OUTCOME_LABELS, 0) | totals.outcomes
    methods = dict.fromkeys(METHOD_LABELS, 0) | totals.methods
    yield labelled_counter("muxer_targets", "Processed muxed files, by outcome.", ["outcome"], single_label(outcomes))
    help_text = "Muxed files, by how their video was created."
    yield labelled_counter("muxer_results", help_text, ["method"], single_label(methods))
    yield counter_metric("muxer_muxed_seconds", "Length of the muxed files.", totals.muxed_seconds)
    yield counter_metric("muxer_padding_seconds", "Black video in the muxed files.", totals.padding_seconds)
    moved = (((direction, shown(service)), size) for (direction, service), size in totals.moved.items())
    help_text = "Media fetched from and stored in a service."
    yield labelled_counter("muxer_moved_bytes", help_text, ["direction", "service"], moved)
    errors = (((shown(service), kind), count) for (service, kind), count in totals.errors.items())
    help_text = "Errors of recordings and polls, by the failed service (empty for none) and the type of the error."
    yield labelled_counter("muxer_errors", help_text, ["service", "type"], errors)
    yield _step_histogram({step: DurationHistogram() for step in STEP_LABELS} | totals.steps)
    retries = dict.fromkeys(STEP_LABELS, 0) | totals.repeats
    yield labelled_counter("muxer_step_retries", "Immediate retries of a step, by step.", ["step"], single_label(retries))


def poll_metrics(polls: PollStatistics, now: float) -> Iterator[Metric]:
    """Yield the metrics of the polls; before the first successful one, only their number."""
    results = {"succeeded": polls.succeeded, "failed": polls.failed}
    yield labelled_counter("muxer_polls", "Polls, by result.", ["result"], single_label(results))
    if polls.last_success is None:
        return
    yield gauge_metric("muxer_last_successful_poll_timestamp_seconds", "When the last poll succeeded.", polls.last_success)
    yield gauge_metric("muxer_last_poll_duration_seconds", "Duration of the last successful poll.", polls.seconds)
    help_text = "Call recordings in the last successful poll, by kind."
    recordings = single_label(_poll_counts(polls, RECORDING_LABELS))
    yield labelled_gauge("muxer_last_poll_recordings", help_text, ["kind"], recordings)
    help_text = "Muxed files in the last successful poll, by what had to be done."
    yield labelled_gauge("muxer_last_poll_targets", help_text, ["kind"], single_label(_poll_counts(polls, TARGET_LABELS)))
    if polls.reach is not None:
        help_text = "How much of the window the last successful poll read, from the end of the window."
        yield gauge_metric("muxer_last_poll_reach_seconds", help_text, polls.reach)
    if polls.whole_success is not None:
        help_text = "When the last poll that read the whole window succeeded."
        yield gauge_metric("muxer_last_whole_window_timestamp_seconds", help_text, polls.whole_success)
    age = 0.0 if polls.oldest_open is None else max(0.0, now - polls.oldest_open)
    help_text = "Age of the oldest known call without its muxed file, after the last successful poll; 0 = there is none."
    yield gauge_metric("muxer_oldest_unmuxed_age_seconds", help_text, age)


def work_metrics(threads: int, running: int, queued: int, size: int) -> Iterator[Metric]:
    """Yield the numbers of targets. At most `threads` run at a time and at most `size` are queued."""
    yield gauge_metric("muxer_workers", "Muxed files that can be processed at the same time.", threads)
    yield gauge_metric("muxer_running_targets", "Muxed files that are being processed.", running)
    yield gauge_metric("muxer_queued_targets", "Muxed files that wait for a worker.", max(0, queued))
    yield gauge_metric("muxer_queue_size", "Maximum number of muxed files that wait for a worker.", size)


def service_metrics(known: Iterable[ServiceStatus], always: Iterable[str], outages: int) -> Iterator[Metric]:
    """Yield the metrics of the services; those in `always` are available before the first call."""
    states = dict.fromkeys(always, True) | {service.name: service.up for service in known}
    help_text = "Whether a service is available: 0 while recordings that need it are paused."
    yield labelled_gauge("muxer_service_up", help_text, ["service"], single_label(states))
    successes = (((service.name,), service.last_success) for service in known if service.last_success is not None)
    help_text = "Time of the last successful call of a service."
    yield labelled_gauge("muxer_service_last_success_timestamp_seconds", help_text, ["service"], successes)
    yield counter_metric("muxer_outages", "Outages of services so far.", outages)


def deviation_metric(counts: Mapping[str, int]) -> Metric:
    """Return the counter of the deviations of RWS and RCS."""
    help_text = "How often RWS or RCS behaved differently from docs/gir-api.md, by kind (section 9 there)."
    return labelled_counter("muxer_deviations", help_text, ["kind"], single_label(counts))


def journal_metrics(counts: dict[str, int] | None, is_kept: bool) -> Iterator[Metric]:
    """Yield the metrics of the journal. `counts` are targets by state; `is_kept`: it is written to disk."""
    yield gauge_metric("muxer_journal_writable", "Whether the journal can be written to disk.", is_kept)
    if counts is not None:
        states = dict.fromkeys(STATE_LABELS, 0) | counts
        help_text = "Muxed files in the journal, by state; retry = failed and retried, aside = set aside."
        yield labelled_gauge("muxer_journal_targets", help_text, ["state"], single_label(states))


def disk_metrics(measured: DiskSpace | None, has_room: bool) -> Iterator[Metric]:
    """Yield the metrics of the disk of the temporary folder."""
    yield gauge_metric("muxer_disk_has_room", "Whether the disk has enough space to start new recordings.", has_room)
    if measured is not None:
        yield gauge_metric("muxer_disk_free_bytes", "Free space on the disk of temp_dir.", measured.free)
        yield gauge_metric(
            "muxer_disk_reserved_bytes", "Space that must stay free on the disk of temp_dir.", measured.reserved
        )


def certificate_metric(expiries: Iterable[CertificateExpiry]) -> Metric:
    """Return the metric of the certificates."""
    help_text = "When a certificate expires; of a bundle, the first one to expire."
    values = (((expiry.kind, expiry.name), expiry.at) for expiry in expiries)
    return labelled_gauge("muxer_certificate_expiry_timestamp_seconds", help_text, ["kind", "name"], values)


def _info_metrics(instance: str, started: float) -> Iterator[Metric]:
    labels = ["version", "name", "python"]
    values = [((__version__, instance, platform.python_version()), 1.0)]
    yield labelled_gauge("muxer_build_info", "Version and name of this instance.", labels, values)
    yield gauge_metric("muxer_start_timestamp_seconds", "When this instance was started.", started)


def _step_histogram(steps: dict[str, DurationHistogram]) -> Metric:
    help_text = "Duration of a step, successful or not."
    family = HistogramMetricFamily("muxer_step_duration_seconds", help_text, labels=["step"])
    bounds = [*map(str, DURATION_BUCKETS), "+Inf"]
    for name, durations in steps.items():
        buckets = list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))
        family.add_metric([name], buckets, durations.seconds)
    return family


def _poll_counts(polls: PollStatistics, names: Iterable[str]) -> dict[str, int]:
    return {name: polls.result.get(name, 0) for name in names}
