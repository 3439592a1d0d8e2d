"""A proxy before one service that spoils answers: asyncio in a thread, one request for each connection."""

from __future__ import annotations

import asyncio
import http.client
import io
import random
import socket
import ssl
import struct
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from urllib.parse import urlsplit

from tests.faults import figures

HOST = "127.0.0.1"
PAGE = b"<html><body>Please log in to the network.</body></html>"
# handshake_failure, fatal, in a TLS 1.2 record
ALERT = b"\x15\x03\x03\x00\x02\x02\x28"
LATENCY, DRIP = 0.3, 0.05
HEAD_LIMIT = 1 << 16
# Byte by byte it takes longer than any limit of the tests.
_LONG = b"\r\nX-Long: " + b"x" * 2000 + b"\r\n"


class Fault(StrEnum):
    """What may happen to a request."""

    LATENCY = "the answer comes late"
    RESET = "the connection is reset before the request gets there"
    LOST = "the request gets there and the answer is lost"
    CUT = "the answer is cut in its middle"
    STALL = "no answer ever comes"
    STALL_WITHIN = "the answer stops in its middle and the connection stays"
    DRIP = "the answer comes byte by byte"
    DRIP_HEAD = "the head of the answer comes byte by byte, and is long"
    ERROR = "500"
    UNAVAILABLE = "503 with Retry-After"
    TOO_MANY = "429 with Retry-After"
    LENGTH = "Content-Length is more than what comes"
    WHOLE = "200 with everything to a Range request"
    TRUNCATED = "JSON or XML that ends in its middle, with the right length"
    PAGE = "200 with an HTML page"
    REDIRECT = "a redirect to another host"
    TLS_ALERT = "TLS fails with an alert"


# These never reach the service.
_BEFORE = {Fault.RESET, Fault.STALL, Fault.ERROR, Fault.UNAVAILABLE, Fault.TOO_MANY, Fault.PAGE, Fault.REDIRECT}
PLAIN = tuple(fault for fault in Fault if fault is not Fault.TLS_ALERT)


