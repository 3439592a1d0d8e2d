"""Certificates created in the test, and a real TLS proxy on loopback for any plain server."""

from __future__ import annotations

import select
import socket
import ssl
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"
MEDIA = b"media"
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Identity:
    """A certificate with its key. With `authority` it may issue others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def issue_certificate(
        self, name: str, *hosts: str, authority: bool = False, plain: bool = False, begin: int = -1, end: int = 1
    ) -> Identity:
        """Create a certificate signed by this one, valid for `hosts`.

        It is valid from `begin` to `end`, in days from now. With `plain` it has no key usage and key identifiers, as many
        certificates of company authorities.
        """
        return _create_identity(name, hosts, authority, plain, (begin, end), self)

    @property
    def key_pem(self) -> bytes:
        """The unencrypted private key."""
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return self.key.private_bytes(*form)


def self_signed(name: str, *hosts: str, authority: bool = False, plain: bool = False, end: int = 1) -> Identity:
    """Create a self-signed certificate: a root, or that of a server."""
    return _create_identity(name, hosts, authority, plain, (-1, end), None)


def pem_bundle(*identities: Identity) -> bytes:
    """Return a bundle of certificates in the given order."""
    return b"".join(identity.certificate.public_bytes(serialization.Encoding.PEM) for identity in identities)


def _create_identity(
    name: str, hosts: tuple[str, ...], authority: bool, plain: bool, days: tuple[int, int], issuer: Identity | None
) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + (min(days) - 1) * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
    if not plain:
        usage = x509.KeyUsage(not authority, False, False, False, False, authority, authority, False, False)
        builder = (
            builder.add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        )
    return Identity(builder.sign(signer, hashes.SHA256()), key)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def server_context(chain: tuple[Identity, ...]) -> ssl.SSLContext:
    """Return the context of a server that sends this chain, with its own certificate first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory(prefix="muxer-tls-") as folder:
        file = Path(folder) / "server.pem"
        file.write_bytes(chain[0].key_pem + pem_bundle(*chain))
        context.load_cert_chain(file)
    return context


class TlsFront:
    """A TLS proxy on a loopback port for a plain server: ``with TlsFront(url, certificate, …)``."""

    def __init__(self, target: str, *chain: Identity) -> None:
        """Bind a free port for the server `target`, with the certificates to send."""
        parts = urlsplit(target)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server((HOST, 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"https://{HOST}:{self.port}"
        self.send_chain(*chain)

    def send_chain(self, *chain: Identity) -> None:
        """Send this chain on new connections."""
        self._context = server_context(chain)

    def __enter__(self) -> TlsFront:
        threading.Thread(target=self._accept_clients, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept_clients(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._forward_bytes, args=(client,), daemon=True).start()

    def _forward_bytes(self, client: socket.socket) -> None:
        """Forward bytes in both directions until either side ends; errors of a client are ignored."""
        with (
            suppress(OSError),
            client,
            self._context.wrap_socket(client, server_side=True) as safe,
            socket.create_connection(self._target) as plain,
        ):
            while True:
                ready = [safe] if safe.pending() else select.select([safe, plain], [], [])[0]
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    (plain if source is safe else safe).sendall(data)


class MediaServer(ThreadingHTTPServer):
    """A plain server that returns ``MEDIA`` for every path, or a redirect.

    It records the requests with their Authorization and host name, and the number of connections."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _MediaHandler)
        self.url = f"http://{HOST}:{self.server_address[1]}"
        self.requests: list[tuple[str, str]] = []
        self.hosts: list[str] = []
        self.connections = 0
        self.redirect = ""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Count the connection."""
        self.connections += 1
        super().process_request(request, client_address)


class _MediaHandler(BaseHTTPRequestHandler):
    server: MediaServer

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Authorization", "")))
        self.server.hosts.append(self.headers.get("Host", ""))
        self.send_response(302 if self.server.redirect else 200)
        if self.server.redirect:
            self.send_header("Location", self.server.redirect)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(MEDIA)))
        self.end_headers()
        self.wfile.write(MEDIA)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
