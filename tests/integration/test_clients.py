"""The clients of RWS and RCS against the lab, with every deviation that gir-api allows a server switched on and off."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.errors import (
    AccessDenied,
    EncryptionMissing,
    Forbidden,
    MediaNotFound,
    RequestRejected,
    ServiceUnavailable,
    Stopped,
)
from muxer.gir.publish import Publisher
from muxer.gir.rcs import RcsClient, rcs_root
from muxer.gir.rws import RwsClient
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.net import transfer

Make = Callable[..., Lab]
WINDOW = "startTime=0&endTime=4102444800000"
SCAN = "&userData=SRSScreenRecordingStateStarted&scanAndScroll=true"


class JumpingStop(threading.Event):
    """The stop event of the process, on a clock that jumps: waiting takes no time."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(0 if timeout is not None else None)


def create_rws(lab: Lab, password: str | None = None, stop: threading.Event | None = None) -> RwsClient:
    user = lab.site.rws_account
    account = ServiceAccount("RWS", lab.rws_url, user.username, password or user.password, False, 30)
    return RwsClient(ServiceSession(account, stop or JumpingStop()), lab.ccid)


def create_rcs(lab: Lab, password: str | None = None) -> RcsClient:
    user = lab.site.rcs_account
    account = ServiceAccount("RCS", rcs_root(lab.rcs_url), user.username, password or user.password, False, 30)
    return RcsClient(ServiceSession(account, JumpingStop()), lab.ccid)


def media_entry(name: str, **parameters: object) -> dict[str, object]:
    return {
        "mediaId": name,
        "type": "video/mp4",
        "parameters": parameters,
        "mediaDescriptor": {"storage": "webDAV", "path": name, "data": {"storagePath": "http://dav/screens/"}},
    }


RECORD_STEM = hashlib.sha256(b"r").hexdigest()[:32]


def publishing_folder(folder: Path) -> Path:
    path = folder / "publishing"
    path.mkdir(exist_ok=True)
    return path


def add_calls(lab: Lab, count: int) -> list[str]:
    """Add calls without media files to the lab, oldest first; return their ids."""
    ids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(count)]
    for number, one in enumerate(ids):
        lab.store.add_call(
            {
                "id": one,
                "region": lab.region,
                "callerPhoneNumber": "+49 30 1234",
                "startTime": f"2026-01-01T10:{number // 60:02d}:{number % 60:02d}.000+0000",
                "stopTime": f"2026-01-01T11:{number // 60:02d}:{number % 60:02d}.000+0000",
                "mediaFiles": [],
                "eventHistory": [
                    {
                        "contact": {"userName": "jörg", "firstName": "Jörg", "lastName": "Groß"},
                        "data": {"state": "SRSScreenRecordingStateStarted"},
                    }
                ],
            }
        )
    return ids


def find_calls(rws: RwsClient, query: str) -> list[str]:
    return [call.id for page in rws.read_call_recordings(query) for call in page]


def test_version_is_read_without_authentication(make_lab: Make) -> None:
    assert create_rws(make_lab()).fetch_version() == (8, 5, 205, 40)


