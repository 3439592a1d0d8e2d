"""S3 storage: AWS, or any S3-compatible store on the premises (S3 Premise), with boto3.

boto3 is imported at the first use: it is large, and a site without S3 never needs it.
"""

from __future__ import annotations

import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import urllib3

from muxer import activity, tls, transfer
from muxer.config import schema
from muxer.errors import (
    AccessDenied,
    Code,
    LoginRefused,
    MediaNotFound,
    MetadataError,
    MuxerError,
    RequestRejected,
    ServiceUnavailable,
    StoredElsewhere,
    UnreadableAnswer,
)
from muxer.gate import LoginGate
from muxer.gir.answers import is_message, retry_after
from muxer.outages import Outages
from muxer.storage import s3_http
from muxer.storage.base import S3, Place, Stored
from muxer.storage.notes import Notes

SERVICE = "the S3 store"
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 3
MULTIPART_BYTES = 64 * 1024 * 1024
_BAD_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
_SET_KEYS = "set [s3] access_key_id and secret_access_key"
# A bucket of another region answers so, when boto3 cannot follow it there.
_BAD_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301")


class S3Storage:
    """All buckets that media descriptors name, under one account. Safe to use from any thread."""

    def __init__(
        self, options: schema.S3, uploading: Path, stop: threading.Event, outages: Outages | None = None
    ) -> None:
        """Given the account, the folder that keeps what is being uploaded, the stop event, and what is told of the store's
        failures."""
        self._options = options
        self._notes = Notes(uploading, S3)
        self._context = None if options.trusted_ca is None else tls.context(options.trusted_ca)
        self._stop = stop
        self._outages = outages or Outages()
        self._lock = threading.Lock()
        self._made: Any = None
        self._gate = LoginGate()
        self._under_way = threading.local()

    def fetch(self, place: Place, path: Path) -> transfer.Received:
        """Stream an object to ``path``, check its length and return it. Raise :class:`MediaNotFound` when it is absent."""
        with self._talking("GET", place):
            answer = self._client.get_object(Bucket=place.bucket, Key=_key(place))
            with closing(answer["Body"]) as body:
                if is_message(kind := str(answer.get("ContentType"))):
                    raise UnreadableAnswer(f"GET {_named(place)}: answered {kind} where media was expected")
                return transfer.receive(
                    _as_it_comes(body),
                    path,
                    expected=answer.get("ContentLength"),
                    source=_named(place),
                    stop=self._stop,
                    modified=transfer.modified_at(answer["ResponseMetadata"].get("HTTPHeaders", {})),
                )

    def store(self, path: Path, place: Place, may_replace: Callable[[], bool]) -> Stored:
        """Upload a file, in parts when it is large, and check its stored length; see :class:`Storage`.

        An object appears whole or not at all; boto3 gives up the parts of an upload that fails. Parts are noted on disk,
        and given up later when boto3 cannot, or the process dies.
        """
        from boto3.s3.transfer import TransferConfig

        earlier = self.describe(place)
        if earlier is not None and not may_replace():
            raise StoredElsewhere(f"{_named(place)} is stored already")
        length = path.stat().st_size
        deadline = time.monotonic() + transfer.time_limit(length)
        config = TransferConfig(
            multipart_threshold=MULTIPART_BYTES,
            multipart_chunksize=MULTIPART_BYTES,
            use_threads=False,
            preferred_transfer_client="classic",
        )

        def check(sent: int) -> None:
            transfer.check_progress(deadline, _named(place), self._stop)
            activity.advance(sent)

        activity.expect(length)
        check(0)
        with self._talking("PUT", place), self._noted(place):
            extra = {"ContentType": "application/octet-stream"}
            self._client.upload_file(str(path), place.bucket, _key(place), ExtraArgs=extra, Config=config, Callback=check)
        stored = self.describe(place)
        if stored is None or stored.length != length:
            held = "nothing" if stored is None else f"{stored.length} bytes"
            raise ServiceUnavailable(f"{_named(place)} holds {held} after an upload of {length}", code=Code.NOT_STORED)
        if stored == earlier and not _may_hold(path, stored):
            raise ServiceUnavailable(f"{_named(place)} is what it was before the upload", code=Code.NOT_STORED)
        return stored

    def describe(self, place: Place) -> Stored | None:
        """Return length and tag of an object, None when there is none."""
        try:
            with self._talking("HEAD", place):
                answer = self._client.head_object(Bucket=place.bucket, Key=_key(place))
                return Stored(int(answer["ContentLength"]), str(answer.get("ETag") or ""))
        except MediaNotFound:
            return None

    def has_folder(self, place: Place) -> bool:
        """Whether the bucket of a place is there; a folder in it is but a part of names."""
        try:
            with self._talking("HEAD", place.beside("")):
                self._client.head_bucket(Bucket=place.bucket)
                return True
        except MediaNotFound:
            return False

    def delete(self, place: Place) -> None:
        """Delete an object; one that is gone already is no error. Raise :class:`ServiceUnavailable` when it is still there:
        the page of a proxy is a success, too."""
        with self._talking("DELETE", place):
            self._client.delete_object(Bucket=place.bucket, Key=_key(place))
        if self.describe(place) is not None:
            raise ServiceUnavailable(f"DELETE {_named(place)}: the object is still there")

    def remove_left_overs(self) -> None:
        """Delete the parts of uploads whose process died, and of those that could not be given up at the time."""
        self._notes.clean(self._give_up)

    def _give_up(self, place: Place, upload: str) -> None:
        """Delete the parts of an upload; one that has ended is no error."""
        with suppress(MediaNotFound), self._talking("DELETE", place):
            self._client.abort_multipart_upload(Bucket=place.bucket, Key=_key(place), UploadId=upload)

    @contextmanager
    def _noted(self, place: Place) -> Iterator[None]:
        """See to it that an upload in parts is noted as soon as it has an id. It is boto3 who asks for the id, in this
        thread; :meth:`_note` hears of it."""
        with ExitStack() as noted:
            self._under_way.note = lambda upload: noted.enter_context(self._notes.during(place, upload))
            yield

    def _note(self, parsed: dict[str, Any], **_: Any) -> None:
        if "UploadId" in parsed:
            self._under_way.note(parsed["UploadId"])

    @property
    def _client(self) -> Any:
        """The one client, made under a lock: making clients is not thread-safe, using one is."""
        with self._lock:
            if self._made is None:
                self._made = _client(self._options, self._context, self._stop)
                self._made.meta.events.register("after-call.s3.CreateMultipartUpload", self._note)
            return self._made

    @contextmanager
    def _talking(self, method: str, place: Place) -> Iterator[None]:
        """Watch over a request; nothing is sent for a while after a refused login."""
        what = f"{method} {_named(place)}"
        with self._outages.talking(place.service), self._our_errors(what):
            self._gate.check(SERVICE)
            yield

    @contextmanager
    def _our_errors(self, what: str) -> Iterator[None]:
        """Turn what boto3 raises into our errors."""
        from boto3.exceptions import Boto3Error
        from botocore import exceptions as botocore
        from botocore.parsers import ResponseParserError

        try:
            yield
        except botocore.ClientError as error:
            raise self._failure(error.response, what) from error
        except Boto3Error as error:
            cause = error.__context__
            if isinstance(cause, botocore.ClientError):
                raise self._failure(cause.response, what) from error
            raise ServiceUnavailable(f"{what}: {type(error).__name__}") from error
        except (
            botocore.NoCredentialsError,
            botocore.PartialCredentialsError,
            botocore.CredentialRetrievalError,
            botocore.ProfileNotFound,
        ) as error:
            self._forget_client()
            raise AccessDenied(
                f"{what}: no usable keys ({type(error).__name__}); {_SET_KEYS}", code=Code.S3_OPTIONS
            ) from error
        except botocore.ParamValidationError as error:
            raise MetadataError(f"{what}: the descriptor names no valid bucket and key", code=Code.BAD_DESCRIPTOR) from error
        except botocore.SSLError as error:
            raise ServiceUnavailable(f"{what}: {error}; check [s3] trusted_ca and endpoint_url", code=Code.TLS) from error
        except botocore.BotoCoreError as error:
            raise ServiceUnavailable(f"{what}: {type(error).__name__}: {error}") from error
        except urllib3.exceptions.HTTPError as error:
            raise ServiceUnavailable(f"{what}: broke off: {type(error).__name__}", code=Code.BROKE_OFF) from error
        except (ResponseParserError, KeyError) as error:
            raise UnreadableAnswer(f"{what}: the answer is none of S3 ({type(error).__name__})") from error

    def _forget_client(self) -> None:
        """A client that found no keys never looks again; the next request makes a new one."""
        with self._lock:
            self._made = None

    def _failure(self, response: dict[str, Any], what: str) -> MuxerError:
        """Given the answer to a failed request, return the error that it stands for."""
        code = str(response.get("Error", {}).get("Code", ""))
        metadata = response.get("ResponseMetadata", {})
        status = int(metadata.get("HTTPStatusCode", 0))
        text = f"{what}: HTTP {status}, {code}"
        if code == "AccessDenied":
            return AccessDenied(f"{text}; the keys of [s3] lack the right to it, or to list the bucket")
        if code in _BAD_KEYS or status in (401, 403):
            what = f"{text}; check [s3] access_key_id and secret_access_key, and their rights"
            return self._gate.close(SERVICE, LoginRefused(what))
        if code in _BAD_REGION:
            return AccessDenied(f"{text}; check [s3] region and endpoint_url", code=Code.S3_OPTIONS)
        if code == "NoSuchBucket":
            return ServiceUnavailable(f"{text}; the bucket does not exist")
        if status == 404:
            return MediaNotFound(text)
        if status >= 500 or status < 400 or status in (408, 429) or code in ("SlowDown", "RequestTimeout"):
            headers = metadata.get("HTTPHeaders", {})
            return ServiceUnavailable(text, retry_after({"Retry-After": str(headers.get("retry-after", ""))}))
        return RequestRejected(text, status)


