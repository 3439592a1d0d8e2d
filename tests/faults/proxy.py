"""A proxy before one service that injects faults: asyncio in a thread, one request for each connection."""

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

from tests.faults import run_counters

HOST = "127.0.0.1"
LOGIN_PAGE = b"<html><body>Please log in to the network.</body></html>"
# handshake_failure, fatal, in a TLS 1.2 record
TLS_ALERT_RECORD = b"\x15\x03\x03\x00\x02\x02\x28"
LATENCY, DRIP = 0.3, 0.05
MAX_HEADER_BYTES = 1 << 16
# Byte by byte, it takes longer than any time limit of the tests.
_LONG_HEADER = b"\r\nX-Long: " + b"x" * 2000 + b"\r\n"


class Fault(StrEnum):
    """The faults that a request may meet."""

    LATENCY = "the response is late"
    RESET = "the connection is reset before the request arrives"
    LOST = "the request arrives and the response is lost"
    CUT = "the response is truncated"
    STALL = "no response arrives"
    STALL_WITHIN = "the response stops in the middle and the connection stays open"
    DRIP = "the response body arrives byte by byte"
    DRIP_HEAD = "long response headers arrive byte by byte"
    ERROR = "500"
    UNAVAILABLE = "503 with Retry-After"
    TOO_MANY = "429 with Retry-After"
    LENGTH = "Content-Length is larger than the body"
    WHOLE = "200 with the whole file for a Range request"
    TRUNCATED = "truncated JSON or XML with the right Content-Length"
    PAGE = "200 with an HTML page"
    REDIRECT = "a redirect to another host"
    TLS_ALERT = "TLS alert during the handshake"


# These never reach the service.
_BEFORE_RESPONSE = {Fault.RESET, Fault.STALL, Fault.ERROR, Fault.UNAVAILABLE, Fault.TOO_MANY, Fault.PAGE, Fault.REDIRECT}
PLAIN_FAULTS = tuple(fault for fault in Fault if fault is not Fault.TLS_ALERT)


