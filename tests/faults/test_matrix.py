"""Each client against each fault of its service: a retry succeeds exactly once, and nothing hangs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

import httpx
import pytest

from lab.lab import Lab
from lab.site import CALLS, SCREENS
from muxer.config.schema import WebdavOptions
from muxer.errors import Forbidden, Transient
from muxer.gir.rcs import RcsClient, rcs_root
from muxer.gir.rws import RwsClient
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.storage.base import MediaLocation, Storage, parse_descriptor
from muxer.storage.webdav import WebdavStorage
from muxer.system.bounded_set import BoundedSet
from tests.faults.proxy import PLAIN_FAULTS, Fault, FaultProxy
from tests.faults.recording_factory import FaultRecording, RecordingFactory
from tests.faults.redirect_target import RedirectTarget
from tests.faults.shorten_timeouts import shorten_timeouts
from tests.support import s3rver
from tests.support.s3 import BUCKET, S3Server
from tests.support.s3 import create_storage as s3_storage
from tests.support.s3rver import S3rver
from tests.support.tiers import spread_variants
from tests.support.tls import HOST, self_signed, server_context

pytestmark = [
    pytest.mark.usefixtures("models_read_once"),
    pytest.mark.filterwarnings("ignore:Unverified HTTPS request"),
]
CONTENT = b"0123456789abcdef" * 4096
ATTEMPTS, HANG_SECONDS = 10, 20
READ_TIMEOUT_SECONDS = 0.4
# These faults apply only to some responses.
SELECTIVE_FAULTS = (Fault.WHOLE, Fault.TRUNCATED)
SLOW_FAULTS = (Fault.LATENCY, Fault.STALL, Fault.STALL_WITHIN, Fault.DRIP, Fault.DRIP_HEAD)


class ShortWaitEvent(threading.Event):
    """A stop event that shortens every delay before the next attempt."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(min(timeout or 0, 0.02))


@dataclass
class ProxiedSite:
    """The servers, a proxy before each, the clients, and a recording."""

    lab: Lab
    bucket: S3Server
    recording: FaultRecording
    proxies: dict[str, FaultProxy]
    other: RedirectTarget
    rws: RwsClient
    rcs: RcsClient
    stores: dict[str, Storage]

    def location_of(self, service: str, name: str) -> MediaLocation:
        if service == "S3":
            return parse_descriptor({"storage": "awsS3", "path": f"screens/{name}", "data": {"bucket": BUCKET}})
        base = f"{self.proxies[service].url}/{SCREENS}/"
        return parse_descriptor({"storage": "webDAV", "path": name, "data": {"storagePath": base}})

    def put_file(self, service: str, name: str, content: bytes = CONTENT) -> None:
        """Store a file."""
        if service == "S3":
            self.bucket.client.put_object(Bucket=BUCKET, Key=f"screens/{name}", Body=content)
        else:
            (self.lab.site.media.folder / SCREENS / name).write_bytes(content)

    def stored_files(self, service: str) -> dict[str, bytes]:
        """Return the content of the stored files by name."""
        if service == "S3":
            return {key.removeprefix("screens/"): self.bucket.read_object(key) for key in self.bucket.list_objects()}
        return {path.name: path.read_bytes() for path in (self.lab.site.media.folder / SCREENS).iterdir()}


def create_site(stack: ExitStack, folder: Path, tls: bool) -> ProxiedSite:
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    shorten_timeouts(patch.setattr, READ_TIMEOUT_SECONDS)
    lab = stack.enter_context(Lab(folder / "lab"))
    rver = stack.enter_context(S3rver(folder / "s3rver", BUCKET))
    other = stack.enter_context(RedirectTarget())
    context = server_context((self_signed("proxy", HOST),)) if tls else None
    targets = {"RWS": lab.rws_url, "RCS": lab.rcs_url, "WebDAV": lab.dav_url, "S3": rver.url}
    proxies = {name: stack.enter_context(FaultProxy(url, other.url, context)) for name, url in targets.items()}
    site, stop = lab.site, ShortWaitEvent()
    (uploading := folder / "uploading").mkdir()

    def create_session(service: str, url: str, user: Any) -> ServiceSession:
        return ServiceSession(ServiceAccount(service, url, user.username, user.password, False, READ_TIMEOUT_SECONDS), stop)

    keys = {"access_key_id": s3rver.KEY, "secret_access_key": s3rver.SECRET, "trusted_ca": False}
    dav = WebdavOptions(username=site.dav_account.username, password=site.dav_account.password, trusted_ca=False)
    return ProxiedSite(
        lab,
        S3Server(rver.url, s3rver.KEY, s3rver.SECRET),
        RecordingFactory(lab).add_recording(),
        proxies,
        other,
        RwsClient(create_session("RWS", proxies["RWS"].url, site.rws_account), lab.ccid),
        RcsClient(create_session("RCS", rcs_root(proxies["RCS"].url), site.rcs_account), lab.ccid),
        {
            "WebDAV": WebdavStorage(dav, "test", uploading, stop),
            "S3": s3_storage(proxies["S3"].url, stop, uploading, **keys),
        },
    )


