"""A proxy for a moto server of this process that returns its own response to some requests, as other stores do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app  # type: ignore[attr-defined]
from werkzeug.serving import make_server


@dataclass(frozen=True)
class S3Request:
    """A request: its method, path with bucket, query, and headers by lower-case name."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]

    @property
    def is_of_bucket(self) -> bool:
        """Return whether the request is for a bucket, not an object."""
        return "/" not in self.path.strip("/")


@dataclass(frozen=True)
class SubstituteResponse:
    """A response that replaces that of moto. A response to HEAD has no body, as with every store."""

    status: int
    code: str = ""
    message: str = "no"
    more: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def response_body(self) -> bytes:
        if not self.code:
            return self.text.encode()
        return f"<Error><Code>{self.code}</Code><Message>{self.message}</Message>{self.more}</Error>".encode()


Rule = Callable[[S3Request], SubstituteResponse | None]


@contextmanager
def serve_front(rule: Rule, asked: list[S3Request] | None = None) -> Iterator[str]:
    """Yield the address of the proxy.

    `rule` returns the response, or None to forward the request to moto. Requests are added to `asked`."""
    moto = DomainDispatcherApplication(create_backend_app)

    def handle_request(environ: dict[str, Any], start_response: Any) -> Any:
        headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
        one = S3Request(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], headers)
        if asked is not None:
            asked.append(one)
        refusal = rule(one)
        if refusal is None:
            return moto(environ, start_response)
        body = b"" if one.method == "HEAD" else refusal.response_body
        start_response(f"{refusal.status} Refused", [("Content-Length", str(len(body))), *refusal.headers.items()])
        return [body]

    server = make_server("127.0.0.1", 0, handle_request, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
