"""A poll that fails is visible at once, with its code and the option that causes it: log, `status`, page and /readyz."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from lab.lab import Lab
from tests.support.commands import run_in_process
from tests.support.daemon import MuxerProcess, log_lines, run_muxer, wait_until
from tests.support.monitoring import HOST, send_request
from tests.support.muxer_runs import log_messages, write_config
from tests.support.ports import free_port
from tests.support.tiers import spread_variants
from tests.support.tls import TlsFront, pem_bundle, self_signed

TIMEOUT_SECONDS = 60
# Digits as in a UUID: the page hides what may be a telephone number or the name of a person.
WRONG_CENTER = "4f1c2b7e-1111-2222-3333-444455556666"


class _OtherServer(BaseHTTPRequestHandler):
    """A web server that has none of the paths of RWS."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@dataclass(frozen=True)
class Servers:
    """The addresses of the lab and of servers that `[htcc] base_uri` may name by mistake."""

    lab: Lab
    tls: TlsFront
    other_url: str
    authority: Path


@pytest.fixture
def servers(make_lab: Callable[..., Lab], tmp_path: Path) -> Iterator[Servers]:
    lab = make_lab()
    (authority := tmp_path / "ca.pem").write_bytes(pem_bundle(self_signed("ca", "ca")))
    with TlsFront(lab.rws_url, self_signed("rws", HOST)) as front, _run_other_server() as url:
        yield Servers(lab, front, url, authority)


class _RefusingServer(_OtherServer):
    """A web server that refuses every login."""

    def do_GET(self) -> None:
        self.send_error(401)


@contextmanager
def _run_other_server(handler: type[BaseHTTPRequestHandler] = _OtherServer, port: int = 0) -> Iterator[str]:
    server = ThreadingHTTPServer((HOST, port), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@dataclass(frozen=True)
class PollMistake:
    """Wrong options of [htcc], and what is shown everywhere: the code of the error, and what to correct.

    `lasts`: waiting cannot help.
    """

    options: Callable[[Servers], dict[str, str]]
    code: str
    advice: str
    lasts: bool = False


MISTAKES = {
    "contact center": PollMistake(
        lambda servers: {"contact_center_id": WRONG_CENTER},
        "MUX-220",
        f"RWS does not know contact center {WRONG_CENTER}: … correct [htcc] contact_center_id; if it is right, the path in "
        "[htcc] base_uri may be wrong; then restart the muxer",
        lasts=True,
    ),
    "another server": PollMistake(
        lambda servers: {"base_uri": servers.other_url},
        "MUX-220",
        "correct [htcc] base_uri: the server there may not be RWS; if it is, correct [htcc] contact_center_id; then restart "
        "the muxer",
        lasts=True,
    ),
    "password": PollMistake(
        lambda servers: {"password": "not the password"},
        "MUX-212",
        "check user name and password; they are [htcc] username (file, line 4) and password (file, line 5): correct them "
        "there; then restart the muxer",
        lasts=True,
    ),
    "http for https": PollMistake(
        lambda servers: {"base_uri": servers.tls.url.replace("https", "http")},
        "MUX-",
        "the port speaks TLS: write https:// in [htcc] base_uri; after a change of an option, restart the muxer",
        lasts=True,
    ),
    "https for http": PollMistake(
        lambda servers: {"base_uri": servers.lab.rws_url.replace("http", "https")},
        "MUX-204",
        "this port does not use TLS: write http:// or the TLS port in [htcc] base_uri; after a change of an option, restart",
        lasts=True,
    ),
    "authority": PollMistake(
        lambda servers: {"base_uri": servers.tls.url, "trusted_ca": str(servers.authority)},
        "MUX-204",
        "up to the root, to the PEM file of [htcc] trusted_ca; after a change of an option, restart the muxer",
        lasts=True,
    ),
    "host name": PollMistake(
        lambda servers: {"base_uri": "http://rws.invalid:8081"}, "MUX-201", "correct the host name in [htcc] base_uri"
    ),
    "port": PollMistake(
        lambda servers: {"base_uri": f"http://{HOST}:{free_port()}"},
        "MUX-201",
        "there: start RWS, or correct [htcc] base_uri",
    ),
}


@pytest.mark.parametrize("name", spread_variants(MISTAKES, 4))
def test_a_failing_poll_names_its_option_everywhere(servers: Servers, name: str) -> None:
    mistake, port = MISTAKES[name], free_port()
    options = {f"htcc__{option}": value for option, value in mistake.options(servers).items()}
    config, log = write_config(servers.lab, processing__min_poll_interval="5", monitoring__http_port=str(port), **options)
    texts = {}
    with MuxerProcess(config) as muxer:

        def has_failed() -> bool:
            code, texts["status"], _ = run_in_process(config, "status")
            return code == 1 and all(
                one in texts["status"] for one in ("RWS is unavailable: MUX-", "it tries again what is")
            )

        wait_until(has_failed, TIMEOUT_SECONDS, "the problem in `status`", log)
        texts["log"] = "\n".join(log_messages(log))
        texts["readyz"] = send_request(port, "/readyz").body
        pages: list[str] = []

        def waits_for_next_poll() -> bool:
            pages.append(send_request(port, "/").body)
            return "The next attempt is the next poll, " in pages[-1]

        wait_until(waits_for_next_poll, TIMEOUT_SECONDS, "the time of the next attempt on the page", log)
        page = pages[-1]
        assert muxer.stop() == 0
    for shown in texts.values():
        assert mistake.code in shown
        assert all(part in shown for part in mistake.advice.split(" … ")), shown
    assert "no poll has succeeded yet, " in texts["status"] and "failed: run `check`" in texts["status"]
    assert f"\n{mistake.code}" in texts["status"], "the remedy of the code"
    for shown in (texts["status"], texts["readyz"]):
        assert "it has never worked since the start of the muxer: run `check`" in shown, (
            "also when RWS has shown its version"
        )
    assert "A service has never worked since the start of the muxer: run check" in page
    for shown in (texts["log"], page):
        assert ("resume automatically" in shown) is not mistake.lasts
        assert ("are paused until the cause is corrected" in shown) is mistake.lasts
    summary = page.partition('<section aria-labelledby="now">')[0]
    assert not mistake.lasts or "restart the muxer" in summary, "the box says what to correct"
    assert "The next attempt is the next poll, " in summary
    errors = [line["message"] for line in log_lines(log) if line["level"] == "error"]
    assert len(errors) == 1 and errors[0].startswith("RWS is unavailable; "), "one event, one line"
    assert "the poll failed, because RWS is unavailable; the next attempt follows in " in texts["log"]
    assert '<span class="badge bad">unavailable</span>' in page and '<span class="badge good">' not in page
    assert "(a name)" not in page and "(a number)" not in page
    assert name != "contact center" or WRONG_CENTER in page


def test_a_failed_poll_is_gone_from_status_when_the_next_one_succeeds(make_lab: Callable[..., Lab]) -> None:
    lab = make_lab()
    config, log = write_config(lab, processing__min_poll_interval="0.05")
    lab.store.fail_next("rws", "GET", "/recordings", status=404, times=2, body=b'{"statusCode": 6}')
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "MUX-220" in run_in_process(config, "status")[1], TIMEOUT_SECONDS, "the failure", log)
        wait_until(lambda: run_in_process(config, "status")[0] == 0, TIMEOUT_SECONDS, "the recovery", log)
        assert muxer.stop() == 0


