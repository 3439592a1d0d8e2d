"""The WebDAV storage of the lab: wsgidav on cheroot, with request records and scripted failures in front."""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import import_needed
from lab.service import HOST, ServiceAccount
from lab.store import RecordingStore, RequestRecord

WsgiEnviron = dict[str, Any]
StartResponse = Callable[..., Any]
SERVICE_NAME = "dav"
MAX_THREADS = 20


@dataclass(frozen=True)
class ExternalDav:
    """Another WebDAV server to use instead: its URL, the folder behind that URL, the credentials."""

    url: str
    root: Path
    username: str
    password: str


class DavServer:
    """wsgidav on loopback, with basic authentication for one account."""

    def __init__(self, root: Path, account: ServiceAccount, store: RecordingStore, port: int = 0) -> None:
        """Bind the port (0: any). Raises LabError if wsgidav or cheroot is missing, OSError if the port is in use."""
        wsgi = import_needed("cheroot.wsgi")
        application = _RecordingMiddleware(_create_application(root, account), store)
        self._server = wsgi.Server((HOST, port), application, numthreads=MAX_THREADS)
        self._server.shutdown_timeout = 1
        self._server.expiration_interval = 0.05  # a stop waits this long for the loop
        self._server.error_log = _write_log
        self._server.prepare()
        self.url = f"http://{HOST}:{self._server.bind_addr[1]}"
        self._thread = threading.Thread(target=self._server.serve, name=SERVICE_NAME, daemon=True)

    def start(self) -> None:
        """Start serving."""
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and free the port."""
        self._server.stop()
        self._thread.join()


def _create_application(root: Path, account: ServiceAccount) -> Any:
    logging.getLogger("wsgidav").setLevel(logging.ERROR)
    config = {
        "provider_mapping": {"/": str(root)},
        "simple_dc": {"user_mapping": {"*": {account.username: {"password": account.password}}}},
        "http_authenticator": {"accept_basic": True, "accept_digest": False, "default_to_digest": False},
        "verbose": 0,
        "logging": {"enable": False},
    }
    return import_needed("wsgidav.wsgidav_app").WsgiDAVApp(config)


class _RecordingMiddleware:
    """WSGI middleware: records every request, and returns scripted failures instead of the real response."""

    def __init__(self, application: Any, store: RecordingStore) -> None:
        self._application, self._store = application, store

    def __call__(self, environ: WsgiEnviron, start_response: StartResponse) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ.get("REQUEST_URI") or environ["PATH_INFO"]

        def record_response(status: str, *rest: Any, **keywords: Any) -> Any:
            self._store.record_request(RequestRecord(SERVICE_NAME, method, path, int(status[:3])))
            return start_response(status, *rest, **keywords)

        failure = self._store.take_failure(SERVICE_NAME, method, path)
        if failure is None:
            response: Iterable[bytes] = self._application(environ, record_response)
            return response
        headers = {"Content-Length": str(len(failure.body)), **failure.headers}
        record_response(f"{failure.status} Scripted", list(headers.items()))
        return [failure.body]


def _write_log(message: str = "", level: int = 20, traceback: bool = False) -> None:
    logging.getLogger(__name__).debug("%s", message, exc_info=traceback)
