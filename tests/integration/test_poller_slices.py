"""A poll on the lab's RWS: how it requests screen recordings, and what happens when it fails midway."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest

from lab import metadata
from lab.cases import CallPlan, ScreenPart
from lab.lab import Lab
from muxer.config import load_config
from muxer.errors import ServiceUnavailable
from muxer.gir.rws import RwsClient
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.journal.journal import Journal
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.polling.poller import Poller
from tests.support.fake_sink import FakeSink

TIMEOUT_SECONDS = 60
CALL_COUNT = 10


@pytest.fixture
def lab(make_lab: Callable[..., Lab]) -> Lab:
    """Return a lab with calls that have one screen file each in their metadata."""
    lab = make_lab(scroll_empty_first_page=False, scroll_repeats_ids=False)
    plan = CallPlan("polled", TIMEOUT_SECONDS, (ScreenPart(0, TIMEOUT_SECONDS),))
    nothing = lab.folder / "nothing"
    nothing.touch()
    for serial in range(CALL_COUNT):
        recording_id, start = plan.recording_id(serial), datetime.now(UTC) - timedelta(hours=1, minutes=-serial)
        screen = metadata.screen_media(lab.site, plan.screens[0], recording_id, start, nothing, None)
        lab.store.add_screen_media(recording_id, lab.region, screen | {"mediaId": f"{recording_id}.mp4"})
        audio = metadata.call_media(lab.site, plan, recording_id, start, nothing, None)
        lab.store.add_call(metadata.call_recording(lab.site, plan, recording_id, start, audio))
    return lab


def create_poller(lab: Lab, submitted: list[str], **overrides: str) -> Poller:
    path = lab.folder / "muxer.cfg"
    path.write_text(lab.config_text(**{name.replace("__", "."): value for name, value in overrides.items()}))
    config = load_config(path, {}, os.environ).config
    htcc = config.htcc
    account = ServiceAccount("RWS", htcc.base_uri, htcc.username, htcc.password, False, htcc.rws_timeout)
    rws = RwsClient(ServiceSession(account, Event()), htcc.contact_center_id)

    def record_submit(target: object) -> bool:
        submitted.append(target.recording_id)  # type: ignore[attr-defined]
        return True

    return Poller(config, rws, Journal(None), CircuitBreaker(), FakeSink(record_submit))


def bulk_sizes(lab: Lab) -> list[int]:
    """Return the number of ids in each bulk query of screen recordings."""
    return [request.path.count(",") + 1 for request in lab.store.served_requests if "screen-recordings?ids=" in request.path]


@pytest.mark.parametrize(("page", "size", "expected"), [("3", "4", [4, 4, 2]), ("4", "2", [2] * 5), ("10", "100", [10])])
def test_screens_are_read_in_slices_for_any_page_size(lab: Lab, page: str, size: str, expected: list[int]) -> None:
    submitted: list[str] = []
    # In one pass, and one query after another, in the order of the slices.
    one_pass = {"processing__min_poll_interval": "60", "advanced__concurrent_queries": "1"}
    options = one_pass | {"advanced__pagination": page, "processing__query_slice_size": size}
    result = create_poller(lab, submitted, **options).poll()
    assert bulk_sizes(lab) == expected
    assert len(set(submitted)) == result.submitted == result.found == CALL_COUNT


def test_recordings_read_before_page_failure_are_submitted(lab: Lab) -> None:
    submitted: list[str] = []
    polling = create_poller(lab, submitted, advanced__pagination="4", advanced__call_recording_extra_query_string="disable")
    lab.store.fail_next("rws", "GET", "offset=8", 500, times=100, headers={"Retry-After": "0"})
    with pytest.raises(ServiceUnavailable):
        polling.poll()
    assert len(set(submitted)) == 8
    assert bulk_sizes(lab) == [8]
