"""Headless Chromium, controlled over two pipes by its DevTools protocol: pages as users and screen readers see them."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from tests.support.browsers import CHROMIUM, PROGRAMS
from tests.support.requirements import require_program

TIMEOUT_SECONDS = 60.0
# The browser reads descriptor 3 and writes to descriptor 4.
_PLACED = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"


class BrowserTab:
    """One tab of a browser; it stores the events that it receives."""

    def __init__(self, commands: int, responses: int) -> None:
        self._commands, self._number, self._session = commands, 0, ""
        self._responses: queue.Queue[dict[str, Any]] = queue.Queue()
        self.events: list[dict[str, Any]] = []
        Thread(target=self._read_messages, args=(responses,), daemon=True).start()
        target = self.call_method("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call_method("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Audits", "DOM", "Accessibility"):
            self.call_method(f"{domain}.enable")

    def call_method(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (response := self._responses.get(timeout=TIMEOUT_SECONDS)).get("id") != self._number:
            self.events.append(response)
        assert "error" not in response, (method, response["error"])
        return response["result"]

    def open_page(self, url: str, width: int = 1280, height: int = 800, scheme: str = "light") -> None:
        """Load a URL in a window of the given size, in a light or dark colour scheme."""
        self.call_method(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call_method("Emulation.setEmulatedMedia", media="screen", features=features)
        self.events.clear()
        failed = self.call_method("Page.navigate", url=url).get("errorText")
        assert not failed, failed
        self.wait_for_event("Page.loadEventFired")

    def wait_for_event(self, event: str) -> None:
        """Wait until the tab has sent an event."""
        while not any(item.get("method") == event for item in self.events):
            self.events.append(self._responses.get(timeout=TIMEOUT_SECONDS))

    def received_events(self, *events: str) -> list[dict[str, Any]]:
        """Return the events of some kinds received so far."""
        self.call_method("Runtime.evaluate", expression="0")
        return [event["params"] for event in self.events if event.get("method") in events]

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; this works also when the policy of the page forbids scripts."""
        result = self.call_method("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def accessibility_nodes(self) -> list[dict[str, Any]]:
        """Return what a screen reader receives: role, name, value, level … of each node, in order."""
        nodes = self.call_method("Accessibility.getFullAXTree")["nodes"]
        return [_flatten_node(node) for node in nodes if not node.get("ignored")]

    def save_screenshot(self, path: Path, whole: bool = True) -> None:
        """Save a screenshot of the page, complete or only the visible part."""
        data = self.call_method("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _read_messages(self, responses: int) -> None:
        rest = b""
        while chunk := os.read(responses, 1 << 20):
            *whole, rest = (rest + chunk).split(b"\0")
            for item in whole:
                self._responses.put(json.loads(item))


def _flatten_node(node: dict[str, Any]) -> dict[str, Any]:
    properties = {name: node[name].get("value") for name in ("role", "name", "value", "description") if name in node}
    return properties | {item["name"]: item["value"].get("value") for item in node.get("properties", ())}


@contextmanager
def run_chromium() -> Iterator[BrowserTab]:
    """Run Chromium with a separate home folder and one tab; all its processes end with the block."""
    program = require_program(*PROGRAMS["chromium"])
    home = Path(tempfile.mkdtemp(prefix="muxer-devtools-"))
    pipes = [*os.pipe(), *os.pipe()]
    # Not 3 and 4, which the browser needs.
    theirs = [fcntl.fcntl(pipes[index], fcntl.F_DUPFD, 10) for index in (0, 3)]
    command = [program, *CHROMIUM, "--remote-debugging-pipe", f"--user-data-dir={home / 'profile'}", "about:blank"]
    start = [sys.executable, "-c", _PLACED, *map(str, theirs), *command]
    environment = {**os.environ, "HOME": str(home), "XDG_RUNTIME_DIR": str(home)}
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(start, pass_fds=theirs, env=environment, start_new_session=True, **quiet)  # type: ignore[call-overload]
    for their in (*theirs, pipes[0], pipes[3]):
        os.close(their)
    try:
        yield BrowserTab(pipes[1], pipes[2])
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)
        os.close(pipes[1])
        shutil.rmtree(home, ignore_errors=True)
