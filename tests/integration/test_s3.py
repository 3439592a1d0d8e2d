"""S3 storage against a real moto server, against answers that only a test can script, and in the whole process."""

from __future__ import annotations

import functools
import socket
import ssl
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import pytest
from botocore.exceptions import ConnectionClosedError
from moto.server import ThreadedMotoServer
from support import sync
from support.daemon import Muxer, log_lines, wait_until

from muxer import gate, transfer
from muxer.config.schema import S3
from muxer.errors import (
    AccessDenied,
    LoginRefused,
    MediaNotFound,
    MetadataError,
    MuxerError,
    RequestRejected,
    ServiceUnavailable,
    Stopped,
    StoredElsewhere,
    UnreadableAnswer,
)
from muxer.lab.build import AddedCall
from muxer.lab.cases import ALICE, Case
from muxer.lab.lab import Lab
from muxer.storage import s3
from muxer.storage.base import Place, place_of
from muxer.storage.s3 import S3Storage

UNSET = {"region": "", "addressing_style": None, "trusted_ca": None}
BUCKET, KEY, SECRET = "recordings", "AKIATESTKEY", "topsecret/key+%"
MIB = 1024 * 1024
NAMES = [
    *("plain.mp4", "with blank.mp4", "hash#mark.mp4", "question?.mp4", "per%20cent.mp4", "100%.mp4", "grüße.mp4"),
    *("a&b=c+d.mp4", "semi;colon.mp4", "back\\slash.mp4", "'quoted'.mp4"),
]


class Server:
    """A moto server, and a client of its own that tells what it holds."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client: Any = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )

    def content(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def parts(self) -> int:
        """Return how many uploads in parts have neither ended nor been given up."""
        return len(self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))


def keep() -> bool:
    """What is stored must stay."""
    return False


def replace() -> bool:
    """What is stored may be replaced."""
    return True


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    made = Server(f"http://{host}:{port}")
    made.client.create_bucket(Bucket=BUCKET)
    yield made
    moto.stop()


@pytest.fixture(scope="module", autouse=True)
def _models_are_read_once() -> Iterator[None]:
    """Reading its models takes boto3 longer than most tests of a client."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", functools.cache(botocore.session.create_loader))
        yield


@pytest.fixture(autouse=True)
def _no_keys_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of this machine's own AWS configuration, and no proxy that works."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))


def storage(url: str, stop: threading.Event | None = None, **options: Any) -> S3Storage:
    given = UNSET | {"endpoint_url": url, "access_key_id": KEY, "secret_access_key": SECRET} | options
    return S3Storage(S3(**given), stop or threading.Event())


def place(name: str, bucket: str = BUCKET) -> Place:
    return place_of({"storage": "awsS3", "path": f"screens/{name}", "data": {"bucket": bucket}})


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_stored_fetched_described_and_deleted(server: Server, tmp_path: Path, name: str) -> None:
    source, target = written(tmp_path / "source", name.encode() * 1000), tmp_path / "target"
    store = storage(server.url)
    stored = store.store(source, place(name), keep)
    assert stored.length == source.stat().st_size
    assert server.content(f"screens/{name}") == source.read_bytes()
    assert store.describe(place(name)) == stored
    assert store.fetch(place(name), target) == stored.length
    assert target.read_bytes() == source.read_bytes()
    store.delete(place(name))
    assert store.describe(place(name)) is None


@pytest.mark.parametrize("path", ["no-folder.mp4", "/slash.mp4", "a//b.mp4", "calls/2026/07/deep.mp4", "a/../dots.mp4"])
def test_any_prefix_is_kept(server: Server, tmp_path: Path, path: str) -> None:
    where = place_of({"storage": "awsS3", "path": path, "data": {"bucket": BUCKET}})
    storage(server.url).store(written(tmp_path / "source", b"x"), where, replace)
    assert server.content(path) == b"x"
    assert where.descriptor == {"storage": "awsS3", "path": path, "data": {"bucket": BUCKET}}


def test_what_is_not_there(server: Server, tmp_path: Path) -> None:
    store = storage(server.url)
    with pytest.raises(MediaNotFound, match="nowhere"):
        store.fetch(place("nowhere.mp4"), tmp_path / "x")
    assert store.describe(place("nowhere.mp4")) is None
    store.delete(place("nowhere.mp4"))


