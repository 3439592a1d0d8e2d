"""The status page of a real muxer on the lab, read in Chromium and compared with the journal."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.build import AddedCall, build_calls
from lab.cases import BRUNO, CallPlan, Case, ScreenPart
from lab.lab import Lab
from muxer.status.formatting import format_exact
from tests.support.daemon import MuxerProcess, wait_until
from tests.support.devtools import BrowserTab, run_chromium
from tests.support.muxer_runs import write_config
from tests.support.ports import free_port

TIMEOUT_SECONDS = 90
PLANS = (
    CallPlan("plain", 4, (ScreenPart(0, 4),)),
    CallPlan("gaps", 10, (ScreenPart(2, 2), ScreenPart(6, 2))),
    CallPlan("overlap", 9, (ScreenPart(0, 7), ScreenPart(3, 6))),
    CallPlan("outside", 5, (ScreenPart(-2, 9),)),
    CallPlan("encrypted", 4, (ScreenPart(0, 4),), encrypted=True),
    CallPlan("two", 6, (ScreenPart(0, 3), ScreenPart(3, 3, BRUNO))),
    CallPlan("broken", 4, (ScreenPart(0, 4),)),
    CallPlan("missing", 4, (ScreenPart(0, 4),)),
)
DONE_COUNT = 7
_ROWS = """
[...document.getElementById('%s').closest('section').querySelectorAll('tbody tr')].map((row) => Object.fromEntries([
  ['recording', row.querySelector('th').innerText], ['link', (row.querySelector('a') || {}).href],
  ...[...row.querySelectorAll('td')].map((cell) => [cell.dataset.label, cell.innerText.replace(/\\s+/g, ' ').trim()])]))
"""


@dataclass
class ObservedMuxer:
    """A muxer that has finished its work, and a browser tab with its page."""

    calls: dict[str, AddedCall]
    journal: Path
    url: str
    tab: BrowserTab

    def table_rows(self, heading: str) -> list[dict[str, str]]:
        """Return the rows of a table of the page."""
        self.tab.open_page(f"{self.url}?refresh=0")
        return self.tab.evaluate(_ROWS % heading)

    def find_targets(self, *states: str) -> list[dict[str, Any]]:
        """Return the targets of the journal that are in some states."""
        return [one for one in read_targets(self.journal) if one["state"] in states]

    def open_timeline(self, name: str) -> list[dict[str, Any]]:
        """Open the page of a call's timeline; return the rows of its screen files and its parts."""
        [link] = [row["link"] for row in self.table_rows("recent") if row["recording"].startswith(self.calls[name].id)]
        self.tab.open_page(link)
        return self.tab.evaluate(_ROWS % "screens"), self.tab.evaluate(  # type: ignore[return-value]
            "[...document.getElementById('parts').closest('section').querySelectorAll('tbody tr')].map((row) => "
            "[...row.querySelectorAll('td')].map((cell) => cell.innerText))"
        )


def read_targets(journal: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(journal)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute("SELECT * FROM targets ORDER BY updated DESC")]


def read_states(journal: Path) -> list[str]:
    """Return the states in the journal, none while the muxer has not created it."""
    with suppress(sqlite3.OperationalError):
        return [one["state"] for one in read_targets(journal)] if journal.exists() else []
    return []


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, kept_lab: type[Lab]) -> Iterator[ObservedMuxer]:
    """Run the muxer on a call of each kind, of which one is broken and one has lost its screen file."""
    port = free_port()
    with kept_lab(tmp_path_factory.mktemp("page") / "lab") as lab:
        start = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
        planned = [(Case.PLAIN, plan, start + timedelta(seconds=at), 0) for at, plan in enumerate(PLANS)]
        calls = {call.plan.name: call for call in build_calls(lab.site, planned)[0]}
        screens = lab.site.media.folder / "screens"
        (screens / calls["broken"].screens[0].media_id).write_bytes(b"rubbish")
        (screens / calls["missing"].screens[0].media_id).unlink()
        config, log = write_config(lab, monitoring__http_port=str(port))
        journal = lab.folder / "temp" / "journal.sqlite3"
        with MuxerProcess(config) as muxer, run_chromium() as tab:
            wait_until(
                lambda: read_states(journal).count("done") == DONE_COUNT and "retry" in read_states(journal),
                TIMEOUT_SECONDS,
                "the work",
                log,
            )
            # Two more attempts would take only time. On a slow machine one of them was made already.
            update = "UPDATE targets SET attempts = 1, permanent = 2, retry_at = 0 WHERE error = 'MediaError'"
            with closing(sqlite3.connect(journal, isolation_level=None)) as database:
                database.execute(update)
            wait_until(lambda: "aside" in read_states(journal), TIMEOUT_SECONDS, "the broken recording is set aside", log)
            yield ObservedMuxer(calls, journal, f"http://127.0.0.1:{port}/", tab)
            assert muxer.stop() == 0


