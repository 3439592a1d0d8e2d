"""The metrics: what memory, journal and certificates say, in the form of Prometheus. Nothing is counted here."""

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
from muxer.activity import BOUNDS, Durations, Polls, Snapshot, Totals
from muxer.journal import ASIDE, DONE, QUEUED, RETRY, RUNNING, WANTED
from muxer.monitoring import health, history
from muxer.monitoring.expiry import Expiries, Expiry
from muxer.monitoring.families import counter, counters, gauge, gauges, single
from muxer.monitoring.fleet_metrics import of_fleet
from muxer.monitoring.view import Room, Service, Sources, fleet_of, room, services
from muxer.outages import RCS, RWS
from muxer.pool import QUEUED_PER_WORKER

# What may be asked for: the library takes every parameter as it comes, and repeats it in the content type.
_ACCEPTED = re.compile(
    r"\s*[\w*.+-]+/[\w*.+-]+(\s*;\s*(version=\d{1,3}(\.\d{1,3}){0,2}|escaping=[a-z0-9-]+|charset=[\w-]+|q=[\d.]+))*\s*",
    re.ASCII,
)
# What is counted from the start on, so that a rate has a beginning.
OUTCOMES = ("muxed", "already done", "failed")
METHODS = ("copy", "re-encode")
STEPS = ("check", "fetch", "mux", "encrypt", "store", "publish", "delete", "label")
STATES = (WANTED, QUEUED, RUNNING, DONE, RETRY, ASIDE)
RECORDINGS = ("found", "ours", "without_screen", "skipped")
TARGETS = ("already_done", "submitted", "waiting")


class Metrics(Collector):
    """All metrics of this process."""

    def __init__(self, sources: Sources, of_servers: Callable[[], tuple[Expiry, ...]] = tuple) -> None:
        """Given the sources, and what tells when the certificates of servers expire, remember them; each scrape reads them
        anew."""
        self._sources, self._of_servers = sources, of_servers
        self._expiries = Expiries(sources.config)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Given what the client accepts, return the metrics and their content type: OpenMetrics or Prometheus' own, which is
        also for those who ask for something that is not understood."""
        encode, kind = choose_encoder(",".join(one for one in accept.split(",") if _ACCEPTED.fullmatch(one)))
        return encode(self._registry), kind

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the first scrape."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield every family as it stands now."""
        sources = self._sources
        snapshot, config = sources.activity.snapshot(), sources.config
        yield from _about(config.instance, snapshot.started)
        yield from of_totals(snapshot.totals, sources.mask)
        yield from self._of_work(snapshot)
        yield from of_polls(snapshot.polls, snapshot.at)
        yield gauge("muxer_poll_interval_seconds", "Time from the start of one poll to the next.", sources.interval)
        if not sources.is_migration:
            window = config.processing.window_past * 60
            yield gauge("muxer_window_seconds", "How far back the window of the polls begins.", window)
        known = (RWS,) if sources.is_rcs_unused else (RWS, RCS)
        yield from of_services(services(sources), known, sources.outages.begun)
        yield of_deviations(sources.deviations.counts)
        yield from of_journal(history.counts(sources.journal), sources.is_journal_kept())
        yield from of_disk(room(sources.disk), sources.disk.has_room())
        yield of_certificates([*self._expiries.all(sources.recipients()), *self._of_servers()])
        yield gauge("muxer_live", "Whether /livez says 200.", not health.unalive(sources))
        yield gauge("muxer_ready", "Whether /readyz says 200.", not health.unready(sources))

    def _of_work(self, snapshot: Snapshot) -> Iterator[Metric]:
        """Yield what is at work and waits: in this process, or in the fleet."""
        fleet, config, held = fleet_of(self._sources), self._sources.config, self._sources.held()
        if fleet is None:
            threads, running, at = config.advanced.worker_threads, snapshot.running, snapshot.at
            yield from of_work(threads, len(running), held - len(running), threads * QUEUED_PER_WORKER)
        else:
            running, at = tuple(one for _, one in fleet.jobs), fleet.at
            yield from of_work(fleet.threads, fleet.running, fleet.queued, config.fleet.max_queue)
            yield from of_fleet(fleet)
        longest = max((at - one.begun for one in running), default=0.0)
        help_text = "How long the oldest running muxed file is worked on."
        yield gauge("muxer_longest_running_seconds", help_text, max(0.0, longest))


def of_totals(totals: Totals, shown: Callable[[str], str] = str) -> Iterator[Metric]:
    """Given what was done since the start, and how names of services are shown, return the counters and histograms."""
    outcomes = dict.fromkeys(OUTCOMES, 0) | totals.outcomes
    methods = dict.fromkeys(METHODS, 0) | totals.methods
    yield counters("muxer_targets", "Muxed files worked on, by how that ended.", ["outcome"], single(outcomes))
    yield counters("muxer_results", "Muxed files made, by how their picture was.", ["method"], single(methods))
    yield counter("muxer_muxed_seconds", "Length of the muxed files made.", totals.muxed_seconds)
    yield counter("muxer_padding_seconds", "Black picture in the muxed files made.", totals.padding_seconds)
    moved = (((direction, shown(service)), size) for (direction, service), size in totals.moved.items())
    yield counters("muxer_moved_bytes", "Media fetched from and stored in a service.", ["direction", "service"], moved)
    errors = (((shown(service), kind), count) for (service, kind), count in totals.errors.items())
    help_text = "Errors of recordings and polls, by the service to blame (none: empty) and the type of the error."
    yield counters("muxer_errors", help_text, ["service", "type"], errors)
    yield _steps({one: Durations() for one in STEPS} | totals.steps)
    help_text = "Tries of a step in place that followed a failed one, by step."
    yield counters("muxer_step_retries", help_text, ["step"], single(dict.fromkeys(STEPS, 0) | totals.repeats))


