"""Orders of a fleet: each target is ordered as often as it must be, and muxed once, whatever becomes of messages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.copies import Copies
from support.crew import QUEUE, SECONDS, Crew, stopped
from support.daemon import wait_until
from support.media import KeptLab
from support.queues import VirtualHost

from muxer.lab.lab import Lab
from muxer.lab.switches import Switches


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[KeptLab]) -> Iterator[Lab]:
    """Return a lab whose files are not encrypted: what becomes of the media is the matter of other tests."""
    with kept_lab(tmp_path_factory.mktemp("orders") / "lab", Switches(encryption_group="empty")) as lab:
        yield lab


@pytest.fixture(scope="module")
def shared(lab: Lab) -> Copies:
    return Copies(lab)


@pytest.fixture
def copies(shared: Copies) -> Iterator[Copies]:
    yield shared
    shared.forget()


def wait_for_all(copies: Copies, crew: Crew, ids: list[str] | None = None) -> None:
    """Wait until recordings are muxed."""
    wait_until(lambda: not copies.undone(ids), SECONDS, "the end of the work", crew.log)


def test_five_hundred_targets_over_four_workers(lab: Lab, copies: Copies, vhost: VirtualHost, tmp_path: Path) -> None:
    ids = copies.add(500)
    with Crew(lab, vhost.url, "many", advanced__worker_threads="2") as crew:
        poller, *workers = crew.poller(), *(crew.worker(FLEET_MUX_ONCE="1") for _ in range(4))
        wait_for_all(copies, crew)
        wait_until(lambda: crew.tell("status")["targets"] == {"done": 500}, SECONDS, "the books", crew.log)
        assert stopped(poller, *workers) == [0] * 5
    assert crew.muxed == dict.fromkeys(ids, 1)
    assert len(crew.worker_logs) == 4 and all("recording muxed" in log.read_text() for log in crew.worker_logs)
    assert [one for one in (QUEUE, f"{QUEUE}.XQ") if vhost.ready(one)] == []