@dataclass
class HttpMessage:
    """A request or a response: its first line, headers and body."""

    first: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def header_bytes(self) -> bytes:
        """Return the first line and the headers as bytes."""
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1")

    def header_value(self, name: str) -> str:
        """Return the value of a header; the name is case-insensitive."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")

    def without_headers(self, *names: str) -> HttpMessage:
        """Return the message without the headers `names`."""
        lower = [name.lower() for name in names]
        return replace(self, headers={name: value for name, value in self.headers.items() if name.lower() not in lower})


class FaultProxy:
    """``with FaultProxy(url) as proxy``: listens at ``proxy.url``, over TLS with ``context``. ``other`` is the host of its
    redirects."""

    def __init__(self, target: str, other: str = "", context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._other, self._context = other, context
        self._lock = threading.Lock()
        self._planned: list[tuple[Fault, str]] = []
        self._rate, self._chosen = 0.0, PLAIN_FAULTS
        self.injected: Counter[Fault] = Counter()
        self.seen: list[HttpMessage] = []
        self._listener = socket.create_server((HOST, 0))
        self.url = f"{'https' if context else 'http'}://{HOST}:{self._listener.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run_loop, name="proxy", daemon=True)

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def plan_fault(self, fault: Fault, times: int = 1, method: str = "") -> None:
        """Inject a fault into the next `times` requests (of `method`)."""
        with self._lock:
            self._planned += [(fault, method)] * times

    def set_fault_rate(self, rate: float, faults: tuple[Fault, ...] = PLAIN_FAULTS) -> None:
        """Inject one of `faults` into each request with the probability `rate`."""
        self._rate, self._chosen = rate, faults  # type: ignore[assignment]

    def clear_faults(self) -> None:
        """Inject no more faults."""
        with self._lock:
            self._planned, self._rate = [], 0.0

    @property
    def pending_count(self) -> int:
        """The number of planned faults that are not injected yet."""
        return len(self._planned)

    def _run_loop(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(
            asyncio.start_server(self._serve_connection, sock=self._listener, limit=MAX_HEADER_BYTES)
        )
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, EOFError, asyncio.LimitOverrunError, http.client.HTTPException):
            try:
                if self._context and not await self._start_tls(reader, writer):
                    return
                await self._handle_request(reader, writer)
            finally:
                writer.close()

    async def _start_tls(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Start TLS, unless the handshake is to fail."""
        if self._next_fault("TLS") is Fault.TLS_ALERT:
            await reader.read(1)
            self._count_fault(Fault.TLS_ALERT)
            writer.write(TLS_ALERT_RECORD)
            await writer.drain()
            return False
        await writer.start_tls(self._context)
        return True

    async def _handle_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_request(reader, writer)
        method = request.first.split(" ")[0]
        self.seen.append(request)
        fault = self._next_fault(method)
        if fault in _BEFORE_RESPONSE:
            self._count_fault(fault)
            await self._send_refusal(fault, request, reader, writer)
            return
        if fault is Fault.WHOLE and request.header_value("Range"):
            self._count_fault(fault)
            request = request.without_headers("Range")
        response = await self._forward_request(request, method)
        await self._send_response(fault, response, reader, writer)

    def _next_fault(self, method: str) -> Fault | None:
        """Return the fault for a request. A planned TLS fault applies only to connections."""
        with self._lock:
            for index, (fault, wanted) in enumerate(self._planned):
                if (fault is Fault.TLS_ALERT) == (method == "TLS") and wanted in ("", method):
                    del self._planned[index]
                    return fault
        chosen = [one for one in self._chosen if (one is Fault.TLS_ALERT) == (method == "TLS")]
        return random.choice(chosen) if chosen and random.random() < self._rate else None

    def _count_fault(self, fault: Fault) -> None:
        self.injected[fault] += 1
        run_counters.FAULTS.increase()

    async def _send_refusal(
        self, fault: Fault, request: HttpMessage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if fault is Fault.RESET:
            _reset_connection(writer)
        elif fault is Fault.STALL:
            await reader.read(1)
        else:
            response = self._build_refusal(fault, request)
            body = b"" if request.first.startswith("HEAD ") else response.body
            writer.write(response.header_bytes() + body)
            await writer.drain()

    def _build_refusal(self, fault: Fault, request: HttpMessage) -> HttpMessage:
        path = request.first.split(" ")[1]
        first, headers, body = {
            Fault.ERROR: ("500 Internal Server Error", {}, b"oops"),
            Fault.UNAVAILABLE: ("503 Service Unavailable", {"Retry-After": "1"}, b"later"),
            Fault.TOO_MANY: ("429 Too Many Requests", {"Retry-After": "1"}, b"later"),
            Fault.PAGE: ("200 OK", {"Content-Type": "text/html"}, LOGIN_PAGE),
            Fault.REDIRECT: ("307 Temporary Redirect", {"Location": self._other + path}, b""),
        }[fault]
        return HttpMessage(f"HTTP/1.1 {first}", {**headers, "Content-Length": str(len(body)), "Connection": "close"}, body)

    async def _forward_request(self, request: HttpMessage, method: str) -> HttpMessage:
        """Forward a request. Returns the complete response."""
        reader, writer = await asyncio.open_connection(*self._target)
        try:
            forwarded = request.without_headers("Connection", "Expect", "Keep-Alive")
            forwarded.headers["Connection"] = "close"
            if self._context and (destination := forwarded.header_value("Destination")):
                forwarded = forwarded.without_headers("Destination")
                forwarded.headers["Destination"] = destination.replace("https:", "http:", 1)
            writer.write(forwarded.header_bytes() + forwarded.body)
            await writer.drain()
            return _parse_response(await reader.read(-1), method)
        finally:
            writer.close()

    async def _send_response(
        self, fault: Fault | None, response: HttpMessage, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send a response with `fault`. A fault that does not apply to the response is ignored."""
        whole = response.header_bytes() + response.body
        half = len(response.header_bytes()) + len(response.body) // 2 if response.body else len(whole) // 2
        if fault is Fault.TRUNCATED and not _is_structured(response):
            fault = None
        if fault not in (None, Fault.WHOLE):
            self._count_fault(fault)
        if fault is Fault.LATENCY:
            await asyncio.sleep(LATENCY)
        if fault is Fault.LOST:
            _reset_connection(writer)
        elif fault in (Fault.CUT, Fault.STALL_WITHIN):
            writer.write(whole[:half])
            await writer.drain()
            if fault is Fault.STALL_WITHIN:
                await reader.read(1)
        elif fault is Fault.DRIP:
            await _send_slowly(writer, response.header_bytes(), response.body)
        elif fault is Fault.DRIP_HEAD:
            await _send_slowly(writer, b"", _LONG_HEADER.join(response.header_bytes().split(b"\r\n", 1)) + response.body)
        elif fault in (Fault.LENGTH, Fault.TRUNCATED):
            body = response.body[: len(response.body) // 2] if fault is Fault.TRUNCATED else response.body
            length = len(body) if fault is Fault.TRUNCATED else int(response.header_value("Content-Length") or 0) + 100
            changed = response.without_headers("Content-Length")
            changed.headers["Content-Length"] = str(length)
            writer.write(changed.header_bytes() + body)
            await writer.drain()
        else:
            writer.write(whole)
            await writer.drain()


async def _send_slowly(writer: asyncio.StreamWriter, at_once: bytes, slowly: bytes) -> None:
    writer.write(at_once)
    for byte in slowly:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(DRIP)


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> HttpMessage:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.split("\r\n")[:-2]
    message = HttpMessage(first, {name: value.strip() for name, _, value in (line.partition(":") for line in lines)})
    if message.header_value("Expect"):
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if message.header_value("Transfer-Encoding"):
        raise http.client.HTTPException("no client of ours sends chunks")
    message.body = await reader.readexactly(int(message.header_value("Content-Length") or 0))
    return message


def _parse_response(raw: bytes, method: str) -> HttpMessage:
    """Return the response with a Content-Length header, whatever its transfer encoding was."""

    class RawSource:
        def makefile(self, *_: object) -> io.BytesIO:
            return io.BytesIO(raw)

    response = http.client.HTTPResponse(RawSource(), method=method)
    response.begin()
    body = response.read()
    message = HttpMessage(f"HTTP/1.1 {response.status} {response.reason}", dict(response.getheaders()), body)
    changed = message.without_headers("Transfer-Encoding", "Connection", "Keep-Alive")
    if method != "HEAD" and response.status not in (204, 304):
        changed = changed.without_headers("Content-Length")
        changed.headers["Content-Length"] = str(len(body))
    changed.headers["Connection"] = "close"
    return changed


def _is_structured(response: HttpMessage) -> bool:
    return bool(response.body) and any(kind in response.header_value("Content-Type") for kind in ("json", "xml"))


def _reset_connection(writer: asyncio.StreamWriter) -> None:
    """Close a connection with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
