"""A muxer in memory that has met everything that its metrics can tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from muxer import activity
from muxer.errors import ServiceUnavailable
from muxer.gir.rws import Certificate
from muxer.journal import Journal, Key, Sample, now
from muxer.monitoring.view import Sources
from tests.support.fleet import fleet, worker
from tests.support.monitoring import certified, made_sources
from tests.support.tls import pem, self_signed

COPIED = {"method": "copy", "length": 60.0, "padding": 2.5, "bytes": 1000}


def told(folder: Path) -> Sources:
    """Given a folder, return sources that have something to say about everything."""
    certificate, key, _ = certified(folder)
    options = {"htcc__trusted_ca": certificate, "monitoring__certificate": certificate, "monitoring__key": key}
    sources = made_sources(folder, journal=_journal(folder / "journal.sqlite3"), **options)
    recipient = Certificate("recipient", pem(self_signed("recipient")).decode())
    _work(sources.activity)
    with sources.outages.talking("RWS"):
        pass
    error = ServiceUnavailable("no answer")
    error.service = "S3 bucket calls"
    sources.outages.declare(error)
    return replace(sources, recipients=lambda: (recipient,))


def told_of_fleet(folder: Path) -> Sources:
    """Given a folder, return sources that have something to say about everything, a fleet included."""
    return replace(told(folder), fleet=lambda: fleet(worker()))


def _work(done: activity.Activity) -> None:
    done.poll_begun()
    done.poll_done({"found": 3, "ours": 3, "without_screen": 1, "already_done": 1, "waiting": 1}, 0.25, now() - 1000)
    done.poll_failed("ServiceUnavailable: no answer")
    done.erred("RWS", "ServiceUnavailable")
    done.moved(activity.FETCHED, "RWS", 500)
    done.moved(activity.STORED, "S3 bucket calls", 1000)
    done.finished("muxed", COPIED)
    done.finished("muxed", COPIED | {"method": "begins between two key frames", "length": 30.0})
    done.finished("failed", {})


def _journal(path: Path) -> Path:
    journal = Journal(path)
    journal.done(Key("1_muxed.mp4", "1", "agent"), now(), COPIED)
    journal.failed(Key("2_muxed.mp4", "2", "agent"), ValueError("broken"), now())
    journal.sample(Sample(int(now()), 1, 2, 3, now()))
    journal.close()
    return path