@pytest.mark.parametrize("size", [1000, 6 * MIB])
def test_a_missing_bucket_is_said(
    server: Server, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 5 * MIB)
    store, nowhere = storage(server.url), place("a.mp4", bucket="no-such-bucket")
    with pytest.raises(ServiceUnavailable, match="bucket does not exist"):
        store.fetch(nowhere, tmp_path / "x")
    with pytest.raises(ServiceUnavailable, match="bucket does not exist"):
        store.store(written(tmp_path / "source", b"x" * size), nowhere, keep)


@pytest.mark.parametrize("bucket", ["no bucket at all", "a/b"])
def test_a_bucket_that_cannot_be_is_an_error_of_the_metadata(server: Server, tmp_path: Path, bucket: str) -> None:
    with pytest.raises(MetadataError):
        storage(server.url).fetch(place("a.mp4", bucket=bucket), tmp_path / "x")


def test_what_is_stored_is_not_overwritten_unless_asked(server: Server, tmp_path: Path) -> None:
    first, second = written(tmp_path / "first", b"first"), written(tmp_path / "second", b"second!")
    store, where = storage(server.url), place("taken.mp4")
    before = store.store(first, where, keep)
    with pytest.raises(StoredElsewhere):
        store.store(second, where, keep)
    assert server.content("screens/taken.mp4") == b"first"
    after = store.store(second, where, replace)
    assert after.length == 7 and after.tag != before.tag


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", 5 * MIB)


@pytest.fixture
def large(tmp_path: Path) -> Path:
    return written(tmp_path / "large", bytes(range(256)) * (48 * 1024) + b"the last part")