def test_unreadable_version_gives_none_and_a_warning(make_lab: Make, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert create_rws(make_lab(version="")).fetch_version() is None
    assert "version" in caplog.text


@pytest.mark.parametrize("form", ["paging", "nextUri", "next"])
@pytest.mark.parametrize("scan", ["", SCAN])
def test_all_pages_are_read_once_on_the_configured_host(make_lab: Make, form: str, scan: str) -> None:
    lab = make_lab(link_form=form)
    ids = add_calls(lab, 25)
    assert sorted(find_calls(create_rws(lab), f"{WINDOW}&limit=10{scan}")) == ids


@pytest.mark.parametrize("empty_first", [True, False])
@pytest.mark.parametrize("repeats", [True, False])
def test_scan_and_scroll_in_all_its_forms(make_lab: Make, empty_first: bool, repeats: bool) -> None:
    lab = make_lab(scroll_empty_first_page=empty_first, scroll_repeats_ids=repeats, foreign_links=False)
    ids = add_calls(lab, 12)
    got = find_calls(create_rws(lab), f"{WINDOW}&limit=5{SCAN}")
    assert sorted(got) == ids


def test_expired_scroll_is_restarted(make_lab: Make, caplog: pytest.LogCaptureFixture) -> None:
    lab = make_lab(scroll_expires_once=True)
    ids = add_calls(lab, 12)
    with caplog.at_level(logging.WARNING):
        assert sorted(find_calls(create_rws(lab), f"{WINDOW}&limit=5{SCAN}")) == ids
    assert "expired" in caplog.text


def test_scroll_that_always_expires_is_an_error(make_lab: Make) -> None:
    lab = make_lab()
    add_calls(lab, 12)
    lab.store.fail_next("rws", "GET", "scrollId", 404, times=100)
    with pytest.raises(ServiceUnavailable):
        find_calls(create_rws(lab), f"{WINDOW}&limit=5{SCAN}")


def test_call_recording_is_read_and_unknown_id_gives_none(make_lab: Make) -> None:
    lab = make_lab()
    ids = add_calls(lab, 1)
    rws = create_rws(lab)
    call = rws.fetch_call_recording(ids[0])
    assert call is not None and call.id == ids[0]
    assert rws.fetch_call_recording("unknown") is None


@pytest.mark.parametrize("envelope_only", [False, True])
@pytest.mark.parametrize("partial", [True, False])
def test_bulk_query_of_screens_omits_unknown_ids(make_lab: Make, partial: bool, envelope_only: bool) -> None:
    lab = make_lab(partial_code=partial, error_in_envelope=envelope_only)
    lab.store.add_screen_media("known", lab.region, media_entry("a.mp4"))
    rws = create_rws(lab)
    assert set(rws.fetch_screen_recordings(["known", "unknown"])) == {"known"}
    assert set(rws.fetch_screen_recordings(["known", "unknown"], bulk=False)) == {"known"}
    assert rws.fetch_screen_recording("unknown") is None


@pytest.mark.parametrize("refusal", [400, 403, 404, 405])
@pytest.mark.parametrize("envelope_only", [False, True])
def test_screens_are_read_one_by_one_without_bulk_query(
    make_lab: Make, refusal: int, envelope_only: bool, caplog: pytest.LogCaptureFixture
) -> None:
    lab = make_lab(bulk=False, bulk_refusal=refusal, error_in_envelope=envelope_only)
    lab.store.add_screen_media("known", lab.region, media_entry("a.mp4"))
    rws = create_rws(lab)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert set(rws.fetch_screen_recordings(["known", "other"])) == {"known"}
    bulk = [request for request in lab.store.served_requests if "ids=" in request.path]
    assert len(bulk) == 1
    assert caplog.text.count("one by one") == 1


def test_missing_bulk_query_is_called_once(make_lab: Make) -> None:
    lab = make_lab(bulk=False, bulk_refusal=501)
    lab.store.add_screen_media("known", lab.region, media_entry("a.mp4"))
    assert set(create_rws(lab).fetch_screen_recordings(["known", "other"])) == {"known"}
    assert len([request for request in lab.store.served_requests if "ids=" in request.path]) == 1


def test_failing_bulk_query_is_abandoned_when_single_reads_work(make_lab: Make, caplog: pytest.LogCaptureFixture) -> None:
    lab = make_lab(bulk=False, bulk_refusal=500)
    ids = [f"id{number}" for number in range(8)]
    for one in ids:
        lab.store.add_screen_media(one, lab.region, media_entry(f"{one}.mp4"))
    rws = create_rws(lab)
    assert set(rws.fetch_screen_recordings(ids)) == set(ids) and not rws.reads_in_bulk
    assert caplog.text.count("RWS fails at the bulk query of screen recordings") == 1
    assert caplog.text.count("one by one") == 1
    assert len([request for request in lab.store.served_requests if "ids=" in request.path]) == 4 * 3


def test_bulk_urls_stay_below_the_limit(make_lab: Make) -> None:
    lab = make_lab()
    ids = [f"id-{number}-{'x' * 200}" for number in range(100)]
    for one in ids:
        lab.store.add_screen_media(one, lab.region, media_entry(f"{one}.mp4"))
    assert set(create_rws(lab).fetch_screen_recordings(ids)) == set(ids)
    urls = [lab.rws_url + request.path for request in lab.store.served_requests]
    assert max(map(len, urls)) < 7500
    assert len(urls) == 4


@pytest.mark.parametrize("csrf", [True, False])
@pytest.mark.parametrize("expires", [0, 1])
def test_writes_carry_the_csrf_token_and_refresh_it(make_lab: Make, csrf: bool, expires: int) -> None:
    lab = make_lab(csrf=csrf, csrf_expires_after=expires)
    rws = create_rws(lab)
    for number in range(3):
        rws.post_media("r", lab.region, [media_entry(f"{number}.mp4")])
    assert len((lab.store.get_screen("r") or {})["mediaFiles"]) == 3


def test_each_thread_has_its_own_csrf_token(make_lab: Make) -> None:
    lab = make_lab()
    rws = create_rws(lab)
    threads = [threading.Thread(target=rws.post_media, args=(f"r{n}", lab.region, [media_entry("a.mp4")])) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(lab.store.get_screen(f"r{n}") for n in range(8))


@pytest.mark.parametrize("envelope_only", [False, True])
def test_wrong_password_is_reported_and_not_retried_at_once(make_lab: Make, envelope_only: bool) -> None:
    lab = make_lab(error_in_envelope=envelope_only)
    rws = create_rws(lab, password="wrong")
    for _ in range(3):
        with pytest.raises(AccessDenied):
            rws.fetch_screen_recording("any")
    assert len(lab.store.served_requests) == 1


@pytest.mark.parametrize(("group", "count"), [("certificates", 2), ("empty", 0), ("missing", 0)])
@pytest.mark.parametrize("envelope_only", [False, True])
def test_the_encryption_certificates(make_lab: Make, group: str, count: int, envelope_only: bool) -> None:
    lab = make_lab(encryption_group=group, error_in_envelope=envelope_only)
    certificates = create_rws(lab).fetch_certificates()
    assert [one.alias for one in certificates] == [one.alias for one in lab.encryption_recipients][:count]


@pytest.mark.parametrize("replacing", [True, False])
def test_publishing_loses_no_entry(make_lab: Make, tmp_path: Path, replacing: bool) -> None:
    lab = make_lab(replacing_post=replacing)
    for number in range(3):
        screen = {**media_entry(f"screen-{number}.mp4"), "unknownField": number}
        screen["originalMediaDescriptor"] = screen.pop("mediaDescriptor")
        lab.store.add_screen_media("r", lab.region, screen)
    before = (lab.store.get_screen("r") or {})["mediaFiles"]
    publisher = Publisher(create_rws(lab), publishing_folder(tmp_path))
    for number in range(2):
        publisher.publish_entry("r", lab.region, media_entry(f"muxed-{number}.mp4"), is_still_stored=lambda: None)
    after = (lab.store.get_screen("r") or {})["mediaFiles"]
    names = [one["mediaId"] for one in after]
    assert sorted(names) == ["muxed-0.mp4", "muxed-1.mp4", "screen-0.mp4", "screen-1.mp4", "screen-2.mp4"]
    assert all(one in after for one in before)
    assert len(lab.store.screen_posts) == (3 if replacing else 2)
    assert [len(post["mediaFiles"]) for post in lab.store.screen_posts] == ([1, 4, 5] if replacing else [1, 1])
    assert not list(publishing_folder(tmp_path).iterdir())


def test_publishing_from_many_threads_loses_no_entry_on_a_replacing_server(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab(replacing_post=True)
    lab.store.add_screen_media("r", lab.region, media_entry("screen.mp4"))
    publisher = Publisher(create_rws(lab), publishing_folder(tmp_path))

    def publish_entry(number: int) -> None:
        publisher.publish_entry("r", lab.region, media_entry(f"muxed-{number}.mp4"), is_still_stored=lambda: None)

    threads = [threading.Thread(target=publish_entry, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = sorted(media["mediaId"] for media in (lab.store.get_screen("r") or {})["mediaFiles"])
    assert names == [*(f"muxed-{number}.mp4" for number in range(6)), "screen.mp4"]


def test_entries_lost_by_crash_are_posted_at_next_start(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab(replacing_post=True)
    lab.store.add_screen_media("r", lab.region, media_entry("screen.mp4"))
    rws = create_rws(lab)
    posts = []

    class Death(Exception):
        pass

    def dying_post(*arguments: object) -> None:
        RwsClient.post_media(rws, *arguments)
        posts.append(arguments)
        raise Death

    rws.post_media = dying_post  # type: ignore[assignment]
    with pytest.raises(Death):
        Publisher(rws, publishing_folder(tmp_path)).publish_entry(
            "r", lab.region, media_entry("muxed.mp4"), is_still_stored=lambda: None
        )
    assert [media["mediaId"] for media in (lab.store.get_screen("r") or {})["mediaFiles"]] == ["muxed.mp4"]
    Publisher(create_rws(lab), publishing_folder(tmp_path)).recover_publications()
    assert sorted(media["mediaId"] for media in (lab.store.get_screen("r") or {})["mediaFiles"]) == [
        "muxed.mp4",
        "screen.mp4",
    ]
    assert not list(publishing_folder(tmp_path).iterdir())


def test_second_crash_during_recovery_loses_nothing(make_lab: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab(replacing_post=True)
    names = ["a.mp4", "b.mp4"]
    sources = [media_entry(name) for name in names]
    at_stake = {"id": "r", "region": lab.region, "mediaFiles": [*sources, media_entry("muxed.mp4")]}
    lab.store.add_screen_media("r", lab.region, media_entry("muxed.mp4"))
    (publishing_folder(tmp_path) / f"{RECORD_STEM}.json").write_text(json.dumps(at_stake))

    class Death(BaseException):
        pass

    def raise_death(*_: object) -> None:
        raise Death

    with monkeypatch.context() as dying:
        dying.setattr(RwsClient, "post_media", raise_death)
        with pytest.raises(Death):
            Publisher(create_rws(lab), publishing_folder(tmp_path)).recover_publications()
    Publisher(create_rws(lab), publishing_folder(tmp_path)).recover_publications()
    held = (lab.store.get_screen("r") or {})["mediaFiles"]
    assert sorted(one["mediaId"] for one in held) == [*names, "muxed.mp4"]
    assert not list(publishing_folder(tmp_path).iterdir())


@pytest.mark.parametrize(("refused", "left"), [("fetch_screen_recording", ".json"), ("post_media", ".refused")])
def test_lost_entries_are_abandoned_only_when_post_is_refused(
    make_lab: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str, left: str
) -> None:
    lab = make_lab()
    lab.store.add_screen_media("r", lab.region, media_entry("muxed.mp4"))
    at_stake = {"id": "r", "region": lab.region, "mediaFiles": [media_entry("a.mp4"), media_entry("muxed.mp4")]}
    (publishing_folder(tmp_path) / f"{RECORD_STEM}.json").write_text(json.dumps(at_stake))
    with monkeypatch.context() as once:

        def raise_rejected(*_: object) -> None:
            raise RequestRejected("not this one")

        once.setattr(RwsClient, refused, raise_rejected)
        Publisher(create_rws(lab), publishing_folder(tmp_path)).recover_publications()
    assert [path.suffix for path in publishing_folder(tmp_path).iterdir()] == [left]
    Publisher(create_rws(lab), publishing_folder(tmp_path)).recover_publications()
    names = sorted(media["mediaId"] for media in (lab.store.get_screen("r") or {})["mediaFiles"])
    assert names == (["a.mp4", "muxed.mp4"] if left == ".json" else ["muxed.mp4"])


def test_a_published_entry_is_not_posted_again(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    publisher = Publisher(create_rws(lab), publishing_folder(tmp_path))
    for _ in range(2):
        publisher.publish_entry("r", lab.region, media_entry("muxed.mp4"), is_still_stored=lambda: None)
    assert len(lab.store.screen_posts) == 1


def test_superseded_media_are_deleted_and_missing_media_are_no_error(make_lab: Make) -> None:
    lab = make_lab()
    lab.store.add_screen_media("r", lab.region, media_entry("a b#?.mp4"))
    rws = create_rws(lab)
    rws.delete_media("r", "a b#?.mp4")
    rws.delete_media("r", "a b#?.mp4")
    assert lab.store.media_deletes == [("r", "a b#?.mp4")]


@pytest.mark.parametrize("response", [404, 400])
@pytest.mark.parametrize("envelope_only", [False, True])
def test_missing_label_definition_is_created(make_lab: Make, response: int, envelope_only: bool) -> None:
    lab = make_lab(label_definition=False, label_missing_answer=response, error_in_envelope=envelope_only)
    ids = add_calls(lab, 2)
    rws = create_rws(lab)
    assert [rws.add_label(one) for one in (*ids, ids[0])] == [True] * 3
    assert lab.store.label_posts == [(one, "screenRecording") for one in ids]


def test_forbidden_label_is_warned_once_and_not_requested_again(make_lab: Make, caplog: pytest.LogCaptureFixture) -> None:
    lab = make_lab(label_forbidden=True)
    ids = add_calls(lab, 3)
    rws = create_rws(lab)
    with caplog.at_level(logging.WARNING):
        assert [rws.add_label(one) for one in ids] == [False] * 3
    assert caplog.text.count("labels are not set") == 1
    assert (
        len([request for request in lab.store.served_requests if request.path.endswith("/labels") and request.status == 403])
        <= 2
    )


def test_retry_after_is_respected(make_lab: Make) -> None:
    lab = make_lab()
    lab.store.add_screen_media("r", lab.region, media_entry("a.mp4"))
    lab.store.fail_next("rws", "GET", "screen-recordings/r", 503, headers={"Retry-After": "1"})
    before = time.monotonic()
    assert create_rws(lab, stop=threading.Event()).fetch_screen_recording("r") is not None
    assert time.monotonic() - before >= 1.0


@pytest.mark.parametrize("status", [500, 503, 429, 0])
def test_read_is_retried_when_the_service_fails(make_lab: Make, status: int) -> None:
    lab = make_lab()
    lab.store.add_screen_media("r", lab.region, media_entry("a.mp4"))
    lab.store.fail_next("rws", "GET", "screen-recordings/r", status, times=2)
    assert create_rws(lab).fetch_screen_recording("r") is not None


def test_html_with_status_200_is_an_error(make_lab: Make) -> None:
    lab = make_lab()
    lab.store.fail_next("rws", "GET", "screen-recordings/r", 200, times=9, body=b"<html>login</html>")
    with pytest.raises(ServiceUnavailable):
        create_rws(lab).fetch_screen_recording("r")


def test_stop_ends_waiting_for_a_service(make_lab: Make) -> None:
    lab = make_lab()
    stop = threading.Event()
    stop.set()
    lab.store.fail_next("rws", "GET", "screen-recordings/r", 503, times=9)
    with pytest.raises(Stopped):
        create_rws(lab, stop=stop).fetch_screen_recording("r")


def test_redirect_keeps_path_and_query_but_not_the_host(make_lab: Make) -> None:
    lab = make_lab()
    lab.store.add_screen_media("other", lab.region, media_entry("a.mp4"))
    target = f"http://elsewhere.invalid/internal-api/contact-centers/{lab.ccid}/screen-recordings/other?x=1"
    lab.store.fail_next("rws", "GET", "screen-recordings/r", 302, headers={"Location": target})
    screen = create_rws(lab).fetch_screen_recording("r")
    assert screen is not None and screen.id == "other"
    assert lab.store.served_requests[-1].path.endswith("/other?x=1")


def test_rcs_streams_clear_media(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.ENCRYPTED)
    rcs = create_rcs(lab)
    audio, screen = tmp_path / "audio", tmp_path / "screen"
    assert rcs.play_call(call.id, call.audio_id, audio) == audio.stat().st_size > 0
    assert rcs.play_screen(call.id, call.screens[0].media_id, screen) == screen.stat().st_size > 0
    assert screen.read_bytes()[4:8] == b"ftyp"
    assert audio.stat().st_mode & 0o077 == 0


def test_each_rcs_failure_has_its_own_error(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.ENCRYPTED)
    with pytest.raises(AccessDenied):
        create_rcs(lab, password="wrong").play_call(call.id, call.audio_id, tmp_path / "x")
    with pytest.raises(MediaNotFound):
        create_rcs(lab).play_call(call.id, "unknown.mp3.bin", tmp_path / "x")
    lab.rcs_permission = False
    with pytest.raises(AccessDenied, match="permission"):
        create_rcs(lab).play_call(call.id, call.audio_id, tmp_path / "x")
    lab.rcs_permission = True
    lab.store.fail_next("rcs", "GET", "play", 200, headers={"Content-Length": "1000"}, body=b"short")
    with pytest.raises(ServiceUnavailable):
        create_rcs(lab).play_call(call.id, call.audio_id, tmp_path / "x")
    lab.store.fail_next("rcs", "GET", "play", 200, headers={"Content-Type": "text/html"}, body=b"<html></html>")
    with pytest.raises(ServiceUnavailable):
        create_rcs(lab).play_call(call.id, call.audio_id, tmp_path / "x")


@pytest.mark.parametrize(
    ("query", "hits"),
    [
        ("callerPhoneNumber=+49 30 1234", 1),
        ("callerPhoneNumber=+49*", 1),
        ("callerPhoneNumber=+48*", 0),
        ("userName=JÖRG AND groß", 1),
        ("userName=jörg AND nobody", 0),
        ("userName=nobody jörg", 1),
        ("userData=SRSScreen*", 1),
    ],
)
def test_query_parameters_reach_rws_unchanged(make_lab: Make, query: str, hits: int) -> None:
    from muxer.polling.window import migration_query

    lab = make_lab()
    add_calls(lab, 1)
    assert len(find_calls(create_rws(lab), migration_query(query, 10))) == hits


def test_clear_media_without_descriptor_are_fetched_through_rws(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    recording = create_rws(lab).fetch_call_recording(call.id)
    assert recording is not None and recording.audio[0].media_uri
    path = tmp_path / "audio"
    assert create_rws(lab).download_media(recording.audio[0].media_uri, path) == path.stat().st_size > 0


def test_a_forbidden_request_differs_from_an_authentication_failure(make_lab: Make) -> None:
    lab = make_lab()
    lab.switches = replace(lab.switches, label_forbidden=True)
    with pytest.raises(Forbidden):
        create_rws(lab)._post_label(add_calls(lab, 1)[0])


def test_an_envelope_that_does_not_fit_the_stored_file_is_replaced(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    publisher = Publisher(create_rws(lab), publishing_folder(tmp_path))
    checks: list[int] = []
    for envelope in ("of another muxer", "ours", "ours"):
        entry = {**media_entry("muxed.mp4.bin", muxed_mediaIds=["a", "s"]), "pkcs7": envelope}
        publisher.publish_entry("r", lab.region, entry, is_still_stored=lambda: checks.append(1))
    (held,) = (lab.store.get_screen("r") or {})["mediaFiles"]
    assert held["pkcs7"] == "ours"
    assert len(lab.store.screen_posts) == 2 and len(checks) == 4


def test_stale_read_is_repeated(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab(replacing_post=True)
    lab.store.add_screen_media("r", lab.region, media_entry("screen.mp4"))
    rws = create_rws(lab)
    fresh, stale = rws.fetch_screen_recording, [rws.fetch_screen_recording("r")]

    def read_stale(recording_id: str) -> object:  # each read shows what the one before it should have shown
        stale.append(fresh(recording_id))
        return stale.pop(0)

    rws.fetch_screen_recording = read_stale  # type: ignore[assignment]
    Publisher(rws, publishing_folder(tmp_path)).publish_entry(
        "r", lab.region, media_entry("m.mp4"), is_still_stored=lambda: None
    )
    assert sorted(media["mediaId"] for media in (lab.store.get_screen("r") or {})["mediaFiles"]) == ["m.mp4", "screen.mp4"]
    assert len(lab.store.screen_posts) == 2


@pytest.mark.parametrize("bulk", [True, False])
def test_recording_that_makes_rws_fail_affects_no_other(make_lab: Make, bulk: bool) -> None:
    lab = make_lab()
    ids = [f"id{number}x" for number in range(8)]
    for one in ids:
        lab.store.add_screen_media(one, lab.region, media_entry(f"{one}.mp4"))
    lab.store.fail_next("rws", "GET", "id5x", 500, times=1000)
    assert set(create_rws(lab).fetch_screen_recordings(ids, bulk)) == set(ids) - {"id5x"}


@pytest.mark.parametrize("bulk", [True, False])
def test_complete_rws_failure_is_distinguished_from_one_bad_recording(make_lab: Make, bulk: bool) -> None:
    lab = make_lab()
    stop = threading.Event()
    lab.store.fail_next("rws", "GET", "screen-recordings", 500, times=1000, headers={"Retry-After": "0"})
    with pytest.raises(ServiceUnavailable):
        create_rws(lab, stop=stop).fetch_screen_recordings([f"id{number}" for number in range(64)], bulk)


@pytest.mark.parametrize(
    "settings", [[{"name": "certificate1", "value": "x"}], {"certificate-1": "x"}, [{"name": "certificate-1", "value": ""}]]
)
def test_encryption_settings_that_cannot_be_read_never_mean_clear(make_lab: Make, settings: object) -> None:
    lab = make_lab()
    body = json.dumps({"statusCode": 0, "settings": settings}).encode()
    lab.store.fail_next("rws", "GET", "screen-recording-encryption", 200, body=body)
    with pytest.raises(EncryptionMissing):
        create_rws(lab).fetch_certificates()


def test_slow_response_body_meets_the_time_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(transfer, "GRACE_SECONDS", 1.0)
    monkeypatch.setattr(transfer, "UNKNOWN_LENGTH_SECONDS", 1.0)
    monkeypatch.setattr(transfer, "MIN_BYTES_PER_SECOND", 10**9)
    with dripping_server() as url:
        session = ServiceSession(ServiceAccount("RCS", url, "u", "p", False, 1), threading.Event())
        with pytest.raises(ServiceUnavailable, match="time limit"):
            session.download_media("media", tmp_path / "x")
        with pytest.raises(ServiceUnavailable, match="time limit"):
            session._send_and_read("GET", "page")


@contextmanager
def dripping_server() -> Iterator[str]:
    """A server that announces a long body and sends a byte at intervals."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"x")
                    time.sleep(0.05)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_unreadable_publication_record_does_not_stop_polls(
    make_lab: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (publishing_folder(tmp_path) / "0.json").mkdir()
    at_stake = {"id": "r", "region": "r1", "mediaFiles": [media_entry("a.mp4"), media_entry("muxed.mp4")]}
    (publishing_folder(tmp_path) / "1.json").write_text(json.dumps(at_stake))
    lab = make_lab()
    Publisher(create_rws(lab), publishing_folder(tmp_path)).recover_publications()
    assert [path.name for path in publishing_folder(tmp_path).iterdir()] == ["0.json"]
    assert "retrying at the next poll" in caplog.text