@pytest.fixture(scope="module")
def site(models_read_once: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedSite]:
    logging.getLogger("botocore").setLevel(logging.WARNING)
    with ExitStack() as stack:
        yield create_site(stack, tmp_path_factory.mktemp("matrix"), tls=False)


# --- operations on each service; each returns whether the result is correct ---


def read_page(site: ProxiedSite, _folder: Path) -> bool:
    return [call.id for one in site.rws.read_call_recordings("startTime=0&limit=10") for call in one] == [site.recording.id]


def post_entry(site: ProxiedSite, _folder: Path) -> bool:
    media = {"mediaId": "new.mp4", "type": "video/mp4", "parameters": {"muxed_mediaIds": ["x"]}}
    site.rws.post_media(site.recording.id, site.lab.region, [media])
    return [media["mediaId"] for media in (site.lab.store.get_screen(site.recording.id) or {})["mediaFiles"]].count(
        "new.mp4"
    ) == 1


def delete_entry(site: ProxiedSite, _folder: Path) -> bool:
    site.rws.delete_media(site.recording.id, "new.mp4")
    return len((site.lab.store.get_screen(site.recording.id) or {})["mediaFiles"]) == 2


def post_label(site: ProxiedSite, _folder: Path) -> bool:
    # A refusal without its text disables the label for an hour; the hour is over.
    site.rws._labelled, site.rws._labels_refused_until = BoundedSet(1), 0.0
    if not site.rws.add_label(site.recording.id):
        raise Forbidden("labels are refused")
    return len(site.lab.store.label_posts) == 1


def play_audio(site: ProxiedSite, folder: Path) -> bool:
    length = site.rcs.play_call(site.recording.id, site.recording.sources[0], folder / "clear")
    padded = (site.lab.site.media.folder / CALLS / site.recording.sources[0]).stat().st_size
    return padded - 16 <= length < padded and length == (folder / "clear").stat().st_size


def fetch_from(service: str) -> Callable[[ProxiedSite, Path], bool]:
    def fetch_source(site: ProxiedSite, folder: Path) -> bool:
        site.put_file(service, "source.mp4")
        site.stores[service].download_file(site.location_of(service, "source.mp4"), folder / "source")
        return (folder / "source").read_bytes() == CONTENT

    return fetch_source


def store_in(service: str) -> Callable[[ProxiedSite, Path], bool]:
    def store_muxed(site: ProxiedSite, folder: Path) -> bool:
        source, name = folder / "muxed.mp4", f"{folder.name}.mp4"
        if not source.exists():
            # The result of an attempt that failed late: the same length, other content.
            site.put_file(service, name, CONTENT[::-1])
        source.write_bytes(CONTENT)
        site.stores[service].upload_file(source, site.location_of(service, name), lambda: True)
        site.stores[service].remove_leftovers()
        return site.stored_files(service)[name] == CONTENT and not [
            one for one in site.stored_files(service) if one.startswith("part-")
        ]

    return store_muxed


def remove_from(service: str) -> Callable[[ProxiedSite, Path], bool]:
    def remove_superseded(site: ProxiedSite, folder: Path) -> bool:
        if not (folder / "put").exists():
            (folder / "put").touch()
            site.put_file(service, "superseded.mp4")
        site.stores[service].delete_file(site.location_of(service, "superseded.mp4"))
        return "superseded.mp4" not in site.stored_files(service)

    return remove_superseded


