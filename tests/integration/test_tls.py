"""TLS as in the guide, for each connection (RWS, RCS: requests, WebDAV: httpx, S3: boto3), against real servers."""

from __future__ import annotations

import base64
import functools
import json
import os
import ssl
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import botocore.session
import pytest

from lab.cases import Case
from lab.lab import Lab
from lab.site import MediaRoot
from muxer.config.ca_bundle import read_certificates
from muxer.config.schema import S3Options, WebdavOptions
from muxer.errors import MuxerError, ServiceUnavailable
from muxer.gir.rcs import RcsClient, rcs_root
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.storage import s3
from muxer.storage.base import MediaLocation, parse_descriptor
from muxer.storage.s3 import S3Storage
from muxer.storage.webdav import WebdavStorage
from tests.support.bucket import MotoBucket
from tests.support.daemon import PACKAGE, MuxerProcess, log_lines, run_muxer, wait_until
from tests.support.tiers import spread_variants
from tests.support.tls import HOST, MEDIA, Identity, MediaServer, TlsFront, pem_bundle, self_signed

PASSWORD = "top-secret-password"
SECTIONS = ("htcc", "rcs", "webdav", "s3")
TIMEOUT_SECONDS = 60
Trust = bool | Path


class RwsConnection:
    """The connection to RWS."""

    def __init__(self, trust: Trust, folder: Path) -> None:
        self._trust, self._target, self._sessions = trust, folder / "rws-media", {}

    def fetch_bytes(self, url: str) -> bytes:
        base = url.rsplit("/", 1)[0]
        if base not in self._sessions:
            self._sessions[base] = ServiceSession(
                ServiceAccount("RWS", base, "ops", PASSWORD, self._trust, 30), threading.Event()
            )
        self._sessions[base].download_media("api/media.mp4", self._target)
        return self._target.read_bytes()


class RcsConnection:
    """The connection to RCS."""

    def __init__(self, trust: Trust, folder: Path) -> None:
        self._trust, self._target, self._clients = trust, folder / "rcs-media", {}

    def fetch_bytes(self, url: str) -> bytes:
        base = url.rsplit("/", 1)[0]
        if base not in self._clients:
            account = ServiceAccount("RCS", rcs_root(base), "muxer", PASSWORD, self._trust, 30)
            self._clients[base] = RcsClient(ServiceSession(account, threading.Event()), "cc")
        self._clients[base].play_call("call", "media.mp4", self._target)
        return self._target.read_bytes()


class WebdavConnection:
    """The connection to WebDAV."""

    def __init__(self, trust: Trust, folder: Path) -> None:
        options = WebdavOptions(username="dav", password=PASSWORD, trusted_ca=trust)
        self._storage, self._target = WebdavStorage(options, "test", folder, threading.Event()), folder / "dav-media"

    def fetch_bytes(self, url: str) -> bytes:
        self._storage.download_file(media_location(url), self._target)
        return self._target.read_bytes()


class S3Connection:
    """The connection to a store on the premises; with None boto3 selects the trusted authorities."""

    def __init__(self, trust: Trust | None, folder: Path) -> None:
        self._trust, self._target, self._stores = trust, folder / "s3-media", {}

    def fetch_bytes(self, url: str) -> bytes:
        base = url.rsplit("/", 1)[0]
        if base not in self._stores:
            options = S3Options(base, "key", PASSWORD, region="", addressing_style=None, trusted_ca=self._trust)
            self._stores[base] = S3Storage(options, self._target.parent, threading.Event())
        self._stores[base].download_file(
            parse_descriptor({"storage": "awsS3", "path": "media.mp4", "data": {"bucket": "b"}}), self._target
        )
        return self._target.read_bytes()


CONNECTIONS = {"rws": RwsConnection, "rcs": RcsConnection, "webdav": WebdavConnection, "s3": S3Connection}
Client = Callable[[Trust], RwsConnection | RcsConnection | WebdavConnection | S3Connection]


def media_location(url: str) -> MediaLocation:
    return parse_descriptor({"storage": "webDAV", "path": "media.mp4", "data": {"storagePath": url.rsplit("/", 1)[0]}})