@pytest.mark.usefixtures("small_parts")
def test_a_large_file_goes_in_parts_both_ways(server: Server, tmp_path: Path, large: Path) -> None:
    store, where = storage(server.url), place("large.mp4")
    stored = store.store(large, where, keep)
    assert stored.tag.strip('"').endswith("-3")
    assert server.content("screens/large.mp4") == large.read_bytes()
    assert store.fetch(where, tmp_path / "target") == large.stat().st_size
    assert (tmp_path / "target").read_bytes() == large.read_bytes()
    assert server.parts() == 0


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("operation", ["UploadPart", "CompleteMultipartUpload"])
def test_no_parts_are_left_when_an_upload_fails(
    server: Server, large: Path, operation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    store, seen = storage(server.url), []

    def fail(**_: Any) -> None:
        seen.append(server.parts())
        raise ConnectionClosedError(endpoint_url=server.url)

    store._client.meta.events.register(f"before-send.s3.{operation}", fail)
    with pytest.raises(ServiceUnavailable):
        store.store(large, place("failed.mp4"), keep)
    assert seen == [1]
    assert server.parts() == 0 and store.describe(place("failed.mp4")) is None


class StopLater(threading.Event):
    """A stop event that is set by itself when it has been looked at a number of times."""

    def __init__(self, looks: int, at_the_end: Callable[[], object]) -> None:
        super().__init__()
        self._looks = looks
        self._at_the_end = at_the_end

    def is_set(self) -> bool:
        self._looks -= 1
        if self._looks == 0:
            self._at_the_end()
            self.set()
        return super().is_set()


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize(("size", "looks", "unfinished"), [(12 * MIB, 30, 1), (3 * MIB, 5, 0)], ids=["parts", "whole"])
def test_a_stop_ends_an_upload_and_leaves_nothing(
    server: Server, tmp_path: Path, size: int, looks: int, unfinished: int
) -> None:
    seen: list[int] = []
    stop = StopLater(looks, lambda: seen.append(server.parts()))
    store = storage(server.url, stop)
    requests: list[str] = []
    store._client.meta.events.register("before-send.s3", lambda request, **_: requests.append(request.method))
    with pytest.raises(Stopped):
        store.store(written(tmp_path / "source", b"x" * size), place("stopped.mp4"), keep)
    assert seen == [unfinished]
    assert requests == (["HEAD", "POST", "PUT", "PUT", "DELETE"] if unfinished else ["HEAD", "PUT"])
    assert server.parts() == 0 and store.describe(place("stopped.mp4")) is None


def test_a_stopped_process_uploads_nothing(server: Server, tmp_path: Path) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        storage(server.url, stop).store(written(tmp_path / "source", b"x"), place("late.mp4"), replace)
    assert storage(server.url).describe(place("late.mp4")) is None


def test_a_stop_ends_a_download(server: Server, tmp_path: Path) -> None:
    storage(server.url).store(written(tmp_path / "source", b"x" * 3 * MIB), place("big.mp4"), replace)
    with pytest.raises(Stopped):
        storage(server.url, StopLater(3, lambda: None)).fetch(place("big.mp4"), tmp_path / "x")
    assert (tmp_path / "x").stat().st_size < 3 * MIB


@pytest.mark.usefixtures("small_parts")
def test_an_upload_that_takes_too_long_is_given_up(server: Server, large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StopLater(30, lambda: monkeypatch.setattr(transfer, "check_progress", too_slow))
    with pytest.raises(ServiceUnavailable, match="time limit"):
        storage(server.url, Unset(clock)).store(large, place("slow.mp4"), keep)
    assert server.parts() == 0


class Unset(threading.Event):
    """An event that is never set, but looks at another."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        self._other.is_set()
        return False


def too_slow(_deadline: float, what: str, _stop: threading.Event) -> None:
    raise ServiceUnavailable(f"{what} took longer than its time limit")


@dataclass
class Answer:
    """What the tiny server says to one method."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Tiny:
    """A server that keeps what it is sent under the path, tells every request, and answers what a test wants."""

    url: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    held: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self.requests.append((method, path, headers))
        if method in self.answers:
            return self.answers[method]
        if method == "PUT":
            self.held[path] = body
            return Answer(200, headers={"ETag": '"1"'})
        return Answer(200, self.held[path]) if path in self.held else Answer(404)


def handler(tiny: Tiny) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            names = {name.lower(): value for name, value in self.headers.items()}
            answer = tiny.answer(self.command, self.path, names, body)
            self.send_response(answer.status)
            usual = {"Content-Length": str(len(answer.body)), "Connection": "close"}
            for name, value in (usual | answer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = serve

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def self_signed(folder: Path) -> Path:
    """Write a key and a certificate for this machine that it signs itself, in one PEM file."""
    path = folder / "server.pem"
    what = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=store", "-days", "2"]
    files = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(folder / "key.pem"), "-out", str(path)]
    subprocess.run(["openssl", "req", "-x509", *what, *files], check=True, capture_output=True)
    with path.open("a") as file:
        file.write((folder / "key.pem").read_text())
    return path


@contextmanager
def tiny_server(certificate: Path | None = None) -> Iterator[Tiny]:
    tiny = Tiny()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler(tiny)) as http:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            http.socket = context.wrap_socket(http.socket, server_side=True)
        tiny.url = f"{'https' if certificate else 'http'}://127.0.0.1:{http.server_port}"
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        yield tiny
        http.shutdown()


@pytest.fixture
def tiny() -> Iterator[Tiny]:
    with tiny_server() as made:
        yield made


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_an_own_endpoint_gets_plain_requests_with_paths(
    tmp_path: Path, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    source, certificate = written(tmp_path / "source", b"content"), self_signed(tmp_path) if secure else None
    with tiny_server(certificate) as tiny:
        store = storage(tiny.url.replace("127.0.0.1", "localhost"), trusted_ca=certificate)
        store.store(source, place("ä b.mp4"), keep)
        assert store.fetch(place("ä b.mp4"), tmp_path / "target") == 7
    assert list(tiny.held.items()) == [("/recordings/screens/%C3%A4%20b.mp4", b"content")]
    headers = next(headers for method, _, headers in tiny.requests if method == "PUT")
    assert "content-encoding" not in headers and headers["content-length"] == "7"
    assert "STREAMING" not in headers["x-amz-content-sha256"]
    assert not [name for _, _, sent in tiny.requests for name in sent if "checksum" in name or "trailer" in name]


def test_the_store_must_prove_who_it_is_unless_checks_are_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    (tmp_path / "other").mkdir()
    with tiny_server(self_signed(tmp_path)) as tiny:
        for trusted in (True, self_signed(tmp_path / "other")):
            with pytest.raises(ServiceUnavailable, match=r"SSL"):
                storage(tiny.url, trusted_ca=trusted).describe(place("a.mp4"))
        assert tiny.requests == []
        assert storage(tiny.url, trusted_ca=False).describe(place("a.mp4")) is None


@pytest.mark.parametrize(("answer", "held"), [(Answer(200, b"abc"), "3 bytes"), (Answer(404), "nothing")])
def test_an_upload_that_the_store_mangles_is_caught(tiny: Tiny, tmp_path: Path, answer: Answer, held: str) -> None:
    tiny.answers["HEAD"] = answer
    with pytest.raises(ServiceUnavailable, match=f"holds {held} after an upload of 7"):
        storage(tiny.url).store(written(tmp_path / "source", b"content"), place("a.mp4"), replace)


def test_a_body_shorter_than_announced_is_caught(tiny: Tiny, tmp_path: Path) -> None:
    tiny.answers["GET"] = Answer(200, b"short", {"Content-Length": "100"})
    with pytest.raises(ServiceUnavailable):
        storage(tiny.url).fetch(place("a.mp4"), tmp_path / "x")


def xml(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>".encode()


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, ""), (401, ""), (403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (400, "ExpiredToken")],
)
def test_refused_keys_are_said_and_not_hammered(tiny: Tiny, tmp_path: Path, status: int, code: str) -> None:
    tiny.answers["GET"] = Answer(status, xml(code) if code else b"")
    store = storage(tiny.url)
    with pytest.raises(LoginRefused, match=r"\[s3\] access_key_id"):
        store.fetch(place("a.mp4"), tmp_path / "x")
    with pytest.raises(LoginRefused, match="moment ago"):
        store.store(written(tmp_path / "source", b"x"), place("b.mp4"), keep)
    assert len(tiny.requests) == 1


def test_refused_keys_are_tried_again_after_a_while(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PAUSE_SECONDS", 0.0)
    tiny.answers["GET"] = Answer(403)
    store = storage(tiny.url)
    for _ in range(2):
        with pytest.raises(LoginRefused):
            store.fetch(place("a.mp4"), tmp_path / "x")
    assert len(tiny.requests) == 2


def test_a_right_that_lacks_for_one_object_stops_no_other(tiny: Tiny, tmp_path: Path) -> None:
    tiny.answers["GET"] = Answer(403, xml("AccessDenied"))
    store = storage(tiny.url)
    with pytest.raises(AccessDenied, match="lack the right"):
        store.fetch(place("a.mp4"), tmp_path / "x")
    assert store.store(written(tmp_path / "source", b"x"), place("b.mp4"), keep).length == 1


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (Answer(400, xml("AuthorizationHeaderMalformed")), AccessDenied, r"\[s3\] region"),
        (Answer(400, xml("InvalidArgument")), RequestRejected, "InvalidArgument"),
        (Answer(503, b"<html>busy</html>"), ServiceUnavailable, "503"),
        (Answer(500), ServiceUnavailable, "500"),
        (Answer(429, xml("SlowDown")), ServiceUnavailable, "SlowDown"),
        (Answer(200, b"<html>log in</html>"), UnreadableAnswer, "none of S3"),
        (Answer(200), UnreadableAnswer, "none of S3"),
    ],
)
@pytest.mark.usefixtures("small_parts")
def test_what_the_store_answers_is_said_by_its_type(
    tiny: Tiny, large: Path, answer: Answer, error: type[MuxerError], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    tiny.answers["POST"] = answer
    with pytest.raises(error, match=text) as caught:
        storage(tiny.url).store(large, place("a.mp4"), replace)
    assert type(caught.value) is error


def test_a_busy_store_is_tried_again_and_its_wish_is_passed_on(tiny: Tiny, tmp_path: Path) -> None:
    tiny.answers["GET"] = Answer(503, xml("SlowDown"), {"Retry-After": "7"})
    with pytest.raises(ServiceUnavailable, match="503") as caught:
        storage(tiny.url).fetch(place("a.mp4"), tmp_path / "x")
    assert caught.value.retry_after == 7
    assert len(tiny.requests) == s3.ATTEMPTS


def test_no_keys_are_said_and_looked_for_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = storage(server.url, access_key_id="", secret_access_key="")
    for _ in range(2):
        with pytest.raises(AccessDenied, match=r"\[s3\] access_key_id and secret_access_key"):
            store.store(written(tmp_path / "source", b"x"), place("a.mp4"), keep)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    assert store.store(tmp_path / "source", place("keys.mp4"), keep).length == 1


@pytest.mark.parametrize("lacking", ["access_key_id", "secret_access_key"])
def test_half_of_the_keys_is_said(server: Server, lacking: str) -> None:
    with pytest.raises(AccessDenied, match="secret_access_key"):
        storage(server.url, **{lacking: ""}).describe(place("a.mp4"))


def test_a_profile_that_is_not_there_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(AccessDenied, match="ProfileNotFound"):
        storage(server.url, access_key_id="", secret_access_key="").describe(place("a.mp4"))


def test_a_host_name_that_boto3_refuses_is_said() -> None:
    with pytest.raises(AccessDenied, match="endpoint_url"):
        storage("http://under_score:9000").describe(place("a.mp4"))


def closed_port() -> str:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def test_a_store_that_is_down_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnavailable, match="EndpointConnectionError"):
        storage(closed_port()).fetch(place("a.mp4"), tmp_path / "x")


