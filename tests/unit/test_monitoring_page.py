"""The status page of generated views: what it contains and what it does not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from muxer.journal.correction_need import CorrectionNeed
from muxer.monitoring import pseudonyms
from muxer.monitoring.page import render_recording, render_status_page
from muxer.monitoring.summary import BAD, GOOD, NOTE, summarize_view
from muxer.monitoring.view import DiskSpace, ServiceStatus
from muxer.status.activity import PollStatistics
from muxer.status.error_help import help_for
from tests.support.page_reader import PageReader
from tests.support.status_views import NOW, done_row, failed_row, file_name, muxer_view, running_job, timeline_chain

HOSTILE = (
    '"><script>alert(1)</script>',
    "'onload='x",
    "{{ 7*7 }}",
    "a\u202eb",
    "x" * 10_000,
    "\x00\x1b[2J",
    "<b>\ud800</b>",
)


def test_the_page_shows_when_the_whole_window_is_read() -> None:
    polls = poll_counts(whole_success=NOW - 600, whole_due=NOW + 1800)
    assert (
        "Whole window 10 min ago read again in 30 min" in PageReader(render_status_page(muxer_view(polls=polls))).page_text
    )


def poll_counts(**changes: object) -> PollStatistics:
    return replace(muxer_view().snapshot.polls, **changes)


OUTAGE = ServiceStatus("RWS", False, NOW - 600, "no answer", NOW - 700)
NO_RCS = failed_row("call-1", "AccessDenied", "a source is encrypted", code="MUX-215")
LATE_POLLS = poll_counts(last_success=NOW - 3000)


@pytest.mark.parametrize(
    ("changes", "level", "title"),
    [
        ({}, GOOD, "Working"),
        ({"running": ()}, GOOD, "Working; nothing to do at the moment"),
        ({"services": (OUTAGE,)}, BAD, "RWS is unavailable since 01:16 UTC (10 min)"),
        ({"services": (OUTAGE, replace(OUTAGE, name="RCS"))}, BAD, "RWS and RCS are unavailable since 01:16 UTC (10 min)"),
        ({"disk": DiskSpace(1, 10**9, False)}, BAD, "Disk nearly full"),
        ({"polls": poll_counts(error="MetadataError: odd")}, BAD, "The last poll failed"),
        ({"polls": poll_counts(last_success=None), "started": NOW - 60}, NOTE, "Starting"),
        ({"polls": poll_counts(last_success=None), "is_busy": True}, NOTE, "Starting"),
        ({"polls": poll_counts(last_success=None)}, BAD, "No poll has ended for 1 d 1 h"),
        ({"polls": poll_counts(last_success=None), "is_migration": True}, GOOD, "Working"),
        ({"polls": LATE_POLLS}, BAD, "No poll has ended for 50 min"),
        ({"polls": LATE_POLLS, "is_busy": True}, GOOD, "Working"),
        (
            {"correction": CorrectionNeed(7, "MUX-214", NOW - 900), "counts": {"aside": 1}},
            BAD,
            "Nothing is muxed; 7 recordings wait for a correction",
        ),
        ({"counts": {"aside": 1}}, NOTE, "Working; 1 recording is set aside"),
        ({"failures": (NO_RCS,)}, NOTE, "Working; 1 recording waits for a correction"),
        ({"failures": (NO_RCS, NO_RCS)}, NOTE, "Working; 2 recordings wait for a correction"),
        ({"failures": (replace(NO_RCS, state="running"),)}, GOOD, "Working"),
        ({"counts": {"aside": 2}, "services": (OUTAGE,)}, BAD, "RWS is unavailable since 01:16 UTC (10 min)"),
    ],
)
def test_the_summary_is_the_most_serious_state(changes: dict, level: str, title: str) -> None:
    view = muxer_view(**changes)
    assert (summarize_view(view).level, summarize_view(view).title) == (level, title)
    assert title in PageReader(render_status_page(view)).page_text


def test_the_summary_of_an_outage_does_not_promise_that_a_migration_resumes() -> None:
    assert "paused and resume" in summarize_view(muxer_view(services=(OUTAGE,))).text
    assert "Run the migration again" in summarize_view(muxer_view(services=(OUTAGE,), is_migration=True)).text


def test_the_summary_expects_a_poll_over_the_whole_window_to_be_long() -> None:
    assert summarize_view(muxer_view(polls=replace(LATE_POLLS, whole_seconds=2500.0))).title == "Working"


def test_the_good_summary_names_the_number_of_retries() -> None:
    assert "1 recording has failed and is retried" in summarize_view(muxer_view(counts={"retry": 1})).text
    assert "2 recordings have failed and are retried" in summarize_view(muxer_view(counts={"retry": 2})).text
    assert "failed" not in summarize_view(muxer_view()).text


def test_the_summary_of_a_needed_correction_has_the_code_and_the_last_success() -> None:
    text = summarize_view(muxer_view(correction=CorrectionNeed(7, "MUX-214", NOW - 900))).text
    assert text.startswith("MUX-214: A storage denies access") and "The last recording was muxed 15 min ago." in text
    assert "yet" in summarize_view(muxer_view(correction=CorrectionNeed(1, "MUX-214", None))).text


def test_the_summary_promises_nothing_where_a_person_has_to_correct_something() -> None:
    remedy = "correct [htcc] contact_center_id; then restart the muxer"
    lasting = replace(OUTAGE, needs_correction=True, remedy=remedy)
    view = muxer_view(services=(lasting, replace(lasting, name="RCS", remedy=""), replace(OUTAGE, name="S3 bucket b")))
    text = summarize_view(view).text
    assert text.startswith("Recordings that need them are paused until the cause is corrected. Do that before they leave")
    assert f" RWS: {remedy}. RCS: see Services." in text and "resume automatically" not in text and "S3" not in text
    assert text.endswith(" The next attempt is the next poll, in 2 min.")
    broker = summarize_view(muxer_view(services=(replace(OUTAGE, name="RabbitMQ"),))).text
    assert "next poll" not in broker, "the muxer connects to it all the time"
    unknown = replace(OUTAGE, remedy="start RWS, or correct [htcc] base_uri")
    text = summarize_view(muxer_view(services=(unknown,))).text
    assert "resume automatically" in text and " RWS: start RWS, or correct [htcc] base_uri." in text
    migration = summarize_view(replace(view, is_migration=True, next_poll=None)).text
    assert "Run the migration again" in migration and remedy in migration and "next poll" not in migration


def test_the_summary_points_to_check_when_no_calls_are_found() -> None:
    """A wrong window or query looks like a quiet day."""
    assert "run check" in summarize_view(muxer_view(polls=poll_counts(result={"found": 0}))).text
    assert "run check" not in summarize_view(muxer_view()).text
    assert "run check" not in summarize_view(muxer_view(polls=poll_counts(result={}), is_migration=True)).text


def test_the_section_now_shows_its_numbers() -> None:
    page = PageReader(render_status_page(muxer_view())).page_text
    for text in (
        "Running 2 of 4 workers",
        "Queued 7",
        "Waiting 3",
        "Oldest unmuxed call 1 h 30 min",
        "Last poll 3 min ago",
    ):
        assert text in page
    assert "Next poll in 2 min" in page
    assert "52.0 GB free 1.0 GB of it reserved" in page


def test_a_job_has_its_progress_when_it_is_known() -> None:
    page = PageReader(render_status_page(muxer_view()))
    [bar] = [attributes for tag, attributes in page.elements if tag == "progress"]
    assert (bar["value"], bar["max"], bar["aria-label"]) == ("40", "100", "fetch of call-1")
    assert "fetch 40 %, 4.0 MB/s, 0:15 left" in page.page_text
    assert "publish for 10 s" in page.page_text


def test_failures_have_their_reason_next_attempt_and_remedy() -> None:
    aside = failed_row("call-8", "MediaError", "the file has no video", state="aside", retry_at=None, attempts=3)
    due = failed_row("call-9", "MediaNotFound", "not there", retry_at=NOW - 1)
    again = [failed_row(f"call-{state}", "OSError", "odd", state=state) for state in ("wanted", "running")]
    text = PageReader(
        render_status_page(muxer_view(failures=(failed_row("call-7", "ServiceUnavailable", "503"), aside, due, *again)))
    ).page_text
    assert text.index("call-8") < text.index("call-7") < text.index("call-9")
    assert f"MUX-321 MediaError : the file has no video {remedy_text('MUX-321')} 3 set aside" in text
    assert f"MUX-201 ServiceUnavailable : 503 {remedy_text('MUX-201')} 2 01:28 UTC in 2 min" in text
    assert f"MUX-221 MediaNotFound : not there {remedy_text('MUX-221')} 2 at the next poll" in text
    assert f"{remedy_text('MUX-401')} 2 queued" in text
    assert f"{remedy_text('MUX-401')} 2 running" in text


def remedy_text(code: str) -> str:
    return help_for(code).replace("`", "")


def test_recordings_have_their_numbers_and_a_page_with_their_timeline() -> None:
    plain = done_row("call-3", timeline_chain(2), updated=NOW - 120)
    labelled = done_row("call-4", facts={"agent": "alice", "label": "screenRecording", "seconds": 0.2, "timeline": {}})
    view = muxer_view(recent=(plain, labelled))
    page = PageReader(render_status_page(view))
    tag = file_name("call-3").rpartition("_muxed")[0][-20:][:8]
    agent = pseudonyms.agent_pseudonym("alice")
    numbers = "01:24 UTC 2 min ago 10:00 min 1:30 min re-encoded, encrypted"
    assert f"call-3 agent {agent}, file {tag} {numbers}" in page.page_text
    assert "updated" in page.page_text
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a" and "recording?" in attributes["href"]]  # type: ignore[operator]
    assert links == [f"recording?name={file_name('call-3')}"]
    text = PageReader(render_recording(view, file_name("call-3"))).page_text
    assert "screen 1 −0:30.0 4:00.0 cut off: 30.0 s at its beginning" in text
    assert "0:00.0 0:30.0 screen 1 re-encoded: cut between key frames" in text
    assert render_recording(view, file_name("call-4")) is None
    assert render_recording(view, "no such") is None


def test_incomplete_sources_are_shown() -> None:
    facts = {**done_row("call-3", timeline_chain(2)).facts, "missing": "a.mp3: lasts 14.8 s, but 30.0 s by its metadata"}
    view = muxer_view(recent=(done_row("call-3", facts=facts), done_row("call-4", timeline_chain(2))))
    words = "lasts 14.8 s, but 30.0 s by its metadata"
    assert (
        PageReader(render_status_page(view)).page_text.count("incomplete") == 1
        and words in PageReader(render_status_page(view)).page_text
    )
    assert words in PageReader(render_recording(view, file_name("call-3"))).page_text
    assert "Incomplete" not in PageReader(render_recording(view, file_name("call-4"))).page_text


def test_the_page_contains_no_personal_data() -> None:
    reason = "http://dav/calls/alice/+49301234567.mp3 may not be read: +49 30 1234567"
    view = muxer_view(
        recent=(
            done_row("call-3", timeline_chain(2) | {"screens": [{"name": "0301234567.mp4", "start": 0, "length": 600}] * 2}),
        ),
        failures=(failed_row("call-7", "PathForbidden", f"{reason} by Alice"),),
        services=(replace(OUTAGE, reason=reason),),
        polls=poll_counts(error=f"AccessDenied: {reason}"),
    )
    for html in (render_status_page(view), render_recording(view, file_name("call-3"))):
        assert not re.search(r"(?i)alice|1234567|0301234567|screen-1\.mp4", html)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_escaped(text: str) -> None:
    timeline = timeline_chain(2)
    timeline["pieces"][0]["reason"] = timeline["screens"][0]["name"] = text
    row = done_row(text, timeline, name=file_name("call-3"), agent=text)
    view = muxer_view(
        instance=text,
        recent=(row, replace(row, facts={**row.facts, "method": text, "length": text, "seconds": None})),
        failures=(failed_row(text, text, text, name=text, agent=text),),
        services=(ServiceStatus(text, False, NOW - 5, text, None),),
        running=(replace(running_job(text, text, 5, 10), agent=text, file=text),),
        warnings=(text,),
    )
    ordinary_view = muxer_view(
        recent=(done_row("a"), done_row("a")),
        failures=(failed_row("a", "a", "a"),),
        services=(OUTAGE,),
        running=(running_job("a", "a", 5, 10),),
        warnings=("a",),
    )
    ordinary = PageReader(render_status_page(ordinary_view))
    for html in (render_status_page(view), render_recording(view, file_name("call-3"))):
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]|x{301}", html)
        assert "{{ 7*7 }}" in html or "{{" not in text  # type: ignore[operator]
        page = PageReader(html)
        assert {tag for tag, _ in page.elements} <= {tag for tag, _ in ordinary.elements} | {"h3", "ul", "li"}
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_the_page_loads_nothing_else() -> None:
    for html in (render_status_page(muxer_view()), render_recording(muxer_view(), file_name("recent-0"))):
        page = PageReader(html)
        assert not {"script", "img", "iframe", "object", "form", "input", "button"} & {tag for tag, _ in page.elements}
        assert not any("style" in attributes for _, attributes in page.elements)
        loaded = [attributes.get("href", "") for tag, attributes in page.elements if tag == "link"]
        assert all(item.startswith("data:") for item in loaded)
        idents = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(idents) == len(set(idents))


def test_the_refresh_can_be_paused() -> None:
    assert '<meta http-equiv="refresh" content="20">' in render_status_page(muxer_view())
    assert 'href="?refresh=0"' in render_status_page(muxer_view())
    assert 'http-equiv="refresh"' not in render_status_page(muxer_view(), refresh=False)
    assert 'http-equiv="refresh"' not in render_recording(muxer_view(), file_name("recent-0"))  # type: ignore[operator]


def test_the_page_stays_small() -> None:
    recent = tuple(done_row(f"{number}" * 40, timeline_chain(200)) for number in range(50))
    failures = tuple(failed_row("y" * 500, "MediaError", "z " * 1000) for _ in range(100))
    assert len(render_status_page(muxer_view(recent=recent, failures=failures)).encode()) < 500_000
    assert len(render_recording(muxer_view(recent=recent), recent[0].name).encode()) < 500_000


def test_a_muxer_that_has_just_started_has_a_page() -> None:
    view = muxer_view(
        services=(), running=(), recent=(), samples=(), polls=PollStatistics(), started=NOW, next_poll=None, disk=None
    )
    text = PageReader(render_status_page(view)).page_text
    assert "Starting" in text
    assert "None yet." in text
    assert "No service has been called yet." in text
