"""A TCP proxy for one service that can reset, refuse or silently drop connections (asyncio in a thread)."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import ExitStack, suppress
from typing import Any

from tests.support.ports import reserved_port

HOST = "127.0.0.1"
TIMEOUT_SECONDS = 20
_LINGER_ZERO = struct.pack("ii", 1, 0)  # SO_LINGER: a close sends RST


class TcpProxy:
    """``with TcpProxy(port) as line``: connections to ``line.port`` are forwarded to the service at `port`.

    Bytes held by :meth:`drop_silently` are forwarded after :meth:`restore_connections`, as TCP sends them again; so is the
    end of a connection.
    """

    def __init__(self, port: int, host: str = HOST) -> None:
        self._target = (host, port)
        self._held = ExitStack()
        self.port = self._held.enter_context(reserved_port())
        self.accepted = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._alive = asyncio.Event()
        self._alive.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="line", daemon=True)

    def __enter__(self) -> TcpProxy:
        self._thread.start()
        self._run_in_loop(self._start_listening())
        return self

    def __exit__(self, *_: object) -> None:
        self._run_in_loop(self._cancel_tasks())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_SECONDS)
        self._loop.close()
        self._held.close()

    def reset_connections(self) -> None:
        """Reset all connections at both ends; new ones are forwarded."""
        self._run_in_loop(self._reset_all())

    def refuse_connections(self) -> None:
        """Reset all connections and refuse new ones until they are restored."""
        self._run_in_loop(self._close_listener())

    def drop_silently(self) -> None:
        """Forward nothing in either direction, without an error, until connections are restored."""
        self._run_in_loop(self._stop_forwarding())

    def restore_connections(self) -> None:
        """Forward everything again."""
        self._run_in_loop(self._start_listening())

    @property
    def connection_count(self) -> int:
        """The number of open connections."""
        return len(self._writers) // 2

    def _run_in_loop(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(TIMEOUT_SECONDS)

    async def _start_listening(self) -> None:
        self._alive.set()
        if self._server is None:
            listener = socket.create_server((HOST, self.port))
            self._server = await asyncio.start_server(self._serve_client, sock=listener)

    async def _stop_forwarding(self) -> None:
        self._alive.clear()

    async def _reset_all(self) -> None:
        for writer in tuple(self._writers):
            with suppress(OSError):  # already reset by the other end
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            writer.transport.abort()

    async def _close_listener(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset_all()

    async def _cancel_tasks(self) -> None:
        await self._close_listener()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        with suppress(OSError, asyncio.CancelledError):
            await self._alive.wait()
            there, back = await asyncio.open_connection(*self._target)
            self._writers.add(back)
            with suppress(asyncio.CancelledError):
                await asyncio.gather(self._forward_bytes(reader, back), self._forward_bytes(there, writer))
            self._close_writer(back)
        self._close_writer(writer)

    async def _forward_bytes(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward bytes and then their end; a reset of one end resets the other."""
        try:
            while data := await reader.read(1 << 16):
                await self._alive.wait()
                writer.write(data)
                await writer.drain()
            await self._alive.wait()
            writer.write_eof()
        except OSError:
            await self._alive.wait()
            writer.transport.abort()

    def _close_writer(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()