@dataclass
class Message:
    """A request or an answer: its first line, headers and body."""

    first: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def head(self) -> bytes:
        """Return what stands before the body."""
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def of(self, name: str) -> str:
        """Return a header, by its name in any case."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")

    def without(self, *names: str) -> Message:
        """Return it without some headers."""
        lower = [name.lower() for name in names]
        return replace(self, headers={name: value for name, value in self.headers.items() if name.lower() not in lower})


class Proxy:
    """``with Proxy(url) as proxy``: answers at ``proxy.url``; over TLS with ``context``. ``other`` is the host to which it
    redirects."""

    def __init__(self, target: str, other: str = "", context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._other, self._context = other, context
        self._lock = threading.Lock()
        self._planned: list[tuple[Fault, str]] = []
        self._rate, self._chosen = 0.0, PLAIN
        self.injected: Counter[Fault] = Counter()
        self.seen: list[Message] = []
        self._listener = socket.create_server((HOST, 0))
        self.url = f"{'https' if context else 'http'}://{HOST}:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def plan(self, fault: Fault, times: int = 1, method: str = "") -> None:
        """Spoil the next requests (of a method) with a fault."""
        with self._lock:
            self._planned += [(fault, method)] * times

    def at_random(self, rate: float, faults: tuple[Fault, ...] = PLAIN) -> None:
        """Spoil each request with this probability, with any of the faults."""
        self._rate, self._chosen = rate, faults

    def clear(self) -> None:
        """Spoil nothing more."""
        with self._lock:
            self._planned, self._rate = [], 0.0

    @property
    def pending(self) -> int:
        """How many planned faults no request has met yet."""
        return len(self._planned)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._listener, limit=HEAD_LIMIT))
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.LimitOverrunError, http.client.HTTPException):
            try:
                if self._context and not await self._secured(reader, writer):
                    return
                await self._exchange(reader, writer)
            finally:
                writer.close()

    async def _secured(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Begin TLS, unless it is to fail."""
        if self._take("TLS") is Fault.TLS_ALERT:
            await reader.read(1)
            self._count(Fault.TLS_ALERT)
            writer.write(ALERT)
            await writer.drain()
            return False
        await writer.start_tls(self._context)
        return True

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_request(reader, writer)
        method = request.first.split(" ")[0]
        self.seen.append(request)
        fault = self._take(method)
        if fault in _BEFORE:
            self._count(fault)
            await self._refuse(fault, request, reader, writer)
            return
        if fault is Fault.WHOLE and request.of("Range"):
            self._count(fault)
            request = request.without("Range")
        answer = await self._ask(request, method)
        await self._send(fault, answer, reader, writer)

    def _take(self, method: str) -> Fault | None:
        """Return the fault that a request is to meet. A planned one of TLS is for connections only."""
        with self._lock:
            for place, (fault, wanted) in enumerate(self._planned):
                if (fault is Fault.TLS_ALERT) == (method == "TLS") and wanted in ("", method):
                    del self._planned[place]
                    return fault
        chosen = [one for one in self._chosen if (one is Fault.TLS_ALERT) == (method == "TLS")]
        return random.choice(chosen) if chosen and random.random() < self._rate else None

    def _count(self, fault: Fault) -> None:
        self.injected[fault] += 1
        figures.FAULTS.add()

    async def _refuse(
        self, fault: Fault, request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if fault is Fault.RESET:
            _reset(writer)
        elif fault is Fault.STALL:
            await reader.read(1)
        else:
            answer = self._refusal(fault, request)
            body = b"" if request.first.startswith("HEAD ") else answer.body
            writer.write(answer.head() + body)
            await writer.drain()

    def _refusal(self, fault: Fault, request: Message) -> Message:
        path = request.first.split(" ")[1]
        first, headers, body = {
            Fault.ERROR: ("500 Internal Server Error", {}, b"oops"),
            Fault.UNAVAILABLE: ("503 Service Unavailable", {"Retry-After": "1"}, b"later"),
            Fault.TOO_MANY: ("429 Too Many Requests", {"Retry-After": "1"}, b"later"),
            Fault.PAGE: ("200 OK", {"Content-Type": "text/html"}, PAGE),
            Fault.REDIRECT: ("307 Temporary Redirect", {"Location": self._other + path}, b""),
        }[fault]
        return Message(f"HTTP/1.1 {first}", {**headers, "Content-Length": str(len(body)), "Connection": "close"}, body)

    async def _ask(self, request: Message, method: str) -> Message:
        """Hand a request on and return the answer, whole."""
        reader, writer = await asyncio.open_connection(*self._target)
        try:
            asked = request.without("Connection", "Expect", "Keep-Alive")
            asked.headers["Connection"] = "close"
            if self._context and (destination := asked.of("Destination")):
                asked = asked.without("Destination")
                asked.headers["Destination"] = destination.replace("https:", "http:", 1)
            writer.write(asked.head() + asked.body)
            await writer.drain()
            return _parsed(await reader.read(-1), method)
        finally:
            writer.close()

    async def _send(
        self, fault: Fault | None, answer: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send an answer as its fault wants it; one that does not fit the answer is none."""
        whole = answer.head() + answer.body
        half = len(answer.head()) + len(answer.body) // 2 if answer.body else len(whole) // 2
        if fault is Fault.TRUNCATED and not _is_structured(answer):
            fault = None
        if fault not in (None, Fault.WHOLE):
            self._count(fault)
        if fault is Fault.LATENCY:
            await asyncio.sleep(LATENCY)
        if fault is Fault.LOST:
            _reset(writer)
        elif fault in (Fault.CUT, Fault.STALL_WITHIN):
            writer.write(whole[:half])
            await writer.drain()
            if fault is Fault.STALL_WITHIN:
                await reader.read(1)
        elif fault is Fault.DRIP:
            await _drip(writer, answer.head(), answer.body)
        elif fault is Fault.DRIP_HEAD:
            await _drip(writer, b"", _LONG.join(answer.head().split(b"\r\n", 1)) + answer.body)
        elif fault in (Fault.LENGTH, Fault.TRUNCATED):
            body = answer.body[: len(answer.body) // 2] if fault is Fault.TRUNCATED else answer.body
            length = len(body) if fault is Fault.TRUNCATED else int(answer.of("Content-Length") or 0) + 100
            told = answer.without("Content-Length")
            told.headers["Content-Length"] = str(length)
            writer.write(told.head() + body)
            await writer.drain()
        else:
            writer.write(whole)
            await writer.drain()


async def _drip(writer: asyncio.StreamWriter, at_once: bytes, slowly: bytes) -> None:
    writer.write(at_once)
    for byte in slowly:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(DRIP)


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Message:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    message = Message(first, {name: value.strip() for name, _, value in (line.partition(":") for line in lines)})
    if message.of("Expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if message.of("Transfer-Encoding"):
        raise http.client.HTTPException("no client of ours sends chunks")
    message.body = await reader.readexactly(int(message.of("Content-Length") or 0))
    return message


def _parsed(raw: bytes, method: str) -> Message:
    """Return an answer whose body has its length in a header, whatever form it came in."""

    class Source:
        def makefile(self, *_: object) -> io.BytesIO:
            return io.BytesIO(raw)

    response = http.client.HTTPResponse(Source(), method=method)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    message = Message(f"HTTP/1.1 {response.status} {response.reason}", dict(response.getheaders()), body)
    told = message.without("Transfer-Encoding", "Connection", "Keep-Alive")
    if method != "HEAD" and response.status not in (204, 304):
        told = told.without("Content-Length")
        told.headers["Content-Length"] = str(len(body))
    told.headers["Connection"] = "close"
    return told


def _is_structured(answer: Message) -> bool:
    return bool(answer.body) and any(kind in answer.of("Content-Type") for kind in ("json", "xml"))


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