def _client(options: schema.S3, context: ssl.SSLContext | None, stop: threading.Event) -> Any:
    """Make the client. An own endpoint gets plain requests with paths: older stores keep the chunk marks of new checksums
    as content, and seldom have a host name for each bucket. It is asked directly, whatever proxy the environment names."""
    import boto3
    from botocore.config import Config

    if bool(options.access_key_id) != bool(options.secret_access_key):
        raise AccessDenied(f"[s3] holds only half of the keys; {_SET_KEYS}", code=Code.S3_OPTIONS)
    own = options.endpoint_url is not None
    style = options.addressing_style or ("path" if own else "auto")
    plain = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "proxies": {},
    }
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        s3={"addressing_style": style},
        **(plain if own else {}),
    )
    session = boto3.session.Session(
        aws_access_key_id=options.access_key_id or None,
        aws_secret_access_key=options.secret_access_key or None,
        region_name=options.region or ("us-east-1" if own else None),
    )
    try:
        made = session.client("s3", endpoint_url=options.endpoint_url, config=config)
    except ValueError as error:
        raise AccessDenied(
            "boto3 refuses [s3] endpoint_url or region; host names hold letters, digits, - and .", code=Code.S3_OPTIONS
        ) from error
    made.meta.events.register_first("needs-retry.s3", _raise_ours)
    s3_http.limit(made, stop)
    if context is not None:
        _check_servers_with(context, made)
    return made


