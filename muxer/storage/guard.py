"""The way to WebDAV servers: every request, those of redirects too, is first held against the servers that are spoken to."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import httpx

from muxer.storage.hosts import Hosts


class Guard(httpx.HTTPTransport):
    """Sends requests to the servers that :class:`Hosts` admits, and nothing to any other."""

    def __init__(self, hosts: Hosts, context: ssl.SSLContext) -> None:
        """Given the servers and the TLS context."""
        super().__init__(verify=context, trust_env=False, limits=httpx.Limits(max_connections=None))
        self._hosts = hosts

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. Raise :class:`~muxer.errors.AccessDenied` when its server is none of ours."""
        url = request.url
        host = url.raw_host.decode("ascii")
        try:
            addresses = self._hosts.admit(url.scheme, host, url.port)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host} leads nowhere: {error}") from error
        response = self._send(request, addresses)
        if url.scheme == "https":
            self._hosts.spoke_safely(host)
        return response

    def _send(self, request: httpx.Request, addresses: Sequence[str]) -> httpx.Response:
        """Send a request to the first of the addresses that takes it, or to its name; in TLS the name counts in any case."""
        for address in addresses[:-1]:
            try:
                return super().handle_request(_through(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return super().handle_request(_through(request, addresses[-1]) if addresses else request)


def _through(request: httpx.Request, address: str) -> httpx.Request:
    """Return a request that goes to a network address, with all that it says as before."""
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")},
    )