def test_a_migration_of_an_unknown_contact_center_ends_at_once(make_lab: Callable[..., Lab]) -> None:
    query = {"htcc__contact_center_id": WRONG_CENTER, "advanced__call_recording_query_string": "startTime=0"}
    config, _ = write_config(make_lab(), **query)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 4 and "MUX-220" in done.out and "[htcc] contact_center_id" in done.out


def test_a_changed_cause_is_logged_and_shown(make_lab: Callable[..., Lab]) -> None:
    port = free_port()
    config, log = write_config(make_lab(), htcc__base_uri=f"http://{HOST}:{port}", processing__min_poll_interval="0.05")

    def shows(text: str) -> bool:
        return text in run_in_process(config, "status")[1]

    def waits_for_login() -> bool:
        lines = [message.split() for message in log_messages(log) if message.startswith("the poll failed, because RWS is")]
        return any(float(words[-2]) > 30 for words in lines)

    with MuxerProcess(config) as muxer:
        wait_until(lambda: shows("RWS is unavailable: MUX-201 "), TIMEOUT_SECONDS, "the first cause", log)
        with _run_other_server(_RefusingServer, port):
            wait_until(lambda: shows("RWS is unavailable: MUX-212 "), TIMEOUT_SECONDS, "the second cause", log)
            wait_until(waits_for_login, TIMEOUT_SECONDS, "the next attempt, after the back-off", log)
        assert not shows("MUX-201"), "the cause of the first attempt is over"
        assert muxer.stop() == 0
    errors = [line["message"] for line in log_lines(log) if line["level"] == "error"]
    assert [message.partition(":")[0] for message in errors] == [
        "RWS is unavailable; recordings that need it are paused and resume automatically",
        "RWS is still unavailable, for another reason; recordings that need it are paused until the cause is corrected",
    ]
    assert "MUX-212 AuthenticationFailed" in errors[1]


def test_a_migration_with_a_wrong_password_reads_again_after_the_back_off(make_lab: Callable[..., Lab]) -> None:
    options = {"htcc__password": "not the password", "advanced__call_recording_query_string": "startTime=0"}
    config, log = write_config(make_lab(), **options)

    def attempts() -> list[str]:
        return [message for message in log_messages(log) if message.startswith("the query failed; reading it again in ")]

    with MuxerProcess(config) as muxer:
        wait_until(attempts, TIMEOUT_SECONDS, "the first attempt", log)
        assert muxer.stop() == 0
    assert float(attempts()[0].removeprefix("the query failed; reading it again in ").partition(" ")[0]) > 30
    errors = [line["message"] for line in log_lines(log) if line["level"] == "error"]
    assert [message.partition(";")[0] for message in errors] == ["RWS is unavailable"], "one event, one line"