def test_the_page_shows_every_recording_of_the_journal(watched: ObservedMuxer) -> None:
    rows = {row["link"].partition("?name=")[2]: row for row in watched.table_rows("recent")}
    journal = {one["name"]: one for one in watched.find_targets("done")}
    assert len(journal) == DONE_COUNT
    assert rows.keys() == journal.keys()
    for name, target in journal.items():
        row, facts = rows[name], json.loads(target["facts"])
        assert row["recording"].startswith(target["recording"])
        assert (row["Length"], row["Padding"]) == (format_exact(facts["length"]), format_exact(facts["padding"]))
        assert row["Took"] == format_exact(facts["seconds"])
        assert row["Method"].startswith(("copy" if facts["method"] == "copy" else "re-encoded") + ", encrypted")


def test_the_page_shows_every_failure_of_the_journal(watched: ObservedMuxer) -> None:
    rows = {row["recording"].partition("\n")[0]: row for row in watched.table_rows("failures")}
    assert rows.keys() == {watched.calls["broken"].id, watched.calls["missing"].id}
    broken, missing = rows[watched.calls["broken"].id], rows[watched.calls["missing"].id]
    assert broken["Reason"].startswith("MUX-323 MediaError: (a media file): ")
    assert (broken["Attempts"], broken["Next attempt"]) == ("2", "set aside")
    assert missing["Reason"].startswith("MUX-221 MediaNotFound: ")
    assert missing["Next attempt"] in ("at the next poll", "queued", "running")
    assert watched.tab.evaluate("document.querySelector('.title').innerText") == "Working; 1 recording is set aside"


def test_the_page_shows_the_services(watched: ObservedMuxer) -> None:
    rows = {row["recording"]: row for row in watched.table_rows("services")}
    assert {"RWS", "RCS"} < rows.keys()
    assert len(rows) == 3
    assert {row["State"] for row in rows.values()} == {"available"}


def test_daily_numbers_match_the_journal(watched: ObservedMuxer) -> None:
    watched.table_rows("day")
    text = watched.tab.evaluate("document.getElementById('day').parentElement.querySelector('.intro').innerText")
    assert text.startswith(f"{DONE_COUNT} muxed, 2 failed and not muxed yet")


def test_timelines_show_the_muxed_files(watched: ObservedMuxer) -> None:
    screens, parts = watched.open_timeline("gaps")
    assert [row["Shown"] for row in screens] == ["shown whole", "shown whole"]  # type: ignore[index]
    assert [row[2:] for row in parts if row[2] == "black"] == [["black", "padding"]] * 3
    assert [row[0] for row in parts] == ["0:00.0", "0:02.0", "0:04.0", "0:06.0", "0:08.0"]
    screens, _ = watched.open_timeline("overlap")
    assert screens[0]["Shown"] == "cut off: 4.0 s at its end"  # type: ignore[index]
    assert "overlap by 4.0 s at 0:03.0" in watched.tab.evaluate("document.body.innerText")
    screens, parts = watched.open_timeline("outside")
    assert screens[0]["From"] == "−0:02.0"  # type: ignore[index]
    assert screens[0]["Shown"] == "cut off: 2.0 s at its beginning, 2.0 s at its end"  # type: ignore[index]
    assert {row[2] for row in parts} == {"screen 1"}


def test_the_page_contains_no_personal_data(watched: ObservedMuxer) -> None:
    for path in ("", f"recording?name={watched.find_targets('done')[0]['name']}"):
        watched.tab.open_page(watched.url + path)
        html = watched.tab.evaluate("document.documentElement.outerHTML")
        media = [screen.media_id for call in watched.calls.values() for screen in call.screens]
        assert not [one for one in ("agent1", "agent2", "7001", *media) if one in html]