@pytest.fixture(scope="module", autouse=True)
def _boto3_reads_its_models_once() -> Iterator[None]:
    """Reading them takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


@pytest.fixture(params=CONNECTIONS)
def client(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    return lambda trust: CONNECTIONS[request.param](trust, tmp_path)  # type: ignore[return-value]


@dataclass(frozen=True)
class CertificateSet:
    root: Identity
    intermediate: Identity
    other_root: Identity
    good: Identity
    below: Identity
    lonely: Identity


@pytest.fixture(scope="module")
def pki() -> CertificateSet:
    root = self_signed("Root", authority=True)
    intermediate = root.issue_certificate("Intermediate", authority=True)
    return CertificateSet(
        root=root,
        intermediate=intermediate,
        other_root=self_signed("Other Root", authority=True),
        good=root.issue_certificate("server", HOST),
        below=intermediate.issue_certificate("server", HOST),
        lonely=self_signed("server", HOST),
    )


@pytest.fixture(scope="module")
def backend() -> Iterator[MediaServer]:
    with MediaServer() as server:
        yield server


Serve = Callable[..., TlsFront]


@pytest.fixture
def serve(backend: MediaServer) -> Iterator[Serve]:
    """Return a function that starts a server which sends the given chain."""
    backend.requests.clear()
    with ExitStack() as stack:
        yield lambda *chain: stack.enter_context(TlsFront(backend.url, *chain))


Bundle = Callable[..., Path]


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Return a function that writes certificates into a PEM bundle."""

    def write_bundle(*identities: Identity, name: str = "bundle.pem") -> Path:
        path = tmp_path / name
        path.write_bytes(pem_bundle(*identities))
        return path

    return write_bundle


def assert_accepted(client: Client, trust: Trust, url: str) -> None:
    assert client(trust).fetch_bytes(f"{url}/media.mp4") == MEDIA


def assert_refused(client: Client, trust: Trust, url: str, backend: MediaServer, reason: str) -> None:
    """Check that the failure is retryable, names the cause, contains no secret, and that no request was sent."""
    with pytest.raises(MuxerError) as caught:
        client(trust).fetch_bytes(f"{url}/media.mp4")
    text = str(caught.value)
    assert type(caught.value) is ServiceUnavailable
    assert "certificate" in text and reason in text
    assert not any(secret in text for secret in (PASSWORD, base64.b64encode(PASSWORD.encode()).decode(), "Basic"))
    assert backend.requests == []


def test_a_certificate_of_the_ca_in_the_bundle_is_accepted(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet, backend: MediaServer
) -> None:
    assert_accepted(client, bundle(pki.root), serve(pki.good).url)
    ((_, header),) = backend.requests
    assert header.startswith("AWS4-HMAC-SHA256 ") or PASSWORD.encode() in base64.b64decode(header.removeprefix("Basic "))


