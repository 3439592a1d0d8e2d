"""The status page in Chromium, from the real port: layout on a phone and a screen, light and dark; accessibility; and no
request to other hosts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from muxer.monitoring import application
from muxer.monitoring.page import REFRESH_INTERVAL
from muxer.monitoring.view import ServiceStatus, StatusView
from tests.support import contrast
from tests.support.devtools import BrowserTab, run_chromium
from tests.support.fleet_views import fleet_view, worker_view
from tests.support.monitoring import create_sources, open_server, send_request
from tests.support.ports import free_port
from tests.support.status_views import NOW, done_row, failed_row, file_name, muxer_view, running_job, timeline_chain

SIZES = [(320, 640), (1280, 800)]
SCHEMES = ["light", "dark"]
LONG_ID = "call-" + "0123456789abcdef" * 40
RECORDING = f"recording?name={file_name('call-200')}"
EVERYTHING = muxer_view(
    running=(running_job("call-1", "mux", 45_000_000, 60_000_000), running_job(LONG_ID, "publish")),
    services=(
        *muxer_view().services,
        ServiceStatus("http://media-server-of-the-site.example.com:8080", False, NOW - 600, "no response " * 9),
    ),
    recent=(
        done_row("call-200", timeline_chain(200)),
        done_row("call-1-file", timeline_chain(1)),
        done_row(LONG_ID),
        done_row('"><script>document.title=1</script>'),
    ),
    failures=(
        failed_row(LONG_ID, "MediaError", "broken " * 30, state="aside", retry_at=None),
        failed_row("call-9", "ServiceUnavailable", "503"),
    ),
    counts={"aside": 1},
    warnings=("[webdav] trusted_ca = false: TLS certificates are not checked",),
)

FLEET = replace(
    EVERYTHING,
    fleet=fleet_view(
        worker_view(running=(running_job("call-1", "mux", 45_000_000, 60_000_000), running_job(LONG_ID, "publish"))),
        worker_view(1, seen=NOW - 90),
        worker_view(
            2, name=f"{LONG_ID}/worker-0/7", out={"http://media-server-of-the-site.example.com:8080": "no response " * 9}
        ),
        lanes={"recording-muxer": 1, "recording-muxer.today": 20, f"{LONG_ID}.backlog": 3000},
        dead=2,
        oldest=NOW - 4000,
    ),
)


class ViewPort:
    """A port with a view that tests set."""

    def __init__(self, number: int) -> None:
        self.number, self.view, self.url = number, EVERYTHING, f"http://127.0.0.1:{number}/"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ViewPort]:
    served = ViewPort(free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "gather_status", lambda _: served.view)
        with open_server(create_sources(tmp_path_factory.mktemp("port"), monitoring__http_port=served.number)):
            yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserTab]:
    with run_chromium() as tab:
        yield tab


@pytest.fixture
def shown(port: ViewPort, browser: BrowserTab) -> BrowserTab:
    """Return a tab with a page that contains all kinds of rows."""
    port.view = EVERYTHING
    browser.open_page(port.url)
    return browser


def page_problems(tab: BrowserTab, host: str) -> list[object]:
    """Return the errors of a tab and its requests to other hosts than the port."""
    complaints = tab.received_events(
        "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Audits.issueAdded"
    )
    urls = [event["request"]["url"] for event in tab.received_events("Network.requestWillBeSent")]
    return [*complaints, *(url for url in urls if urlsplit(url).netloc != host and not url.startswith("data:"))]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize(("path", "seen"), [("", EVERYTHING), ("", FLEET), (RECORDING, EVERYTHING)])
def test_page_fits_and_is_legible(
    port: ViewPort, browser: BrowserTab, path: str, seen: StatusView, width: int, height: int, scheme: str
) -> None:
    port.view = seen
    browser.open_page(port.url + path, width, height, scheme)
    assert page_problems(browser, urlsplit(port.url).netloc) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") == (scheme == "dark")
    assert len(contrast.text_contrasts(browser)) > 100
    assert contrast.low_contrast_texts(browser) == []


@pytest.mark.parametrize("level", ["good", "note", "bad"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_summary_is_legible(port: ViewPort, browser: BrowserTab, level: str, scheme: str) -> None:
    changes = {"good": {}, "note": {"counts": {"aside": 2}}, "bad": {"disk": replace(EVERYTHING.disk, has_room=False)}}  # type: ignore[type-var]
    port.view = muxer_view(**changes[level])
    browser.open_page(port.url, scheme=scheme)
    assert browser.evaluate(f"document.querySelectorAll('.summary.{level}').length") == 1
    assert contrast.low_contrast_texts(browser) == []


def test_low_contrast_text_is_detected(shown: BrowserTab) -> None:
    shown.evaluate("document.querySelector('h1').style.color = '#999'")
    assert [one["text"][:15] for one in contrast.low_contrast_texts(shown)] == ["Recording Muxer"]


def test_script_is_blocked_and_reported(shown: BrowserTab, port: ViewPort) -> None:
    shown.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
    )
    assert "Content Security Policy" in str(page_problems(shown, urlsplit(port.url).netloc))
    assert shown.evaluate("document.title").startswith("http://media-server")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_screen_reader_can_read_the_page(port: ViewPort, browser: BrowserTab, width: int, height: int) -> None:
    port.view = EVERYTHING
    browser.open_page(port.url, width, height)
    nodes = browser.accessibility_nodes()
    roles = [node["role"] for node in nodes]
    assert [roles.count(one) for one in ("banner", "navigation", "main", "contentinfo")] == [1, 1, 1, 1]
    headings = [(node["name"], node["level"]) for node in nodes if node["role"] == "heading"]
    assert headings == [("Recording Muxer primary-0, version 0.1.0", 1), ("Now", 2), ("Notes", 3), ("Services", 2)] + [
        (name, 2) for name in ("Running", "Failures", "Last 24 hours", "Recent recordings")
    ]
    tables = [node["name"] for node in nodes if node["role"] == "table"]
    named = ["Services that the muxer connects to", "Recordings in progress", "Muxed files that failed"]
    assert tables == [*named, "Recent recordings"]
    assert roles.count("rowheader") == 3 + 2 + 2 + 4
    assert {"Service", "State", "Last success"} <= {node["name"] for node in nodes if node["role"] == "columnheader"}
    [bar] = [node for node in nodes if node["role"] == "progressbar"]
    assert (bar["name"], float(bar["value"])) == ("mux of call-1", 75.0)
    charts = {node["name"]: node["description"] for node in nodes if node["role"] == "image"}
    assert charts["Recordings finished, by hour"].startswith("300 muxed files")
    assert charts.keys() == {"Recordings finished, by hour", "Backlog", "Age of the oldest call"}
    links = [node["name"] for node in nodes if node["role"] == "link"]
    assert "Timeline of call-1-file, file " + file_name("call-1-file")[-30:-22] in links
    assert len(links) == len(set(links))


def test_a_screen_reader_can_read_the_fleet(port: ViewPort, browser: BrowserTab) -> None:
    port.view = FLEET
    browser.open_page(port.url)
    nodes = browser.accessibility_nodes()
    headings = [(node["name"], node["level"]) for node in nodes if node["role"] == "heading"]
    assert headings[2:6] == [("Notes", 3), ("Fleet", 2), ("Queues", 3), ("Workers", 3)]
    tables = [node["name"] for node in nodes if node["role"] == "table"]
    assert tables[:2] == ["Waiting tasks by queue", "Workers of the fleet"]
    heads = [node["name"] for node in nodes if node["role"] == "columnheader"]
    assert heads[:3] == ["Queue, highest priority first", "Waiting tasks", "Worker"]
    assert heads[3:8] == ["State", "Running", "Muxed", "Failed", "Per hour"]
    assert "Fleet" in [node["name"] for node in nodes if node["role"] == "link"]


def test_the_table_of_the_charts_can_be_opened(shown: BrowserTab) -> None:
    shown.evaluate("document.querySelector('details').open = true")
    nodes = shown.accessibility_nodes()
    assert "By hour, newest first" in [node["name"] for node in nodes if node["role"] == "table"]
    assert shown.evaluate("document.querySelectorAll('details tbody tr').length") == len(EVERYTHING.hours)


def test_a_screen_reader_can_read_a_timeline(port: ViewPort, browser: BrowserTab) -> None:
    port.view = EVERYTHING
    browser.open_page(port.url + RECORDING)
    nodes = browser.accessibility_nodes()
    [chart] = [node for node in nodes if node["role"] == "image"]
    assert chart["name"] == "Timeline"
    assert chart["description"].startswith("10:00 min of audio with 200 screen files: ")
    headings = [(node["name"], node["level"]) for node in nodes if node["role"] == "heading"]
    assert [level for _, level in headings] == [1, 2, 2, 2, 2]
    assert len([node for node in nodes if node["role"] == "rowheader"]) == 200


def test_the_keyboard_skips_the_header_and_shows_the_focus(shown: BrowserTab) -> None:
    key = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    shown.call_method("Input.dispatchKeyEvent", type="keyDown", **key)
    seen = "[e.textContent, e.getBoundingClientRect().top >= 0, getComputedStyle(e).outlineWidth]"
    assert shown.evaluate(f"(e => {seen})(document.activeElement)") == ["Skip to the content", True, "3px"]
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    shown.call_method("Input.dispatchKeyEvent", type="keyDown", **enter)
    assert shown.evaluate("document.activeElement.id") == "content"


def test_the_page_reloads_unless_paused(port: ViewPort, browser: BrowserTab) -> None:
    port.view = EVERYTHING
    browser.open_page(port.url)
    [planned] = browser.received_events("Page.frameScheduledNavigation")
    assert (planned["reason"], planned["delay"]) == ("metaTagRefresh", REFRESH_INTERVAL)
    pause = browser.evaluate("[...document.querySelectorAll('a')].find((one) => one.textContent === 'Pause').href")
    browser.open_page(pause)
    assert browser.received_events("Page.frameScheduledNavigation") == []
    browser.open_page(
        browser.evaluate("[...document.querySelectorAll('a')].find((one) => one.textContent === 'Resume').href")
    )
    assert browser.received_events("Page.frameScheduledNavigation")


def test_page_can_be_printed(shown: BrowserTab) -> None:
    shown.call_method("Emulation.setEmulatedMedia", media="print")
    assert shown.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert contrast.low_contrast_texts(shown) == []


def test_a_recording_that_is_not_shown_is_not_found(port: ViewPort) -> None:
    for query in ("", "?name=", "?name=no-such", "?name=%3Cscript%3E", "?" + "&".join(["a=b"] * 50)):
        reply = send_request(port.number, f"/recording{query}")
        assert (reply.status, "<script>" in reply.body) == (404, False)
