"""The status page of made-up views: what stands on it, and what does not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.support.reader import Reader
from tests.support.views import NOW, chain, done, failed, file_name, job, view

from muxer.activity import Polls
from muxer.monitoring import agents
from muxer.monitoring.page import render, render_recording
from muxer.monitoring.verdict import BAD, GOOD, NOTE, verdict
from muxer.monitoring.view import Room, Service
from muxer.remedies import remedy

HOSTILE = (
    '"><script>alert(1)</script>',
    "'onload='x",
    "{{ 7*7 }}",
    "a\u202eb",
    "x" * 10_000,
    "\x00\x1b[2J",
    "<b>\ud800</b>",
)


def polls(**changes: object) -> Polls:
    return replace(view().snapshot.polls, **changes)


OUT = Service("RWS", False, NOW - 600, "no answer", NOW - 700)
LATE = polls(last_success=NOW - 3000)


@pytest.mark.parametrize(
    ("changes", "level", "title"),
    [
        ({}, GOOD, "Working"),
        ({"running": ()}, GOOD, "Working; nothing to do at the moment"),
        ({"services": (OUT,)}, BAD, "RWS is out since 01:16 UTC (10 min)"),
        ({"services": (OUT, replace(OUT, name="RCS"))}, BAD, "RWS and RCS are out since 01:16 UTC (10 min)"),
        ({"disk": Room(1, 10**9, False)}, BAD, "Disk short"),
        ({"polls": polls(error="MetadataError: odd")}, BAD, "The last poll failed"),
        ({"polls": polls(last_success=None), "started": NOW - 60}, NOTE, "Starting"),
        ({"polls": polls(last_success=None), "is_busy": True}, NOTE, "Starting"),
        ({"polls": polls(last_success=None)}, BAD, "No poll has ended for 1 d 1 h"),
        ({"polls": polls(last_success=None), "is_migration": True}, GOOD, "Working"),
        ({"polls": LATE}, BAD, "No poll has ended for 50 min"),
        ({"polls": LATE, "is_busy": True}, GOOD, "Working"),
        ({"counts": {"aside": 1}}, NOTE, "Working; 1 recording is set aside"),
        ({"counts": {"aside": 2}, "services": (OUT,)}, BAD, "RWS is out since 01:16 UTC (10 min)"),
    ],
)
def test_the_verdict_is_the_worst_that_is_true(changes: dict, level: str, title: str) -> None:
    made = view(**changes)
    assert (verdict(made).level, verdict(made).title) == (level, title)
    assert title in Reader(render(made)).text


def test_what_failed_and_waits_is_told_beside_a_good_verdict() -> None:
    assert "1 recording has failed and is tried again" in verdict(view(counts={"retry": 1})).words
    assert "2 recordings have failed and are tried again" in verdict(view(counts={"retry": 2})).words
    assert "failed" not in verdict(view()).words


def test_the_numbers_of_now_are_there() -> None:
    text = Reader(render(view())).text
    for words in (
        "Running 2 of 4 workers",
        "Queued 7",
        "Waiting 3",
        "Oldest unmuxed call 1 h 30 min",
        "Last poll 3 min ago",
    ):
        assert words in text
    assert "Next poll in 2 min" in text
    assert "52.0 GB free 1.0 GB of it reserved" in text


def test_a_job_has_its_progress_where_it_is_known() -> None:
    page = Reader(render(view()))
    [bar] = [attributes for tag, attributes in page.elements if tag == "progress"]
    assert (bar["value"], bar["max"], bar["aria-label"]) == ("40", "100", "fetch of call-1")
    assert "fetch 40 %, 4.0 MB/s, 0:15 left" in page.text
    assert "publish for 10 s" in page.text


def test_failures_have_their_reason_their_next_try_and_what_to_do() -> None:
    aside = failed("call-8", "MediaError", "the file has no picture", state="aside", retry_at=None, attempts=3)
    due = failed("call-9", "MediaNotFound", "not there", retry_at=NOW - 1)
    again = [failed(f"call-{state}", "OSError", "odd", state=state) for state in ("wanted", "running")]
    text = Reader(render(view(failures=(failed("call-7", "ServiceUnavailable", "503"), aside, due, *again)))).text
    assert text.index("call-8") < text.index("call-7") < text.index("call-9")
    assert f"MUX-321 MediaError : the file has no picture {plain_remedy('MUX-321')} 3 set aside" in text
    assert f"MUX-201 ServiceUnavailable : 503 {plain_remedy('MUX-201')} 2 01:28 UTC in 2 min" in text
    assert f"MUX-221 MediaNotFound : not there {plain_remedy('MUX-221')} 2 at the next poll" in text
    assert f"{plain_remedy('MUX-401')} 2 queued" in text
    assert f"{plain_remedy('MUX-401')} 2 running" in text


def plain_remedy(code: str) -> str:
    return remedy(code).replace("`", "")


def test_recordings_have_their_numbers_and_a_page_of_their_timeline() -> None:
    plain = done("call-3", chain(2), updated=NOW - 120)
    labelled = done("call-4", facts={"agent": "alice", "label": "screenRecording", "seconds": 0.2, "timeline": {}})
    made = view(recent=(plain, labelled))
    page = Reader(render(made))
    tag = file_name("call-3").rpartition("_muxed")[0][-20:][:8]
    assert (
        f"call-3 agent {agents.label('alice')}, file {tag} 01:24 UTC 2 min ago 10:00 min 1:30 min re-encoded, encrypted"
        in page.text
    )
    assert "brought up to date" in page.text
    links = [
        attributes["href"] for tag, attributes in page.elements if tag == "a" and "recording?" in attributes["href"]
    ]
    assert links == [f"recording?name={file_name('call-3')}"]
    text = Reader(render_recording(made, file_name("call-3"))).text
    assert "screen 1 −0:30.0 4:00.0 cut off: 30.0 s at its beginning" in text
    assert "0:00.0 0:30.0 screen 1 re-encoded: cut between key frames" in text
    assert render_recording(made, file_name("call-4")) is None
    assert render_recording(made, "no such") is None


def test_what_the_sources_of_a_recording_lacked_is_told() -> None:
    facts = {**done("call-3", chain(2)).facts, "missing": "a.mp3: lasts 14.8 s where its metadata say 30.0 s"}
    made = view(recent=(done("call-3", facts=facts), done("call-4", chain(2))))
    words = "lasts 14.8 s where its metadata say 30.0 s"
    assert Reader(render(made)).text.count("incomplete") == 1 and words in Reader(render(made)).text
    assert words in Reader(render_recording(made, file_name("call-3"))).text
    assert "Incomplete" not in Reader(render_recording(made, file_name("call-4"))).text


def test_nobody_is_named() -> None:
    reason = "http://dav/calls/alice/+49301234567.mp3 may not be read: +49 30 1234567"
    made = view(
        recent=(done("call-3", chain(2) | {"screens": [{"name": "0301234567.mp4", "start": 0, "length": 600}] * 2}),),
        failures=(failed("call-7", "PlaceClosed", f"{reason} by Alice"),),
        services=(replace(OUT, reason=reason),),
        polls=polls(error=f"AccessDenied: {reason}"),
    )
    for html in (render(made), render_recording(made, file_name("call-3"))):
        assert not re.search(r"(?i)alice|1234567|0301234567|screen-1\.mp4", html)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts(text: str) -> None:
    timeline = chain(2)
    timeline["pieces"][0]["reason"] = timeline["screens"][0]["name"] = text
    row = done(text, timeline, name=file_name("call-3"), agent=text)
    made = view(
        instance=text,
        recent=(row, replace(row, facts={**row.facts, "method": text, "length": text, "seconds": None})),
        failures=(failed(text, text, text, name=text, agent=text),),
        services=(Service(text, False, NOW - 5, text, None),),
        running=(replace(job(text, text, 5, 10), agent=text, file=text),),
        warnings=(text,),
    )
    ordinary = Reader(render(view(recent=(done("a"), done("a")), failures=(failed("a", "a", "a"),), services=(OUT,),
                                  running=(job("a", "a", 5, 10),), warnings=("a",))))  # fmt: skip
    for html in (render(made), render_recording(made, file_name("call-3"))):
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ud800]|x{301}", html)
        assert "{{ 7*7 }}" in html or "{{" not in text
        page = Reader(html)
        assert {tag for tag, _ in page.elements} <= {tag for tag, _ in ordinary.elements} | {"h3", "ul", "li"}
        assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)


def test_the_page_needs_nothing_else() -> None:
    for html in (render(view()), render_recording(view(), file_name("recent-0"))):
        page = Reader(html)
        assert not {"script", "img", "iframe", "object", "form", "input", "button"} & {tag for tag, _ in page.elements}
        assert not any("style" in attributes for _, attributes in page.elements)
        loaded = [attributes.get("href", "") for tag, attributes in page.elements if tag == "link"]
        assert all(one.startswith("data:") for one in loaded)
        idents = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(idents) == len(set(idents))


def test_the_refresh_can_be_paused() -> None:
    assert '<meta http-equiv="refresh" content="20">' in render(view())
    assert 'href="?refresh=0"' in render(view())
    assert 'http-equiv="refresh"' not in render(view(), refresh=False)
    assert 'http-equiv="refresh"' not in render_recording(view(), file_name("recent-0"))


def test_the_page_stays_small() -> None:
    recent = tuple(done(f"{number}" * 40, chain(200)) for number in range(50))
    failures = tuple(failed("y" * 500, "MediaError", "z " * 1000) for _ in range(100))
    assert len(render(view(recent=recent, failures=failures)).encode()) < 500_000
    assert len(render_recording(view(recent=recent), recent[0].name).encode()) < 500_000


def test_a_muxer_that_has_just_begun_has_a_page() -> None:
    made = view(services=(), running=(), recent=(), samples=(), polls=Polls(), started=NOW, next_poll=None, disk=None)
    text = Reader(render(made)).text
    assert "Starting" in text
    assert "None yet." in text
    assert "No service was talked to yet." in text
