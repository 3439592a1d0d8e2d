"""The status page in Chromium, from the real port: as it looks on a phone and a screen, light and dark; as it is heard; and
that it asks nobody for anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from tests.support import contrast
from tests.support.devtools import Tab, chromium
from tests.support.fleet import fleet, worker
from tests.support.monitoring import ask, free_port, made_sources, opened
from tests.support.views import NOW, chain, done, failed, file_name, job, view

from muxer.monitoring import application
from muxer.monitoring.page import REFRESH_SECONDS
from muxer.monitoring.view import Service, View

SIZES = [(320, 640), (1280, 800)]
SCHEMES = ["light", "dark"]
LONG = "call-" + "0123456789abcdef" * 40
RECORDING = f"recording?name={file_name('call-200')}"
EVERYTHING = view(
    running=(job("call-1", "mux", 45_000_000, 60_000_000), job(LONG, "publish")),
    services=(
        *view().services,
        Service("http://media-server-of-the-site.example.com:8080", False, NOW - 600, "no answer " * 9),
    ),
    recent=(
        done("call-200", chain(200)),
        done("call-1-file", chain(1)),
        done(LONG),
        done('"><script>document.title=1</script>'),
    ),
    failures=(
        failed(LONG, "MediaError", "broken " * 30, state="aside", retry_at=None),
        failed("call-9", "ServiceUnavailable", "503"),
    ),
    counts={"aside": 1},
    warnings=("[webdav] trusted_ca = false: TLS certificates are not checked",),
)

FLEET = replace(
    EVERYTHING,
    fleet=fleet(
        worker(running=(job("call-1", "mux", 45_000_000, 60_000_000), job(LONG, "publish"))),
        worker(1, seen=NOW - 90),
        worker(2, name=f"{LONG}/worker-0/7", out={"http://media-server-of-the-site.example.com:8080": "no answer " * 9}),
        lanes={"recording-muxer": 1, "recording-muxer.today": 20, f"{LONG}.backlog": 3000},
        dead=2,
        oldest=NOW - 4000,
    ),
)


class Port:
    """A port whose view can be chosen."""

    def __init__(self, number: int) -> None:
        self.number, self.view, self.url = number, EVERYTHING, f"http://127.0.0.1:{number}/"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Port]:
    made = Port(free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "gather", lambda _: made.view)
        with opened(made_sources(tmp_path_factory.mktemp("port"), monitoring__http_port=made.number)):
            yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    with chromium() as tab:
        yield tab


@pytest.fixture
def shown(port: Port, browser: Tab) -> Tab:
    """Return a tab with the page that shows everything."""
    port.view = EVERYTHING
    browser.open(port.url)
    return browser


def problems(tab: Tab, host: str) -> list[object]:
    """Return what a tab complained of, and whom else than the port it asked."""
    told = tab.told("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Audits.issueAdded")
    asked = [one["request"]["url"] for one in tab.told("Network.requestWillBeSent")]
    return [*told, *(one for one in asked if urlsplit(one).netloc != host and not one.startswith("data:"))]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(("path", "seen"), [("", EVERYTHING), ("", FLEET), (RECORDING, EVERYTHING)])
def test_it_fits_and_is_legible(
    port: Port, browser: Tab, path: str, seen: View, width: int, height: int, scheme: str
) -> None:
    port.view = seen
    browser.open(port.url + path, width, height, scheme)
    assert problems(browser, urlsplit(port.url).netloc) == []
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    assert len(contrast.texts(browser)) > 100
    assert contrast.faint(browser) == []


@pytest.mark.parametrize("level", ["good", "note", "bad"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_verdict_is_legible(port: Port, browser: Tab, level: str, scheme: str) -> None:
    changes = {"good": {}, "note": {"counts": {"aside": 2}}, "bad": {"disk": replace(EVERYTHING.disk, has_room=False)}}
    port.view = view(**changes[level])
    browser.open(port.url, scheme=scheme)
    assert browser.value(f"document.querySelectorAll('.verdict.{level}').length") == 1
    assert contrast.faint(browser) == []


def test_a_faint_text_would_be_found(shown: Tab) -> None:
    shown.value("document.querySelector('h1').style.color = '#999'")
    assert [one["text"][:15] for one in contrast.faint(shown)] == ["Recording Muxer"]


def test_a_script_would_be_stopped_and_told(shown: Tab, port: Port) -> None:
    shown.value(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
    )
    assert "Content Security Policy" in str(problems(shown, urlsplit(port.url).netloc))
    assert shown.value("document.title").startswith("http://media-server")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_can_be_heard(port: Port, browser: Tab, width: int, height: int) -> None:
    port.view = EVERYTHING
    browser.open(port.url, width, height)
    spoken = browser.spoken()
    roles = [one["role"] for one in spoken]
    assert [roles.count(one) for one in ("banner", "navigation", "main", "contentinfo")] == [1, 1, 1, 1]
    headings = [(one["name"], one["level"]) for one in spoken if one["role"] == "heading"]
    assert headings == [("Recording Muxer primary-0, version 0.1.0", 1), ("Now", 2), ("Noted", 3), ("Services", 2)] + [
        (name, 2) for name in ("Running", "Failures", "Last 24 hours", "Recent recordings")
    ]
    tables = [one["name"] for one in spoken if one["role"] == "table"]
    named = ["Services that the muxer talks to", "Recordings that are being worked on", "Muxed files that failed"]
    assert tables == [*named, "Recent recordings"]
    assert roles.count("rowheader") == 3 + 2 + 2 + 4
    assert {"Service", "State", "Last success"} <= {one["name"] for one in spoken if one["role"] == "columnheader"}
    [bar] = [one for one in spoken if one["role"] == "progressbar"]
    assert (bar["name"], float(bar["value"])) == ("mux of call-1", 75.0)
    pictures = {one["name"]: one["description"] for one in spoken if one["role"] == "image"}
    assert pictures["Recordings finished, by hour"].startswith("300 muxed files")
    assert pictures.keys() == {"Recordings finished, by hour", "Backlog", "Age of the oldest call"}
    links = [one["name"] for one in spoken if one["role"] == "link"]
    assert "Timeline of call-1-file, file " + file_name("call-1-file")[-30:-22] in links
    assert len(links) == len(set(links))


def test_the_fleet_can_be_heard(port: Port, browser: Tab) -> None:
    port.view = FLEET
    browser.open(port.url)
    spoken = browser.spoken()
    headings = [(one["name"], one["level"]) for one in spoken if one["role"] == "heading"]
    assert headings[2:6] == [("Noted", 3), ("Fleet", 2), ("Lanes", 3), ("Workers", 3)]
    tables = [one["name"] for one in spoken if one["role"] == "table"]
    assert tables[:2] == ["Orders that wait, by lane", "Workers of the fleet"]
    heads = [one["name"] for one in spoken if one["role"] == "columnheader"]
    assert heads[:3] == ["Lane, first to last", "Orders that wait", "Worker"]
    assert heads[3:8] == ["State", "Running", "Muxed", "Failed", "An hour"]
    assert "Fleet" in [one["name"] for one in spoken if one["role"] == "link"]


def test_the_numbers_of_the_charts_can_be_opened(shown: Tab) -> None:
    shown.value("document.querySelector('details').open = true")
    spoken = shown.spoken()
    assert "By hour, newest first" in [one["name"] for one in spoken if one["role"] == "table"]
    assert shown.value("document.querySelectorAll('details tbody tr').length") == len(EVERYTHING.hours)


def test_a_timeline_can_be_heard(port: Port, browser: Tab) -> None:
    port.view = EVERYTHING
    browser.open(port.url + RECORDING)
    spoken = browser.spoken()
    [picture] = [one for one in spoken if one["role"] == "image"]
    assert picture["name"] == "Timeline"
    assert picture["description"].startswith("10:00 min of audio with 200 screen files: ")
    headings = [(one["name"], one["level"]) for one in spoken if one["role"] == "heading"]
    assert [level for _, level in headings] == [1, 2, 2, 2, 2]
    assert len([one for one in spoken if one["role"] == "rowheader"]) == 200


def test_keys_lead_past_the_head_and_focus_is_seen(shown: Tab) -> None:
    key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    shown.call("Input.dispatchKeyEvent", type="keyDown", **key)
    seen = "[e.textContent, e.getBoundingClientRect().top >= 0, getComputedStyle(e).outlineWidth]"
    assert shown.value(f"(e => {seen})(document.activeElement)") == ["Skip to the content", True, "3px"]
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    shown.call("Input.dispatchKeyEvent", type="keyDown", **enter)
    assert shown.value("document.activeElement.id") == "content"


def test_it_is_loaded_again_unless_that_is_paused(port: Port, browser: Tab) -> None:
    port.view = EVERYTHING
    browser.open(port.url)
    [planned] = browser.told("Page.frameScheduledNavigation")
    assert (planned["reason"], planned["delay"]) == ("metaTagRefresh", REFRESH_SECONDS)
    pause = browser.value("[...document.querySelectorAll('a')].find((one) => one.textContent === 'Pause').href")
    browser.open(pause)
    assert browser.told("Page.frameScheduledNavigation") == []
    browser.open(browser.value("[...document.querySelectorAll('a')].find((one) => one.textContent === 'Go on').href"))
    assert browser.told("Page.frameScheduledNavigation")


def test_it_can_be_printed(shown: Tab) -> None:
    shown.call("Emulation.setEmulatedMedia", media="print")
    assert shown.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert contrast.faint(shown) == []


def test_a_recording_that_is_not_shown_is_told(port: Port) -> None:
    for query in ("", "?name=", "?name=no-such", "?name=%3Cscript%3E", "?" + "&".join(["a=b"] * 50)):
        reply = ask(port.number, f"/recording{query}")
        assert (reply.status, "<script>" in reply.body) == (404, False)
