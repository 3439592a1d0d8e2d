"""The credentials of the WebDAV account in a request: Basic, or Digest for the servers that accept only that."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import suppress

import httpx

from muxer.errors import StorageMisconfigured

AuthFlow = Generator[httpx.Request, httpx.Response, None]
BASIC, DIGEST = "Basic", "Digest"


def offered_schemes(response: httpx.Response) -> list[str]:
    """Return the authentication schemes that a `response` 401 offers, such as ``Basic``."""
    headers = response.headers.get_list("WWW-Authenticate")
    return [one.strip().partition(" ")[0] for one in headers]


class WebdavAuth(httpx.Auth):
    """Sends Basic at once, and Digest to a server that has offered only that. Safe to use from any thread."""

    def __init__(self, username: str, password: str) -> None:
        self._login = (username, password)
        self._basic = httpx.BasicAuth(username, password)
        # Servers by scheme, host and port.
        self._digest_servers: set[str] = set()
        # Servers that have accepted the credentials.
        self._accepting: set[str] = set()
        # The counter of a nonce must not be used by two requests at once, so each thread has its own.
        self._of_thread = threading.local()

    def server_scheme(self, server: str) -> str:
        """Return the authentication scheme of `server`, as far as its responses have shown it."""
        return DIGEST if server in self._digest_servers else BASIC

    def may_challenge(self, server: str) -> bool:
        """Whether the next request to `server` may get a challenge: always with Digest, whose nonces expire."""
        return server not in self._accepting or server in self._digest_servers

    def was_accepted(self, server: str) -> bool:
        """Whether `server` has responded to a request with the credentials by another status than 401."""
        return server in self._accepting

    def sync_auth_flow(self, request: httpx.Request) -> AuthFlow:
        """Yield `request` with the credentials. Raises StorageMisconfigured when the challenge cannot be answered."""
        try:
            yield from self._choose_flow(request)
        except (KeyError, ValueError, NotImplementedError, httpx.ProtocolError) as error:
            raise StorageMisconfigured(
                f"{request.method} {request.url}: the server asks for a kind of Digest authentication that the muxer does "
                "not know; let it accept Basic, or Digest with qop=auth and MD5 or SHA-256"
            ) from error

    def _choose_flow(self, request: httpx.Request) -> AuthFlow:
        server = server_origin(request.url)
        if server in self._digest_servers:
            yield from self._digest_or_basic(self._digest_auth(server).sync_auth_flow(request), server)
            return
        basic = self._basic.sync_auth_flow(request)
        response = yield next(basic)
        if self._is_accepted(response, server) or {one.capitalize() for one in offered_schemes(response)} != {DIGEST}:
            return
        self._digest_servers.add(server)
        digest = self._digest_auth(server).sync_auth_flow(request)
        next(digest)  # the request that has brought the challenge
        with suppress(StopIteration):
            self._is_accepted((yield digest.send(response)), server)

    def _is_accepted(self, response: httpx.Response, server: str) -> bool:
        """Whether a `response` of `server` is anything but 401; remember that it was."""
        accepted = response.status_code != httpx.codes.UNAUTHORIZED
        if accepted:
            self._accepting.add(server)
        return accepted

    def _digest_or_basic(self, digest: AuthFlow, server: str) -> AuthFlow:
        """Yield what `digest` yields; switch to Basic when `server` offers no Digest any longer."""
        request = next(digest)
        while True:
            response = yield request
            if not self._is_accepted(response, server) and DIGEST not in map(str.capitalize, offered_schemes(response)):
                self._digest_servers.discard(server)
                yield from self._basic.sync_auth_flow(request)
                return
            try:
                request = digest.send(response)
            except StopIteration:
                return

    def _digest_auth(self, server: str) -> httpx.DigestAuth:
        known: dict[str, httpx.DigestAuth] = self._of_thread.__dict__
        return known.setdefault(server, httpx.DigestAuth(*self._login))


def server_origin(url: httpx.URL) -> str:
    """Return scheme, host and port of `url`, as they are written in an address."""
    return f"{url.scheme}://{url.netloc.decode('ascii')}"