def of_polls(polls: Polls, now: float) -> Iterator[Metric]:
    """Given the polls so far and the time, return their metrics; what no poll has told yet is left out."""
    results = {"succeeded": polls.succeeded, "failed": polls.failed}
    yield counters("muxer_polls", "Polls, by how they ended.", ["result"], single(results))
    if polls.last_success is None:
        return
    yield gauge("muxer_last_successful_poll_timestamp_seconds", "When the last poll succeeded.", polls.last_success)
    yield gauge("muxer_last_poll_duration_seconds", "How long the last poll took that succeeded.", polls.seconds)
    help_text = "Call recordings that the last successful poll met, by what they are."
    yield gauges("muxer_last_poll_recordings", help_text, ["kind"], single(_of(polls, RECORDINGS)))
    help_text = "Muxed files that the last successful poll met, by what was to be done."
    yield gauges("muxer_last_poll_targets", help_text, ["kind"], single(_of(polls, TARGETS)))
    age = 0.0 if polls.oldest_open is None else max(0.0, now - polls.oldest_open)
    help_text = "Age of the oldest call that the last successful poll found without its muxed file; 0 = there is none."
    yield gauge("muxer_oldest_unmuxed_age_seconds", help_text, age)


def of_work(threads: int, running: int, queued: int, size: int) -> Iterator[Metric]:
    """Given how many targets may be worked on at a time and how many are, how many wait and how many may, return that."""
    yield gauge("muxer_workers", "Muxed files that may be worked on at the same time.", threads)
    yield gauge("muxer_running_targets", "Muxed files that are worked on.", running)
    yield gauge("muxer_queued_targets", "Muxed files that wait for a worker.", max(0, queued))
    yield gauge("muxer_queue_size", "Muxed files that may wait for a worker.", size)


def of_services(known: Iterable[Service], always: Iterable[str], outages: int) -> Iterator[Metric]:
    """Given the services as they stand, those that are shown before they were talked to, and how many outages have begun,
    return their metrics."""
    standing = dict.fromkeys(always, True) | {one.name: one.up for one in known}
    help_text = "Whether a service is up: 0 while what needs it waits."
    yield gauges("muxer_service_up", help_text, ["service"], single(standing))
    successes = (((one.name,), one.last_success) for one in known if one.last_success is not None)
    help_text = "When a service last did what was asked."
    yield gauges("muxer_service_last_success_timestamp_seconds", help_text, ["service"], successes)
    yield counter("muxer_outages", "Outages of services that have begun.", outages)


def of_deviations(counts: Mapping[str, int]) -> Metric:
    """Return the counter of the deviations of RWS and RCS, by their kinds."""
    help_text = "How often RWS or RCS behaved differently from docs/gir-api.md, by kind (section 9 there)."
    return counters("muxer_deviations", help_text, ["kind"], single(counts))


def of_journal(counts: dict[str, int] | None, is_kept: bool) -> Iterator[Metric]:
    """Given how many targets are in each state (None = unknown) and whether the journal reaches the disk, return that."""
    yield gauge("muxer_journal_writable", "Whether failures are noted on disk.", is_kept)
    if counts is not None:
        states = dict.fromkeys(STATES, 0) | counts
        help_text = "Muxed files in the journal, by state; retry = failed and tried again, aside = set aside."
        yield gauges("muxer_journal_targets", help_text, ["state"], single(states))


def of_disk(measured: Room | None, has_room: bool) -> Iterator[Metric]:
    """Given what is known of the disk of the temporary folder, return it."""
    yield gauge("muxer_disk_has_room", "Whether new recordings are begun, as far as the disk goes.", has_room)
    if measured is not None:
        yield gauge("muxer_disk_free_bytes", "Free space on the disk of temp_dir.", measured.free)
        yield gauge("muxer_disk_reserved_bytes", "What must stay free there.", measured.reserved)


def of_certificates(expiries: Iterable[Expiry]) -> Metric:
    """Given when certificates expire, return that."""
    help_text = "When a certificate expires; of a bundle, the one that does first."
    values = (((one.kind, one.name), one.at) for one in expiries)
    return gauges("muxer_certificate_expiry_timestamp_seconds", help_text, ["kind", "name"], values)


def _about(instance: str, started: float) -> Iterator[Metric]:
    labels = ["version", "name", "python"]
    values = [((__version__, instance, platform.python_version()), 1.0)]
    yield gauges("muxer_build_info", "Version and name of this instance.", labels, values)
    yield gauge("muxer_start_timestamp_seconds", "When this instance was started.", started)


def _steps(steps: dict[str, Durations]) -> Metric:
    help_text = "Time that a step took, well ended or not."
    family = HistogramMetricFamily("muxer_step_duration_seconds", help_text, labels=["step"])
    bounds = [*map(str, BOUNDS), "+Inf"]
    for name, durations in steps.items():
        buckets = list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))
        family.add_metric([name], buckets, durations.seconds)
    return family


def _of(polls: Polls, names: Iterable[str]) -> dict[str, int]:
    return {name: polls.result.get(name, 0) for name in names}
