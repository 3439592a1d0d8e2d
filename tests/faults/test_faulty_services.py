"""The real process behind faulty proxies: every recording is muxed once and decodes; no other host receives credentials."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import cycle

import pytest

from lab.bucket import ExternalS3
from lab.lab import Lab
from muxer import errors
from tests.faults import outcome, run_counters
from tests.faults.fault_lab import find_wrong
from tests.faults.killable_muxer import KillableMuxer
from tests.faults.proxy import PLAIN_FAULTS, FaultProxy
from tests.faults.recording_factory import FaultRecording, RecordingFactory
from tests.faults.redirect_target import RedirectTarget
from tests.support import s3rver
from tests.support.daemon import log_lines, wait_until
from tests.support.s3 import BUCKET
from tests.support.s3rver import S3rver
from tests.support.tiers import spread_variants

pytestmark = pytest.mark.usefixtures("models_read_once")
MINUTES = float(os.environ.get("FAULTS_MINUTES", "0.3"))
TIMEOUT_SECONDS = 120
FAULT_RATE = 0.15
SERVICES = ("RWS", "RCS", "WebDAV", "S3")


@dataclass
class ProxiedLab:
    """A lab with media on WebDAV and in S3, a proxy before each service, and a muxer that connects only to the proxies."""

    lab: Lab
    factories: dict[str, RecordingFactory]
    proxies: dict[str, FaultProxy]
    other: RedirectTarget
    victim: KillableMuxer

    def check_recordings(self, recordings: list[FaultRecording]) -> None:
        """Wait until all recordings are done, and check the results."""
        done, log = outcome.is_done, self.victim.log
        wait_until(
            lambda: all(done(self.lab, recording) for recording in recordings), TIMEOUT_SECONDS, "the end of the work", log
        )
        assert outcome.wait_for_none(lambda: self.find_leftovers()) == []
        run_counters.RECORDINGS.increase(len(recordings))
        run_counters.LOST.increase(outcome.count_lost(self.lab, recordings))
        run_counters.DOUBLED.increase(outcome.count_doubled(self.lab, recordings))
        assert [problem for recording in recordings for problem in outcome.recording_problems(self.lab, recording)] == []
        assert self.other.authorized == []
        assert self.wrong_lines() == []

    def find_leftovers(self) -> list[str]:
        """Return the leftover files."""
        return outcome.temp_leftovers(self.victim.temp) + outcome.storage_leftovers(self.lab, *self.factories.values())

    def wrong_lines(self) -> list[str]:
        """Return the log lines that report a failure of a service as a failure of a recording."""
        messages = [line["message"] for line in log_lines(self.victim.log)]
        failed = [message for message in messages if message.startswith("recording ")]
        kinds = {one: getattr(errors, one.split(": ")[1].split()[-1], None) for one in failed if ": " in one}
        blamed = [one for one, kind in kinds.items() if not (kind and issubclass(kind, errors.Transient))]
        return blamed + [message for message in messages if "unexpected error" in message]


@pytest.fixture(scope="module")
def scene(models_read_once: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedLab]:
    folder = tmp_path_factory.mktemp("faulty")
    with ExitStack() as stack:
        rver = stack.enter_context(S3rver(folder / "s3rver", BUCKET))
        external = ExternalS3(rver.url, s3rver.KEY, s3rver.SECRET, BUCKET, ("calls", "screens"))
        lab = stack.enter_context(Lab(folder / "lab", s3=external))
        other = stack.enter_context(RedirectTarget())
        targets = {"RWS": lab.rws_url, "RCS": lab.rcs_url, "WebDAV": lab.dav_url, "S3": rver.url}
        proxies = {name: stack.enter_context(FaultProxy(url, other.url)) for name, url in targets.items()}
        whole = replace(lab.site.media, url=proxies["WebDAV"].url)
        lab.site.media = replace(whole, bucket=None)
        factories = {"WebDAV": RecordingFactory(lab, 1)}
        lab.site.media = whole
        factories["S3"] = RecordingFactory(lab, 2)
        urls = {"htcc.base_uri": "RWS", "rcs.base_uri": "RCS", "s3.endpoint_url": "S3"}
        victim = KillableMuxer(lab, "victim", hurried=True, **{option: proxies[name].url for option, name in urls.items()})
        try:
            yield ProxiedLab(lab, factories, proxies, other, victim)
        finally:
            victim.stop()


@pytest.mark.parametrize("service", spread_variants(SERVICES, 4))
def test_all_faults_of_one_service_in_a_row(scene: ProxiedLab, service: str) -> None:
    proxy = scene.proxies[service]
    for fault in PLAIN_FAULTS:
        proxy.plan_fault(fault)
    factories = [scene.factories[service]] if service in scene.factories else list(scene.factories.values())
    recordings = []
    for factory, closed in zip(cycle(factories), (True, False) * 20, strict=False):
        recordings.append(factory.add_recording(closed=closed))
        log = scene.victim.log
        wait_until(lambda: outcome.is_done(scene.lab, recordings[-1]), TIMEOUT_SECONDS, "the end of a recording", log)
        if not proxy.pending_count:
            break
    assert not proxy.pending_count
    scene.check_recordings(recordings)


@pytest.mark.long
def test_random_faults_of_all_services(scene: ProxiedLab) -> None:
    recordings = []
    for proxy in scene.proxies.values():
        proxy.set_fault_rate(FAULT_RATE)
    end = time.monotonic() + 60 * MINUTES
    for factory, closed in zip(cycle(scene.factories.values()), cycle((True, False, False)), strict=False):
        recordings.append(factory.add_recording(closed=closed))
        time.sleep(1.5)
        if time.monotonic() > end:
            break
    for proxy in scene.proxies.values():
        proxy.clear_faults()
    scene.check_recordings(recordings)
    assert find_wrong(scene.victim.config) == []