def test_leaf_only_server_is_accepted_with_chain_in_bundle(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    assert_accepted(client, bundle(pki.intermediate, pki.root), serve(pki.below).url)


def test_bundle_may_start_with_the_server_certificate(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    assert_accepted(client, bundle(pki.below, pki.intermediate, pki.root), serve(pki.below).url)


def test_server_that_sends_its_intermediate_needs_only_the_root(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    assert_accepted(client, bundle(pki.root), serve(pki.below, pki.intermediate).url)


def test_leaf_only_server_is_refused_without_intermediate_in_bundle(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet, backend: MediaServer
) -> None:
    assert_refused(client, bundle(pki.root), serve(pki.below).url, backend, "unable to get local issuer")


@pytest.mark.parametrize("sent", ["leaf", "chain"])
def test_bundle_without_root_is_refused_as_in_the_guide(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet, backend: MediaServer, sent: str
) -> None:
    chain = (pki.below,) if sent == "leaf" else (pki.below, pki.intermediate)
    assert_refused(client, bundle(pki.intermediate), serve(*chain).url, backend, "unable to get issuer")


def test_a_self_signed_certificate_in_the_bundle_is_accepted(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    assert_accepted(client, bundle(pki.lonely), serve(pki.lonely).url)


def test_a_self_signed_certificate_that_is_also_an_authority_is_accepted(
    client: Client, serve: Serve, bundle: Bundle
) -> None:
    own = self_signed("server", HOST, authority=True, plain=True)
    assert_accepted(client, bundle(own), serve(own).url)


def test_matching_common_name_is_accepted_without_alternative_name(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    front = serve(pki.root.issue_certificate("localhost"))
    assert_accepted(client, bundle(pki.root), f"https://localhost:{front.port}")


def bad_chain(name: str, pki: CertificateSet) -> tuple[Identity, ...]:
    match name:
        case "other CA":
            return (pki.other_root.issue_certificate("server", HOST),)
        case "other CA, its root sent along":
            return (pki.other_root.issue_certificate("server", HOST), pki.other_root)
        case "self-signed":
            return (pki.lonely,)
        case "expired":
            return (pki.root.issue_certificate("server", HOST, begin=-3, end=-1),)
        case "expired intermediate":
            old = pki.root.issue_certificate("Old", authority=True, begin=-3, end=-1)
            return (old.issue_certificate("server", HOST), old)
        case "intermediate that is no authority":
            return (pki.good.issue_certificate("server", HOST), pki.good)
        case "wrong host name":
            return (pki.root.issue_certificate("server", "rws.example.com"),)
        case _:
            return (pki.root.issue_certificate("server", "127.0.0.2"),)


BAD_CHAINS = {
    "other CA": "unable to get local issuer",
    "other CA, its root sent along": "self-signed certificate in certificate chain",
    "self-signed": "self-signed certificate",
    "expired": "has expired",
    "expired intermediate": "has expired",
    "intermediate that is no authority": "invalid CA certificate",
    "wrong host name": "not valid for '127.0.0.1'",
    "wrong address": "not valid for '127.0.0.1'",
}


@pytest.mark.parametrize("name", spread_variants(BAD_CHAINS, 3))
def test_a_bad_certificate_is_refused_before_the_password_is_sent(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet, backend: MediaServer, name: str
) -> None:
    assert_refused(client, bundle(pki.root), serve(*bad_chain(name, pki)).url, backend, BAD_CHAINS[name])


@pytest.mark.parametrize("name", spread_variants(BAD_CHAINS, 3))
def test_false_disables_all_checks(client: Client, serve: Serve, pki: CertificateSet, name: str) -> None:
    assert_accepted(client, False, serve(*bad_chain(name, pki)).url)


def test_an_expired_root_in_the_bundle_is_refused(
    client: Client, serve: Serve, bundle: Bundle, backend: MediaServer
) -> None:
    old = self_signed("Old Root", authority=True, end=-1)
    assert_refused(client, bundle(old), serve(old.issue_certificate("server", HOST)).url, backend, "has expired")


def test_replaced_certificate_is_accepted_by_the_same_client(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    front = serve(pki.lonely)
    created = client(bundle(pki.root))
    with pytest.raises(ServiceUnavailable):
        created.fetch_bytes(f"{front.url}/media.mp4")
    front.send_chain(pki.good)
    assert created.fetch_bytes(f"{front.url}/media.mp4") == MEDIA


def test_a_server_without_tls_is_unavailable(
    client: Client, backend: MediaServer, bundle: Bundle, pki: CertificateSet
) -> None:
    with pytest.raises(ServiceUnavailable, match=r"(?i)ssl|tls"):
        client(bundle(pki.root)).fetch_bytes(f"{backend.url.replace('http:', 'https:')}/media.mp4")


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"   ", b"subject=CN = Root\n", b"\r\n"])
def test_bundle_accepted_at_start_is_used(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet, before: bytes
) -> None:
    path = bundle(pki.root)
    path.write_bytes(before + path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_certificates(path)) == 1
    assert_accepted(client, path, serve(pki.good).url)


@pytest.fixture
def strict_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Create TLS contexts with the defaults of Python 3.13 and later."""
    original = ssl.create_default_context

    def create_strict(*args: object, **kwargs: object) -> ssl.SSLContext:
        created = original(*args, **kwargs)
        created.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
        return created

    monkeypatch.setattr(ssl, "create_default_context", create_strict)


@pytest.mark.usefixtures("strict_python")
def test_a_plain_authority_is_accepted_by_every_python(client: Client, serve: Serve, bundle: Bundle) -> None:
    root = self_signed("Plain Root", authority=True, plain=True)
    assert_accepted(client, bundle(root), serve(root.issue_certificate("server", HOST, plain=True)).url)


@pytest.mark.usefixtures("strict_python")
def test_a_bundle_without_the_root_is_refused_by_every_python(
    client: Client, serve: Serve, bundle: Bundle, pki: CertificateSet, backend: MediaServer
) -> None:
    assert_refused(client, bundle(pki.intermediate), serve(pki.below).url, backend, "unable to get issuer")


ASK_SCRIPT = """
    import sys
    certifi_file, url, rws_trust, dav_trust, folder = sys.argv[1:]
    import certifi
    certifi.where = lambda: certifi_file
    certifi.contents = lambda: open(certifi_file).read()
    import json, threading
    from pathlib import Path
    import requests
    from integration import test_tls as t

    def verdict(what):
        try:
            what()
        except Exception as error:
            return type(error).__name__
        return "ok"

    trust = lambda text: text == "true" or Path(text)
    t.s3.ATTEMPTS = 1
    ask = lambda kind, trusted: verdict(lambda: kind(trusted, Path(folder)).fetch_bytes(f"{url}/media.mp4"))
    found = {"rws": ask(t.RwsConnection, trust(rws_trust)), "rcs": ask(t.RcsConnection, True),
             "webdav": ask(t.WebdavConnection, trust(dav_trust)),
             "s3": ask(t.S3Connection, True), "s3, empty": ask(t.S3Connection, None),
             "plain requests": verdict(lambda: requests.get(url, timeout=30))}
    print(json.dumps(found))
"""
TRUST_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")


def check_both_stacks(
    url: str, folder: Path, *, system: Path | None, certifi: Path, rws: str = "true", webdav: str = "true"
) -> dict[str, str]:
    """Connect with both stacks in a separate process, whose system store and certifi are the given bundles."""
    clean = {name: value for name, value in os.environ.items() if name not in TRUST_VARIABLES}
    paths = os.pathsep.join(str(path) for path in (PACKAGE.parent, PACKAGE.parent / "tests"))
    env = {**clean, "PYTHONPATH": paths, "SSL_CERT_DIR": str(folder / "none")}
    env |= {"SSL_CERT_FILE": str(system or folder / "none.pem")}
    command = [sys.executable, "-c", textwrap.dedent(ASK_SCRIPT), str(certifi), url, rws, webdav, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_true_trusts_the_authorities_of_the_system(
    tmp_path: Path, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    system, others = bundle(pki.root, name="system.pem"), bundle(pki.other_root, name="certifi.pem")
    found = check_both_stacks(serve(pki.good).url, tmp_path, system=system, certifi=others)
    assert found == dict.fromkeys(CONNECTIONS, "ok") | {"s3, empty": "ServiceUnavailable", "plain requests": "SSLError"}


@pytest.mark.long
def test_true_trusts_a_system_that_keeps_its_authorities_in_a_folder(
    tmp_path: Path, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    name = subprocess.run(
        ["openssl", "x509", "-noout", "-hash", "-in", bundle(pki.root)], capture_output=True, text=True, check=True
    ).stdout.strip()
    (folder / f"{name}.0").write_bytes(pem_bundle(pki.root))
    found = check_both_stacks(serve(pki.good).url, tmp_path, system=None, certifi=bundle(pki.other_root, name="certifi.pem"))
    assert [found[section] for section in CONNECTIONS] == ["ok"] * len(CONNECTIONS)


def test_true_does_not_trust_the_bundle_of_certifi(
    tmp_path: Path, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    found = check_both_stacks(serve(pki.good).url, tmp_path, system=None, certifi=bundle(pki.root, name="certifi.pem"))
    assert found == dict.fromkeys(CONNECTIONS, "ServiceUnavailable") | {"s3, empty": "ok", "plain requests": "ok"}


def test_bundle_replaces_system_trust_for_its_own_connection_only(
    tmp_path: Path, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    system, others = bundle(pki.root, name="system.pem"), bundle(pki.other_root, name="others.pem")
    found = check_both_stacks(serve(pki.good).url, tmp_path, system=system, certifi=others, rws=str(others))
    assert (found["rws"], found["webdav"]) == ("ServiceUnavailable", "ok")


@pytest.mark.parametrize("variable", [name for name in TRUST_VARIABLES if name != "SSL_CERT_DIR"])
def test_environment_variables_do_not_extend_a_bundle(
    monkeypatch: pytest.MonkeyPatch,
    client: Client,
    serve: Serve,
    bundle: Bundle,
    pki: CertificateSet,
    backend: MediaServer,
    variable: str,
) -> None:
    monkeypatch.setenv(variable, str(bundle(pki.root, name="environment.pem")))
    front = serve(pki.good)
    assert_refused(client, bundle(pki.other_root), front.url, backend, "unable to get local issuer")


def test_rws_and_webdav_each_trust_their_own_bundle(
    tmp_path: Path, serve: Serve, bundle: Bundle, pki: CertificateSet
) -> None:
    rws_server, dav_server = serve(pki.good), serve(pki.other_root.issue_certificate("server", HOST))
    rws = RwsConnection(bundle(pki.root, name="rws.pem"), tmp_path)
    webdav = WebdavConnection(bundle(pki.other_root, name="webdav.pem"), tmp_path)
    assert (rws.fetch_bytes(f"{rws_server.url}/media.mp4"), webdav.fetch_bytes(f"{dav_server.url}/media.mp4")) == (
        MEDIA,
        MEDIA,
    )
    for client, server in ((rws, dav_server), (webdav, rws_server)):
        with pytest.raises(ServiceUnavailable, match="certificate"):
            client.fetch_bytes(f"{server.url}/media.mp4")


def damage_certificate(bundle_bytes: bytes, where: bytes, by: bytes) -> bytes:
    """Damage the second of three certificates."""
    at = bundle_bytes.index(where, bundle_bytes.index(b"-----END") + 1)
    return bundle_bytes[:at] + by + bundle_bytes[at + len(by) :]


def bad_file(kind: str, path: Path, pki: CertificateSet) -> None:
    whole = pem_bundle(pki.below, pki.intermediate, pki.root)
    match kind:
        case "missing":
            return
        case "directory":
            path.mkdir()
        case "empty":
            path.write_bytes(b"")
        case "no PEM":
            path.write_bytes(b"this is no certificate\n")
        case "DER":
            path.write_bytes(ssl.PEM_cert_to_DER_cert(pem_bundle(pki.root).decode()))
        case "key only":
            path.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        case "content in the middle":
            path.write_bytes(damage_certificate(whole, b"MII", b"AAAA"))
        case "begin line in the middle":
            path.write_bytes(damage_certificate(whole, b"-----BEGIN", b"----- EGIN"))
        case "end line in the middle":
            path.write_bytes(damage_certificate(whole, b"-----END", b"----- ND"))
        case _:
            path.write_bytes(whole[: len(whole) - 200])


BAD_FILES = {
    "missing": "No such file",
    "directory": "PEM",
    "empty": "empty",
    "no PEM": "no certificate",
    "DER": "no certificate",
    "key only": "no certificate",
    "content in the middle": "number 2",
    "begin line in the middle": "corrupt",
    "end line in the middle": "corrupt",
    "last one breaks off": "corrupt",
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_bundle_exits_with_code_2_and_names_every_option_and_file(
    tmp_path: Path, pki: CertificateSet, kind: str
) -> None:
    files = {section: tmp_path / f"{section}.pem" for section in SECTIONS}
    for file in files.values():
        bad_file(kind, file, pki)
    config = tmp_path / "muxer.cfg"
    sections = [f"[{section}]\ntrusted_ca = {file}\n" for section, file in files.items()]
    required = f"[htcc]\nbase_uri = https://{HOST}:1\ncontact_center_id = x\npassword = {PASSWORD}\n"
    text = "".join(sections).replace("[htcc]\n", required)
    config.write_text(f"{text}[logfile]\nlogfile_path = {tmp_path}\n")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 2
    for section, file in files.items():
        (line,) = [line for line in done.err.splitlines() if f"[{section}] trusted_ca" in line]
        assert str(file) in line and BAD_FILES[kind] in line
    assert "Traceback" not in done.err and PASSWORD not in done.err


@dataclass(frozen=True)
class MigrationRun:
    """One migration by the real process, against a lab whose servers all use TLS.

    One call is encrypted, so that RCS is called; the screen file of the other is in S3, its audio on WebDAV.
    """

    lab: Lab
    ids: tuple[str, str]
    done: MuxerProcess
    log: Path

    def trust_warnings(self, section: str) -> list[str]:
        return [
            line["message"]
            for line in log_lines(self.log)
            if line["level"] == "warning" and f"[{section}]" in line["message"] and "trusted_ca" in line["message"]
        ]

    def muxed_counts(self) -> list[int]:
        """Return the number of muxed files of each call."""
        found = [(self.lab.store.get_screen(one) or {"mediaFiles": []})["mediaFiles"] for one in self.ids]
        return [len([one for one in media if "muxed_mediaIds" in one["parameters"]]) for media in found]


def write_settings(lab: Lab, urls: dict[str, str], trust: dict[str, Trust]) -> Path:
    """Write the configuration of a migration for a lab behind TLS."""
    values = {f"{section}.trusted_ca": str(value) for section, value in trust.items()}
    values |= {"htcc.base_uri": urls["htcc"], "rcs.base_uri": f"{urls['rcs']}/rcs", "s3.endpoint_url": urls["s3"]}
    values |= {"s3.access_key_id": "a", "s3.secret_access_key": "b", "logfile.format": "json"}
    values |= {"advanced.call_recording_query_string": "startTime=0"}
    config = lab.folder / "muxer.cfg"
    config.write_text(lab.config_text(**values))
    return config


def run_migration(stack: ExitStack, folder: Path, fronts: dict[str, Identity], trust: dict[str, Trust]) -> MigrationRun:
    lab, bucket = stack.enter_context(Lab(folder)), stack.enter_context(MotoBucket())
    plain = {"htcc": lab.rws_url, "rcs": lab.rcs_url, "webdav": lab.dav_url, "s3": bucket.url}
    urls = {section: stack.enter_context(TlsFront(plain[section], fronts[section])).url for section in SECTIONS}
    lab.site.media = MediaRoot(urls["webdav"], lab.site.media.folder)
    (encrypted,), (mixed,) = lab.add_case(Case.ENCRYPTED), lab.add_case(Case.PLAIN)
    bucket.take_screen(lab, mixed)
    done = run_muxer(write_settings(lab, urls, trust), seconds=TIMEOUT_SECONDS)
    return MigrationRun(lab, (encrypted.id, mixed.id), done, lab.folder / "log" / "recording-muxer-single.log")


@pytest.fixture(scope="module")
def unchecked(tmp_path_factory: pytest.TempPathFactory, pki: CertificateSet) -> Iterator[MigrationRun]:
    """A run with ``false`` everywhere against self-signed servers."""
    with ExitStack() as stack:
        fronts, trust = dict.fromkeys(SECTIONS, pki.lonely), dict.fromkeys(SECTIONS, False)
        yield run_migration(stack, tmp_path_factory.mktemp("unchecked"), fronts, trust)


def test_recordings_are_muxed_with_another_authority_for_each_service(tmp_path: Path, bundle: Bundle) -> None:
    with ExitStack() as stack:
        roots = {section: self_signed(f"Root {section}", authority=True) for section in SECTIONS}
        fronts = {section: root.issue_certificate("server", HOST) for section, root in roots.items()}
        trust: dict[str, Trust] = {section: bundle(root, name=f"{section}.pem") for section, root in roots.items()}
        done = run_migration(stack, tmp_path / "checked", fronts, trust)
        assert done.done.process.returncode == 0, done.done.err + done.log.read_text()
        assert done.muxed_counts() == [1, 1]
        assert [line for section in SECTIONS for line in done.trust_warnings(section)] == []


def test_recordings_are_muxed_without_certificate_checks(unchecked: MigrationRun) -> None:
    assert unchecked.done.process.returncode == 0, unchecked.done.err
    assert unchecked.muxed_counts() == [1, 1]
    assert "InsecureRequestWarning" not in unchecked.done.err


@pytest.mark.parametrize("section", SECTIONS)
def test_false_with_https_is_warned_about_once_for_each_section(unchecked: MigrationRun, section: str) -> None:
    assert len(unchecked.trust_warnings(section)) == 1


def test_migration_waits_until_rws_certificate_is_replaced(tmp_path: Path, bundle: Bundle, pki: CertificateSet) -> None:
    with Lab(tmp_path / "lab") as lab, TlsFront(lab.rws_url, pki.lonely) as rws:
        config, log = lab.folder / "muxer.cfg", lab.folder / "log" / "recording-muxer-single.log"
        trust = {"htcc.base_uri": rws.url, "htcc.trusted_ca": str(bundle(pki.root))}
        config.write_text(lab.config_text(**trust, **{"processing.min_poll_interval": "0", "logfile.level": "debug"}))
        with MuxerProcess(config) as muxer:
            wait_until(lambda: "certificate verify failed" in log_text(log), TIMEOUT_SECONDS, "a refused certificate", log)
            rws.send_chain(pki.good)
            wait_until(lambda: "poll done" in log_text(log), TIMEOUT_SECONDS, "a poll", log)
            assert muxer.stop() == 0
        assert lab.site.rws_account.password not in log_text(log)


def log_text(log: Path) -> str:
    return log.read_text(encoding="utf-8") if log.exists() else ""