def _check_servers_with(context: ssl.SSLContext, client: Any) -> None:
    """Let a client that has sent nothing yet check servers as our other connections do.

    boto3 itself takes a file only, and reads it in another way: it knows neither the authorities of Windows nor a folder of
    them, and finds no certificate behind a byte order mark.
    """
    if context.verify_mode is ssl.CERT_NONE:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    http = client._endpoint.http_session
    http._setup_ssl_cert = lambda *_: None
    http._get_ssl_context = lambda: context
    http._manager.connection_pool_kw["ssl_context"] = context


def _raise_ours(caught_exception: Exception | None = None, **_: Any) -> None:
    """End a request with the error of ours that broke it, such as :class:`Stopped`; boto3 would send the request again."""
    error = getattr(caught_exception, "kwargs", {}).get("error")
    if isinstance(error, MuxerError):
        raise error


def _may_hold(path: Path, stored: Stored) -> bool:
    """Whether an object that did not change may hold a file: its tag is the file's digest, or none that can be compared."""
    tag = stored.tag.strip('"')
    if not tag or "-" in tag:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == tag


def _as_it_comes(body: Any) -> Iterator[bytes]:
    """Yield a body in pieces as they arrive, so that time limits hold for a store that sends drop by drop; botocore's own
    iterator waits for a whole piece, with urllib3's response behind it."""
    while piece := body._raw_stream.read1(transfer.CHUNK):
        yield piece


def _key(place: Place) -> str:
    return place.folder + place.name


def _named(place: Place) -> str:
    return f"s3://{place.bucket}/{_key(place)}"
