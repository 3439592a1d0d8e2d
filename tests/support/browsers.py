"""Headless browsers that play films from a local server and report the frames and the audio.

There is no driver: the page (player.html) plays the films and posts its report to the server.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.support.requirements import require_program

PAGE = Path(__file__).with_name("player.html")
PROGRAMS = {"chromium": ("chromium", "chromium-browser"), "firefox": ("firefox-esr", "firefox")}
CHROMIUM = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-breakpad", "--mute-audio"),
    *("--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"),
)
FIREFOX = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.downloads.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.update.enabled": False,
    "media.autoplay.blocking_policy": 0,
    "media.autoplay.default": 0,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
    "toolkit.telemetry.unified": False,
    "trailhead.firstrun.didSeeAboutWelcome": True,
}


@dataclass(frozen=True)
class BrowserFilm:
    """A file, the times to seek to, and the start and duration of the playback."""

    path: Path
    seeks: tuple[float, ...]
    play_from: float
    play_seconds: float = 1.5


@dataclass(frozen=True)
class BrowserReport:
    """The report of a browser for each film, by name, and the HTTP status codes of the responses with films."""

    films: Mapping[str, Any]
    states: frozenset[int]


def play_in_browser(
    browser: str, films: Mapping[str, BrowserFilm], picture: tuple[int, int], rate: int, limit: float = 100
) -> BrowserReport:
    """Let a browser play films and return its report.

    Frames are reported in the size `picture`, audio at the rate `rate`. The browser and all its processes always end.
    """
    order = [
        {"name": name, "url": f"/{name}.mp4", "seeks": film.seeks, "play_from": film.play_from}
        | {"play_seconds": film.play_seconds, "picture": picture, "rate": rate}
        for name, film in films.items()
    ]
    server = _FilmServer({f"/{name}.mp4": film.path for name, film in films.items()}, json.dumps(order).encode())
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        with _run_browser(browser, f"http://127.0.0.1:{server.server_port}/") as log:
            try:
                report = server.reports.get(timeout=limit)
            except queue.Empty:
                raise AssertionError(
                    f"{browser} sent no report within {limit} s; output: {log.read_text()[-2000:]}"
                ) from None
    finally:
        server.shutdown()
        server.server_close()
    return BrowserReport(report["films"], frozenset(server.states))


@contextmanager
def _run_browser(browser: str, url: str) -> Iterator[Path]:
    """Run a browser with a separate home folder; yield the file with its output."""
    program = require_program(*PROGRAMS[browser])
    home = Path(tempfile.mkdtemp(prefix=f"muxer-{browser}-"))
    profile, log = home / "profile", home / "log"
    profile.mkdir()
    if browser == "chromium":
        command = [program, *CHROMIUM, f"--user-data-dir={profile}", url]
    else:
        lines = [f'user_pref("{name}", {json.dumps(value)});\n' for name, value in FIREFOX.items()]
        (profile / "user.js").write_text("".join(lines))
        command = [program, "--headless", "--no-remote", "--profile", str(profile), url]
    try:
        with log.open("wb") as output:
            environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, start_new_session=True
            )
        try:
            yield log
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)
    finally:
        shutil.rmtree(home, ignore_errors=True)


class _FilmServer(ThreadingHTTPServer):
    """Serve the page, the list of films, and the films, complete or in ranges; receive the report."""

    daemon_threads = True

    def __init__(self, files: Mapping[str, Path], films: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.films = files, films
        self.reports: queue.Queue[dict[str, Any]] = queue.Queue()
        self.states: set[int] = set()

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors: a browser aborts transfers that it no longer needs."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _FilmServer

    def do_GET(self) -> None:
        if self.path in self.server.files:
            self._send_film(self.server.files[self.path].read_bytes())
        elif self.path == "/films":
            self._send_response(200, "application/json", self.server.films)
        elif self.path == "/":
            self._send_response(200, "text/html", PAGE.read_bytes())
        else:
            self._send_response(404, "text/plain", b"")

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self._send_response(204, "text/plain", b"")
        self.server.reports.put(json.loads(content))

    def _send_film(self, content: bytes) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin = int(wanted[1]) if wanted else 0
        end = min(int(wanted[2]) + 1, len(content)) if wanted and wanted[2] else len(content)
        state = 416 if begin >= end else 206 if wanted else 200
        self.server.states.add(state)
        ranges = {206: f"bytes {begin}-{end - 1}/{len(content)}", 416: f"bytes */{len(content)}"}.get(state)
        self._send_response(state, "video/mp4", content[begin:end], {"Content-Range": ranges} if ranges else {})

    def _send_response(self, state: int, kind: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(state)
        for name, value in {"Content-Type": kind, "Accept-Ranges": "bytes", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log nothing."""