OPERATIONS: dict[str, tuple[str, str, Callable[[ProxiedSite, Path], bool]]] = {
    "RWS, a page of calls": ("RWS", "GET", read_page),
    "RWS, a post": ("RWS", "POST", post_entry),
    "RWS, a deletion": ("RWS", "DELETE", delete_entry),
    "RWS, a label": ("RWS", "POST", post_label),
    "RCS, a source": ("RCS", "GET", play_audio),
    "WebDAV, a source": ("WebDAV", "GET", fetch_from("WebDAV")),
    "WebDAV, PUT of a result": ("WebDAV", "PUT", store_in("WebDAV")),
    "WebDAV, PROPFIND of a result": ("WebDAV", "PROPFIND", store_in("WebDAV")),
    "WebDAV, MOVE of a result": ("WebDAV", "MOVE", store_in("WebDAV")),
    "WebDAV, a deletion": ("WebDAV", "DELETE", remove_from("WebDAV")),
    "S3, a source": ("S3", "GET", fetch_from("S3")),
    "S3, PUT of a result": ("S3", "PUT", store_in("S3")),
    "S3, HEAD of a result": ("S3", "HEAD", store_in("S3")),
    "S3, a deletion": ("S3", "DELETE", remove_from("S3")),
}


def run_within_limits(operation: Callable[[], bool]) -> bool:
    """Return the result of an operation, or raise its error. A hang is a failure; its thread is abandoned."""
    outcome: Queue[bool | BaseException] = Queue()

    def run_operation() -> None:
        try:
            outcome.put(operation())
        except BaseException as error:
            outcome.put(error)

    threading.Thread(target=run_operation, daemon=True).start()
    came = outcome.get(timeout=HANG_SECONDS)
    if isinstance(came, BaseException):
        raise came
    return came


def retry_until_done(site: ProxiedSite, operation: Callable[[ProxiedSite, Path], bool], folder: Path) -> bool:
    """Retry until the operation succeeds. Every failure must be retryable without limit, and none may hang."""
    for _ in range(ATTEMPTS):
        try:
            return run_within_limits(lambda: operation(site, folder))
        except Transient as error:
            logging.getLogger(__name__).info("%s: %s", type(error).__name__, error)
    raise AssertionError(f"not done after {ATTEMPTS} attempts")


@pytest.mark.parametrize("fault", spread_variants(PLAIN_FAULTS, 3), ids=lambda fault: fault.name)
@pytest.mark.parametrize("what", OPERATIONS)
def test_fault_causes_only_delay(site: ProxiedSite, tmp_path: Path, what: str, fault: Fault) -> None:
    service, method, operation = OPERATIONS[what]
    proxy = site.proxies[service]
    before = proxy.injected[fault]
    proxy.plan_fault(fault, 1 if fault in SLOW_FAULTS else 2, method)
    try:
        assert retry_until_done(site, operation, tmp_path)
    finally:
        proxy.clear_faults()
    assert proxy.injected[fault] > before or fault in SELECTIVE_FAULTS
    assert site.other.authorized == []


@pytest.fixture(scope="module")
def secure(models_read_once: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedSite]:
    with ExitStack() as stack:
        yield create_site(stack, tmp_path_factory.mktemp("tls"), tls=True)


@pytest.mark.parametrize(
    "what", ["RWS, a page of calls", "RCS, a source", "WebDAV, a source", "WebDAV, PUT of a result", "S3, PUT of a result"]
)
def test_tls_alert_causes_only_delay(secure: ProxiedSite, tmp_path: Path, what: str) -> None:
    service, _, operation = OPERATIONS[what]
    proxy = secure.proxies[service]
    before = proxy.injected[Fault.TLS_ALERT]
    proxy.plan_fault(Fault.TLS_ALERT, 2)
    assert retry_until_done(secure, operation, tmp_path)
    assert proxy.injected[Fault.TLS_ALERT] == before + 2


@pytest.mark.parametrize("what", ["RCS, a source", "WebDAV, a source", "S3, PUT of a result"])
def test_header_timeout_applies_over_tls(secure: ProxiedSite, tmp_path: Path, what: str) -> None:
    service, method, operation = OPERATIONS[what]
    proxy = secure.proxies[service]
    proxy.plan_fault(Fault.DRIP_HEAD, 1, method)
    assert retry_until_done(secure, operation, tmp_path)
    assert proxy.injected[Fault.DRIP_HEAD] == 1


def test_source_on_another_host_is_requested_without_credentials(site: ProxiedSite, tmp_path: Path) -> None:
    request_count = len(site.other.requests)
    site.proxies["WebDAV"].plan_fault(Fault.REDIRECT, 1, "GET")
    assert retry_until_done(site, fetch_from("WebDAV"), tmp_path)
    assert len(site.other.requests) == request_count + 1 and site.other.authorized == []


def test_redirect_target_detects_credentials() -> None:
    with RedirectTarget() as other:
        httpx.get(other.url, auth=("user", "password"))
        assert other.authorized == ["GET /"]


def test_no_request_has_a_range(site: ProxiedSite) -> None:
    assert [one.first for proxy in site.proxies.values() for one in proxy.seen if one.header_value("Range")] == []
