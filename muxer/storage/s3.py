"""S3 storage: AWS, or any S3-compatible store on the premises (S3 Premise), with boto3.

boto3 is imported at the first use: it is large, and a site without S3 never needs it.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
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
    PlaceClosed,
    RequestRejected,
    ServiceUnavailable,
    StoredElsewhere,
    UnreadableAnswer,
)
from muxer.gate import LoginGate
from muxer.gir.answers import is_message
from muxer.outages import Outages
from muxer.storage import s3_failures, s3_http
from muxer.storage.base import S3, Place, Stored
from muxer.storage.notes import Notes
from muxer.storage.s3_client import SET_KEYS, make_client
from muxer.storage.s3_failures import ReadForbidden

log = logging.getLogger(__name__)

SERVICE = "the S3 store"
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 3
MULTIPART_BYTES = 64 * 1024 * 1024
_OR_MISSING = "or it is not there: without s3:ListBucket the store does not show which"
_UNREADABLE = "was uploaded, but the keys of [s3] lack the right s3:GetObject to read it back"


class S3Storage:
    """All buckets that media descriptors name, under one account. Safe to use from any thread."""

    def __init__(
        self, options: schema.S3, uploading: Path, stop: threading.Event, outages: Outages | None = None
    ) -> None:
        """`options` holds the account; `uploading` is the folder of the intent records; `outages` receives failures."""
        self._options = options
        self._notes = Notes(uploading, S3)
        self._context = None if options.trusted_ca is None else tls.context(options.trusted_ca)
        self._stop = stop
        self._outages = outages or Outages()
        self._lock = threading.Lock()
        self._made: Any = None
        self._gate = LoginGate()
        self._under_way = threading.local()
        # By bucket: the signature region that the store asked for in place of ours, and whether keys may not list.
        self._regions: dict[str, str] = {}
        self._unlisted: set[str] = set()

    def fetch(self, place: Place, path: Path) -> transfer.Received:
        """Stream an object to ``path``, check its length and return it. Raise :class:`MediaNotFound` when it is absent."""
        try:
            return self._fetch(place, path)
        except ReadForbidden as error:
            if self.may_list(place):
                raise
            raise PlaceClosed(f"{error}; {_OR_MISSING}") from error

    def _fetch(self, place: Place, path: Path) -> transfer.Received:
        with self._talking("GET", place):
            answer = self._client.get_object(Bucket=place.bucket, Key=_key(place))
            with closing(answer["Body"]) as body:
                if is_message(kind := str(answer.get("ContentType"))):
                    raise UnreadableAnswer(f"GET {_named(place)}: answered {kind} where media was expected")
                return transfer.receive(
                    s3_http.pieces(body),
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
        earlier = self.describe(place)
        if earlier is not None and not may_replace():
            raise StoredElsewhere(f"{_named(place)} is stored already")
        if earlier is None and place.bucket in self._unlisted:
            self._upload_unseen(path, place, may_replace)
        else:
            self._upload(path, place)
        stored, length = self.describe(place), path.stat().st_size
        if stored is None and place.bucket in self._unlisted:
            raise AccessDenied(f"{_named(place)} {_UNREADABLE}")
        if stored is None or stored.length != length:
            held = "nothing" if stored is None else f"{stored.length} bytes"
            raise ServiceUnavailable(f"{_named(place)} holds {held} after an upload of {length}", code=Code.NOT_STORED)
        if stored == earlier and not _may_hold(path, stored):
            raise ServiceUnavailable(f"{_named(place)} is what it was before the upload", code=Code.NOT_STORED)
        return stored

    def _upload_unseen(self, path: Path, place: Place, may_replace: Callable[[], bool]) -> None:
        """Upload a file when the keys cannot show whether the object exists: only if it is new, where the store knows that
        condition; else `may_replace` decides."""
        try:
            self._upload(path, place, only_new=True)
        except (StoredElsewhere, s3_failures.NotImplementedByStore) as error:
            if not may_replace():
                raise StoredElsewhere(f"{_named(place)} may be stored already") from error
            self._upload(path, place)

    def _upload(self, path: Path, place: Place, only_new: bool = False) -> None:
        from boto3.s3.transfer import TransferConfig

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
        how = {"ExtraArgs": {"ContentType": "application/octet-stream"}, "Config": config, "Callback": check}
        try:
            with self._talking("PUT", place), self._noted(place, only_new):
                self._client.upload_file(str(path), place.bucket, _key(place), **how)
        except AccessDenied as error:  # some stores forbid to upload to a bucket that does not exist
            if error.code is not Code.ACCESS_DENIED or self.has_folder(place):
                raise
            raise ServiceUnavailable(f"{error}; the bucket does not exist") from error

    def describe(self, place: Place) -> Stored | None:
        """Return length and tag of an object, None when there is none.

        Keys without the right to list get 403 for a missing object, and for one that they may not read. With such keys None
        means that the object is not known to exist.
        """
        try:
            with self._talking("HEAD", place):
                answer = self._look(self._client.head_object, self._opened, Bucket=place.bucket, Key=_key(place))
                _refuse_page(answer, f"HEAD {_named(place)}")
                return Stored(int(answer["ContentLength"]), str(answer.get("ETag") or ""))
        except MediaNotFound:
            self._unlisted.discard(place.bucket)
            return None
        except ReadForbidden:
            if self.may_list(place):
                raise
            return None

    def has_folder(self, place: Place) -> bool:
        """Whether the bucket of a place is there; a folder in it is but a part of names."""
        try:
            with self._talking("LIST", place.beside("")):
                self._look(self._client.head_bucket, self._listed, Bucket=place.bucket)
        except MediaNotFound:
            return False
        except ReadForbidden:  # a bucket that is not there answers otherwise
            log.debug("the bucket %s is not shown to keys without s3:ListBucket", place.bucket)
        return True

    def may_list(self, place: Place) -> bool:
        """Whether the keys have the right to list the bucket of `place`. It is logged once when they do not."""
        try:
            with self._talking("LIST", place.beside("")):
                self._listed(Bucket=place.bucket)
        except (ReadForbidden, MediaNotFound, RequestRejected) as error:
            if place.bucket not in self._unlisted:
                self._unlisted.add(place.bucket)
                log.warning("%s; a missing object looks like a forbidden one there", error)
            return False
        return True

    def wanted_region(self, place: Place) -> str:
        """Return the signature region that the store asked for in place of [s3] region; empty when it did not."""
        return self._regions.get(place.bucket, "")

    def try_parts(self, place: Place) -> None:
        """Start an upload in parts and abort it: both need rights of the keys."""
        with self._talking("PUT", place), self._noted(place):
            upload = self._client.create_multipart_upload(Bucket=place.bucket, Key=_key(place))["UploadId"]
            self._give_up(place, upload)

    @staticmethod
    def _look(head: Callable[..., Any], get: Callable[..., Any], **what: str) -> Any:
        """Send a HEAD request. When it is refused without a reason, send a GET request, whose response has a body, once."""
        from botocore.exceptions import ClientError

        try:
            return head(**what)
        except ClientError as error:
            if not s3_failures.is_mute(error.response):
                raise
        return get(**what)

    def _opened(self, **what: str) -> Any:
        """Return the response to a GET of an object. Its body is not read."""
        answer = self._client.get_object(**what)
        answer["Body"].close()
        return answer

    def _listed(self, **what: str) -> Any:
        return self._client.list_objects(MaxKeys=1, **what)

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
        with suppress(MediaNotFound), self._talking("ABORT", place):
            self._client.abort_multipart_upload(Bucket=place.bucket, Key=_key(place), UploadId=upload)

    @contextmanager
    def _noted(self, place: Place, only_new: bool = False) -> Iterator[None]:
        """Ensure that an upload in parts is noted as soon as it has an id. boto3 asks for the id, in this thread;
        :meth:`_note` receives it. With `only_new` the upload fails when the object exists."""
        with ExitStack() as noted:
            self._under_way.note = lambda upload: noted.enter_context(self._notes.during(place, upload))
            self._under_way.only_new = only_new
            yield

    def _add_condition(self, params: dict[str, Any], **_: Any) -> None:
        if getattr(self._under_way, "only_new", False):
            params["IfNoneMatch"] = "*"

    def _note_region(self, response: tuple[Any, dict[str, Any]] | None, request_dict: dict[str, Any], **_: Any) -> None:
        """Remember the region that the store asks for. boto3 repeats the request with it, and uses it for this bucket."""
        region = s3_failures.wanted_region(response[1]) if response else ""
        bucket = str(request_dict.get("context", {}).get("s3_redirect", {}).get("bucket", ""))
        if region and self._regions.get(bucket) != region:
            self._regions[bucket] = region
            log.warning("the store wants the region %s for the bucket %s: set [s3] region = %s", region, bucket, region)

    def _note(self, parsed: dict[str, Any], **_: Any) -> None:
        if "UploadId" in parsed:
            self._under_way.note(parsed["UploadId"])

    @property
    def _client(self) -> Any:
        """The one client, made under a lock: making clients is not thread-safe, using one is."""
        with self._lock:
            if self._made is None:
                retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
                limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": retries}
                self._made = make_client(self._options, self._context, self._stop, limits)
                events = self._made.meta.events
                events.register("after-call.s3.CreateMultipartUpload", self._note)
                for operation in ("PutObject", "CompleteMultipartUpload"):
                    events.register(f"before-parameter-build.s3.{operation}", self._add_condition)
                if self._options.endpoint_url is not None:
                    events.register_first("needs-retry.s3", self._note_region)
            return self._made

    @contextmanager
    def _talking(self, method: str, place: Place) -> Iterator[None]:
        """Watch over a request; nothing is sent to a bucket for a while after it refused our keys."""
        with self._outages.talking(place.service), self._our_errors(method, place):
            self._gate.check(place.service)
            yield

    @contextmanager
    def _our_errors(self, method: str, place: Place) -> Iterator[None]:
        """Turn what boto3 raises into our errors."""
        from boto3.exceptions import Boto3Error
        from botocore import exceptions as botocore
        from botocore.parsers import ResponseParserError

        what = f"{method} {_named(place)}"
        try:
            yield
        except botocore.ClientError as error:
            raise self._failure(error.response, method, place) from error
        except Boto3Error as error:
            cause = error.__context__
            if isinstance(cause, botocore.ClientError):
                raise self._failure(cause.response, method, place) from error
            raise ServiceUnavailable(f"{what}: {type(error).__name__}") from error
        except (
            botocore.NoCredentialsError,
            botocore.PartialCredentialsError,
            botocore.CredentialRetrievalError,
            botocore.ProfileNotFound,
        ) as error:
            self._forget_client()
            raise AccessDenied(
                f"{what}: no usable keys ({type(error).__name__}); {SET_KEYS}", code=Code.S3_OPTIONS
            ) from error
        except botocore.ParamValidationError as error:
            raise MetadataError(f"{what}: the descriptor names no valid bucket and key", code=Code.BAD_DESCRIPTOR) from error
        except botocore.BotoCoreError as error:
            raise self._no_response(error, what) from error
        except urllib3.exceptions.HTTPError as error:
            raise ServiceUnavailable(f"{what}: broke off: {type(error).__name__}", code=Code.BROKE_OFF) from error
        except (ResponseParserError, KeyError) as error:
            raise UnreadableAnswer(f"{what}: the answer is none of S3 ({type(error).__name__})") from error

    def _failure(self, response: dict[str, Any], method: str, place: Place) -> MuxerError:
        """Return the error that the `response` to a failed request stands for."""
        error = s3_failures.failure_of(response, method, _named(place))
        if isinstance(error, LoginRefused):
            return self._gate.close(place.service, error)
        if s3_failures.status_of(response) == 400 and not s3_failures.code_of(response):
            return self._with_scheme(error)
        return error

    def _no_response(self, error: Exception, what: str) -> MuxerError:
        """Return the error of ours for a request to which no response came."""
        from botocore import exceptions as botocore

        if isinstance(error, botocore.SSLError):
            scheme = s3_failures.scheme_problem(self._options.endpoint_url, error)
            remedy = scheme or "check [s3] trusted_ca and endpoint_url"
            return ServiceUnavailable(f"{what}: {error}; {remedy}", code=Code.TLS)
        found = ServiceUnavailable(f"{what}: {type(error).__name__}: {error}")
        return self._with_scheme(found) if isinstance(error, botocore.ConnectionClosedError) else found

    def _with_scheme(self, error: MuxerError) -> MuxerError:
        """Return `error`, or in its place that http and https are mixed up."""
        scheme = s3_failures.scheme_problem(self._options.endpoint_url)
        return ServiceUnavailable(f"{error}; {scheme}", code=Code.TLS) if scheme else error

    def _forget_client(self) -> None:
        """A client that found no keys never looks again; the next request makes a new one."""
        with self._lock:
            self._made = None


def _may_hold(path: Path, stored: Stored) -> bool:
    """Whether an object that did not change may hold a file: its tag is the file's digest, or none that can be compared."""
    tag = stored.tag.strip('"')
    if not tag or "-" in tag:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == tag


def _refuse_page(answer: Mapping[str, Any], what: str) -> None:
    """Raise UnreadableAnswer when the response to a request `what` for an object is a page of a web server or a proxy."""
    if is_message(kind := str(answer.get("ContentType"))):
        raise UnreadableAnswer(f"{what}: answered {kind}, so this is no S3 store; check [s3] endpoint_url (host and port)")


def _key(place: Place) -> str:
    return place.folder + place.name


def _named(place: Place) -> str:
    return f"s3://{place.bucket}/{_key(place)}"
