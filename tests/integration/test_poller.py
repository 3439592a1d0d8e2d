"""A poll on the lab, without anything that muxes."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from support.calls import add_short, configure
from support.taking import Taking

from muxer.config import load
from muxer.errors import ServiceUnavailable
from muxer.gir.rws import Rws
from muxer.gir.session import Account, Session
from muxer.journal import Journal
from muxer.lab.lab import Lab
from muxer.outages import Outages
from muxer.poller import Poller
from muxer.selection import MuxTarget

Make = Callable[..., Lab]
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}


def poller_of(lab: Lab, outages: Outages, taken: list[MuxTarget], **options: str) -> Poller:
    def take(target: MuxTarget) -> bool:
        taken.append(target)
        return True

    config = load(configure(lab, **options), {}, {}).config
    user = lab.site.rws_account
    account = Account("RWS", lab.rws_url, user.username, user.password, False, 30)
    return Poller(config, Rws(Session(account, threading.Event()), lab.ccid), Journal(None), outages, Taking(take))


@pytest.mark.parametrize(("options", "submitted"), [({}, 0), (MIGRATION, 2)], ids=["poll", "migration"])
def test_only_a_migration_takes_what_an_outage_lets_wait(
    make_lab: Make, options: dict[str, str], submitted: int
) -> None:
    """Another poll brings it again; a migration has only one."""
    lab, outages, taken = make_lab(), Outages(), []
    add_short(lab, range(2))
    error = ServiceUnavailable("the storage is down")
    error.service = f"WebDAV {lab.dav_url}"
    outages.declare(error)
    result = poller_of(lab, outages, taken, **options).poll()
    assert (result.found, result.submitted, result.waiting) == (2, submitted, 2 - submitted)
    assert len(taken) == submitted


def test_a_recording_that_rws_fails_for_is_told_apart_from_one_without_screen(make_lab: Make) -> None:
    lab, taken = make_lab(), []
    good, bad = add_short(lab, range(2))
    lab.store.add_call((lab.store.call(good.id) or {}) | {"id": "without-screen"})
    lab.store.fail_next("rws", "GET", f"/screen-recordings/{bad.id}", 500, times=3)
    poller = poller_of(lab, Outages(), taken, processing__batch_read_screen_recording_metadata="0")
    result = poller.poll()
    assert (result.found, result.without_screen, result.skipped, result.submitted) == (3, 1, 1, 1)
    assert list(poller.skipped) == [bad.id] and "500" in poller.skipped[bad.id]
    assert (poller.pending, result.targets) == (0, 1)