@pytest.mark.parametrize("status", [403, 400, 404, 503, 0])
def test_no_secret_is_in_an_error(tiny: Tiny, tmp_path: Path, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    tiny.answers["GET"] = Answer(status, xml("Any"))
    with pytest.raises(MuxerError) as caught:
        storage(tiny.url if status else closed_port()).fetch(place("a.mp4"), tmp_path / "x")
    assert SECRET not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)


def test_boto3_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, muxer.services; print({'boto3', 'botocore', 's3transfer'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def into_bucket(lab: Lab, server: Server, call: AddedCall) -> None:
    """Move the screen file of a call from WebDAV into the bucket, and its metadata with it."""
    name = call.screens[0].media_id
    path = lab.site.media.folder / "screens" / name
    server.client.put_object(Bucket=BUCKET, Key=f"screens/{name}", Body=path.read_bytes())
    path.unlink()
    media = (lab.store.screen(call.id) or {})["mediaFiles"][0]
    media["originalMediaDescriptor"] = {"storage": "awsS3", "path": f"screens/{name}", "data": {"bucket": BUCKET}}
    lab.store.add_screen_media(call.id, lab.region, media)


def mux(lab: Lab, server: Server, call: AddedCall) -> Path:
    """Let the process mux a call; return the path of its log."""
    keys = {"s3.endpoint_url": server.url, "s3.access_key_id": KEY, "s3.secret_access_key": SECRET}
    config, log = lab.folder / "muxer.cfg", lab.folder / "log" / "recording-muxer-single.log"
    config.write_text(lab.config_text(**{"logfile.format": "json", **keys}))
    with Muxer(config) as muxer:
        wait_until(lambda: call.id in {one for one, _ in lab.store.label_posts}, 60, "the label", log)
        assert muxer.stop() == 0
    return log


def test_a_mixed_call_is_muxed_beside_its_screen(make_lab: Callable[..., Lab], server: Server, tmp_path: Path) -> None:
    lab = make_lab(encryption_group="certificates")
    (call,) = lab.add_case(Case.PLAIN)
    into_bucket(lab, server, call)
    log = mux(lab, server, call)
    (entry,) = [one for one in (lab.store.screen(call.id) or {})["mediaFiles"] if "muxed_mediaIds" in one["parameters"]]
    key = f"screens/{entry['mediaId']}"
    assert entry["originalMediaDescriptor"] == {"storage": "awsS3", "path": key, "data": {"bucket": BUCKET}}
    assert entry["parameters"]["muxed_mediaIds"] == [call.audio_id, call.screens[0].media_id]
    stored, clear = written(tmp_path / "stored", server.content(key)), tmp_path / "clear.mp4"
    assert entry["size"] == str(stored.stat().st_size)
    lab.decrypt(entry["pkcs7"], stored, clear)
    shown = [sync.Shown(0, call.plan.seconds, ALICE.number)]
    assert sync.problems(clear, call.start, call.plan.seconds, shown) == []
    assert SECRET not in log.read_text()
    assert not [line for line in log_lines(log) if line["level"] in ("warning", "error", "critical")]
    assert not list((lab.site.media.folder / "screens").iterdir())
