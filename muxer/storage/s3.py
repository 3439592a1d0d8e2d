"""S3 storage: AWS, or any S3-compatible store. boto3 is large, so it is imported when it is first used."""

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

from muxer.config import schema
from muxer.errors import (
    AccessDenied,
    Code,
    MediaNotFound,
    MetadataError,
    MuxerError,
    PathForbidden,
    RequestRejected,
    ServiceUnavailable,
    StoredByOtherMuxer,
    UnreadableResponse,
)
from muxer.gir.responses import is_message_type
from muxer.net import tls, transfer
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.status import activity
from muxer.storage import s3_failures, s3_http
from muxer.storage.base import S3, MediaLocation, ObjectInfo, StoredFile
from muxer.storage.s3_client import SET_KEYS, create_client
from muxer.storage.s3_failures import ReadForbidden
from muxer.storage.upload_intents import UploadIntents

log = logging.getLogger(__name__)

S3_SERVICE = "the S3 store"
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 3
MULTIPART_BYTES = 64 * 1024 * 1024
_OR_MISSING = "or the object does not exist: without s3:ListBucket the store does not show which"
_UNREADABLE = "was uploaded, but the keys of [s3] lack the right s3:GetObject to read it back"


class S3Storage:
    """All buckets that media descriptors name, under one account. Safe to use from any thread."""

    def __init__(
        self,
        options: schema.S3Options,
        uploading: Path,
        stop: threading.Event,
        circuit_breaker: CircuitBreaker | None = None,
    ) -> None:
        self._options = options
        self._intents = UploadIntents(uploading, S3)
        self._context = None if options.trusted_ca is None else tls.client_context(options.trusted_ca)
        self._stop = stop
        self._circuit_breaker = circuit_breaker or CircuitBreaker()
        self._lock = threading.Lock()
        self._client: Any = None
        self._under_way = threading.local()
        # By bucket: the signature region that the store asked for in place of ours, and whether keys may not list.
        self._regions: dict[str, str] = {}
        self._unlisted: set[str] = set()

    def download_file(self, location: MediaLocation, path: Path) -> transfer.ReceivedLength:
        """Stream an object to `path`, check its length and return it. Raises MediaNotFound when it does not exist."""
        try:
            return self._download_object(location, path)
        except ReadForbidden as error:
            if self.may_list(location):
                raise
            raise PathForbidden(f"{error}; {_OR_MISSING}") from error

    def _download_object(self, location: MediaLocation, path: Path) -> transfer.ReceivedLength:
        with self._guarded_request("GET", location):
            response = self._shared_client.get_object(Bucket=location.bucket, Key=_object_key(location))
            with closing(response["Body"]) as body:
                if is_message_type(kind := str(response.get("ContentType"))):
                    raise UnreadableResponse(f"GET {_object_name(location)}: the response is {kind} instead of media")
                return transfer.receive_file(
                    s3_http.iterate_body(body),
                    path,
                    expected=response.get("ContentLength"),
                    source=_object_name(location),
                    stop=self._stop,
                    modified=transfer.modified_at(response["ResponseMetadata"].get("HTTPHeaders", {})),
                )

    def upload_file(self, path: Path, location: MediaLocation, may_replace: Callable[[], bool]) -> ObjectInfo:
        """Upload a file, in parts when it is large; see :class:`Storage`. Parts are recorded on disk, to abort them."""
        earlier = self.head(location)
        if earlier is not None and not may_replace():
            raise StoredByOtherMuxer(f"{_object_name(location)} is stored already")
        if earlier is None and location.bucket in self._unlisted:
            self._upload_without_head(path, location, may_replace)
        else:
            self._upload_object(path, location)
        stored, length = self.head(location), path.stat().st_size
        if stored is None and location.bucket in self._unlisted:
            raise AccessDenied(f"{_object_name(location)} {_UNREADABLE}")
        if stored is None or stored.length != length:
            held = "nothing" if stored is None else f"{stored.length} bytes"
            raise ServiceUnavailable(
                f"{_object_name(location)} holds {held} after an upload of {length}", code=Code.NOT_STORED
            )
        if stored == earlier and not _may_contain(path, stored):
            raise ServiceUnavailable(f"{_object_name(location)} is unchanged after the upload", code=Code.NOT_STORED)
        return stored

    def _upload_without_head(self, path: Path, location: MediaLocation, may_replace: Callable[[], bool]) -> None:
        """Upload without a HEAD: only if the object is new, where the store can do that; else `may_replace` decides."""
        try:
            self._upload_object(path, location, only_new=True)
        except (StoredByOtherMuxer, s3_failures.NotImplementedByStore) as error:
            if not may_replace():
                raise StoredByOtherMuxer(f"{_object_name(location)} may be stored already") from error
            self._upload_object(path, location)

    def _upload_object(self, path: Path, location: MediaLocation, only_new: bool = False) -> None:
        from boto3.s3.transfer import TransferConfig

        length = path.stat().st_size
        deadline = time.monotonic() + transfer.time_limit(length)
        config = TransferConfig(
            multipart_threshold=MULTIPART_BYTES,
            multipart_chunksize=MULTIPART_BYTES,
            use_threads=False,
            preferred_transfer_client="classic",
        )

        def check_sent(sent: int) -> None:
            transfer.check_progress(deadline, _object_name(location), self._stop)
            activity.add_progress(sent)

        activity.set_expected_amount(length)
        check_sent(0)
        how = {"ExtraArgs": {"ContentType": "application/octet-stream"}, "Config": config, "Callback": check_sent}
        try:
            with self._guarded_request("PUT", location), self._recording_upload_id(location, only_new):
                self._shared_client.upload_file(str(path), location.bucket, _object_key(location), **how)
        except AccessDenied as error:  # some stores forbid to upload to a bucket that does not exist
            if error.code is not Code.ACCESS_DENIED or self.has_folder(location):
                raise
            raise ServiceUnavailable(f"{error}; the bucket does not exist") from error

    def head(self, location: MediaLocation) -> ObjectInfo | None:
        """Return length and tag, None when it does not exist, or when the keys lack the right to know."""
        try:
            with self._guarded_request("HEAD", location):
                response = self._head_or_get(
                    self._shared_client.head_object, self._open_object, Bucket=location.bucket, Key=_object_key(location)
                )
                _refuse_page(response, f"HEAD {_object_name(location)}")
                return ObjectInfo(int(response["ContentLength"]), str(response.get("ETag") or ""))
        except MediaNotFound:
            self._unlisted.discard(location.bucket)
            return None
        except ReadForbidden:
            if self.may_list(location):
                raise
            return None

    def can_prove_absence(self, location: MediaLocation) -> bool:
        """Whether the keys may list the bucket: without that right, a missing object looks like a forbidden one."""
        return location.bucket not in self._unlisted

    def list_folder(self, location: MediaLocation) -> Iterator[StoredFile]:
        """Yield the objects directly below the prefix of `location`, as its folder."""
        pages = self._shared_client.get_paginator("list_objects_v2").paginate(
            Bucket=location.bucket, Prefix=location.folder, Delimiter="/"
        )
        with self._guarded_request("LIST", location.sibling("")):
            for page in pages:
                for one in page.get("Contents", ()):
                    name = str(one["Key"]).removeprefix(location.folder)
                    if name:
                        info = ObjectInfo(int(one["Size"]), str(one.get("ETag") or ""))
                        yield StoredFile(name, info, one["LastModified"].timestamp())

    def has_folder(self, location: MediaLocation) -> bool:
        """Whether the bucket of `location` exists; a folder is only a prefix of object names."""
        try:
            with self._guarded_request("LIST", location.sibling("")):
                self._head_or_get(self._shared_client.head_bucket, self._list_objects, Bucket=location.bucket)
        except MediaNotFound:
            return False
        except ReadForbidden:  # a missing bucket causes another error
            log.debug("the bucket %s is not shown to keys without s3:ListBucket", location.bucket)
        return True

    def may_list(self, location: MediaLocation) -> bool:
        """Whether the keys have the right to list the bucket of `location`. It is logged once when they do not."""
        try:
            with self._guarded_request("LIST", location.sibling("")):
                self._list_objects(Bucket=location.bucket)
        except (ReadForbidden, MediaNotFound, RequestRejected) as error:
            if location.bucket not in self._unlisted:
                self._unlisted.add(location.bucket)
                log.warning("%s; a missing object looks like a forbidden one there", error)
            return False
        return True

    def wanted_region(self, location: MediaLocation) -> str:
        """Return the signature region that the store asked for in place of [s3] region; empty when it did not."""
        return self._regions.get(location.bucket, "")

    def try_multipart(self, location: MediaLocation) -> None:
        """Start an upload in parts and abort it: both need rights of the keys."""
        with self._guarded_request("PUT", location), self._recording_upload_id(location):
            upload = self._shared_client.create_multipart_upload(Bucket=location.bucket, Key=_object_key(location))[
                "UploadId"
            ]
            self._abort_upload(location, upload)

    @staticmethod
    def _head_or_get(head: Callable[..., Any], get: Callable[..., Any], **what: str) -> Any:
        """Send a HEAD request. When it is refused without a reason, send a GET request, whose response has a body, once."""
        from botocore.exceptions import ClientError

        try:
            return head(**what)
        except ClientError as error:
            if not s3_failures.is_unexplained(error.response):
                raise
        return get(**what)

    def _open_object(self, **what: str) -> Any:
        response = self._shared_client.get_object(**what)
        response["Body"].close()
        return response

    def _list_objects(self, **what: str) -> Any:
        return self._shared_client.list_objects(MaxKeys=1, **what)

    def delete_file(self, location: MediaLocation) -> None:
        """Delete an object if it exists. Raises ServiceUnavailable when it still exists afterwards."""
        with self._guarded_request("DELETE", location):
            self._shared_client.delete_object(Bucket=location.bucket, Key=_object_key(location))
        if self.head(location) is not None:
            raise ServiceUnavailable(f"DELETE {_object_name(location)}: the object still exists")

    def remove_leftovers(self) -> None:
        """Abort the multipart uploads of processes that died, and those that could not be aborted at the time."""
        self._intents.delete_unfinished(self._abort_upload)

    def _abort_upload(self, location: MediaLocation, upload: str) -> None:
        """Delete the parts of an upload if it has not ended."""
        with suppress(MediaNotFound), self._guarded_request("ABORT", location):
            self._shared_client.abort_multipart_upload(Bucket=location.bucket, Key=_object_key(location), UploadId=upload)

    @contextmanager
    def _recording_upload_id(self, location: MediaLocation, only_new: bool = False) -> Iterator[None]:
        """Record an upload in parts once boto3 has its id, in this thread. `only_new`: fail when the object exists."""
        with ExitStack() as noted:
            self._under_way.note = lambda upload: noted.enter_context(self._intents.pending_upload(location, upload))
            self._under_way.only_new = only_new
            yield

    def _add_condition(self, params: dict[str, Any], **_: Any) -> None:
        if getattr(self._under_way, "only_new", False):
            params["IfNoneMatch"] = "*"

    def _remember_region(self, response: tuple[Any, dict[str, Any]] | None, request_dict: dict[str, Any], **_: Any) -> None:
        """Remember the region that the store asks for. boto3 repeats the request with it, and uses it for this bucket."""
        region = s3_failures.wanted_region(response[1]) if response else ""
        bucket = str(request_dict.get("context", {}).get("s3_redirect", {}).get("bucket", ""))
        if region and self._regions.get(bucket) != region:
            self._regions[bucket] = region
            log.warning("the store wants the region %s for the bucket %s: set [s3] region = %s", region, bucket, region)

    def _record_upload_id(self, parsed: dict[str, Any], **_: Any) -> None:
        if "UploadId" in parsed:
            self._under_way.note(parsed["UploadId"])

    @property
    def _shared_client(self) -> Any:
        """The client, created under a lock: creating one is not thread-safe, using it is."""
        with self._lock:
            if self._client is None:
                retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
                limits = {"connect_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS, "retries": retries}
                self._client = create_client(self._options, self._context, self._stop, limits)
                events = self._client.meta.events
                events.register("after-call.s3.CreateMultipartUpload", self._record_upload_id)
                for operation in ("PutObject", "CompleteMultipartUpload"):
                    events.register(f"before-parameter-build.s3.{operation}", self._add_condition)
                if self._options.endpoint_url is not None:
                    events.register_first("needs-retry.s3", self._remember_region)
            return self._client

    @contextmanager
    def _guarded_request(self, method: str, location: MediaLocation) -> Iterator[None]:
        with self._circuit_breaker.call(location.service_name), self._translate_errors(method, location):
            yield

    @contextmanager
    def _translate_errors(self, method: str, location: MediaLocation) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore import exceptions as botocore
        from botocore.parsers import ResponseParserError

        what = f"{method} {_object_name(location)}"
        try:
            yield
        except botocore.ClientError as error:
            raise self._response_error(error.response, method, location) from error
        except Boto3Error as error:
            cause = error.__context__
            if isinstance(cause, botocore.ClientError):
                raise self._response_error(cause.response, method, location) from error
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
            raise self._connection_error(error, what) from error
        except urllib3.exceptions.HTTPError as error:
            raise ServiceUnavailable(f"{what}: broke off: {type(error).__name__}", code=Code.BROKE_OFF) from error
        except (ResponseParserError, KeyError) as error:
            raise UnreadableResponse(f"{what}: the response is not valid S3 ({type(error).__name__})") from error

    def _response_error(self, response: dict[str, Any], method: str, location: MediaLocation) -> MuxerError:
        error = s3_failures.s3_error(response, method, _object_name(location))
        if s3_failures.http_status(response) == 400 and not s3_failures.s3_error_code(response):
            return self._prefer_scheme_error(error)
        return error

    def _connection_error(self, error: Exception, what: str) -> MuxerError:
        from botocore import exceptions as botocore

        if isinstance(error, botocore.SSLError):
            scheme = s3_failures.scheme_problem(self._options.endpoint_url, error)
            remedy = scheme or "check [s3] trusted_ca and endpoint_url"
            return ServiceUnavailable(f"{what}: {error}; {remedy}", code=Code.TLS)
        found = ServiceUnavailable(f"{what}: {type(error).__name__}: {error}")
        return self._prefer_scheme_error(found) if isinstance(error, botocore.ConnectionClosedError) else found

    def _prefer_scheme_error(self, error: MuxerError) -> MuxerError:
        """Return `error`, or one that explains that http and https are mixed up."""
        scheme = s3_failures.scheme_problem(self._options.endpoint_url)
        return ServiceUnavailable(f"{error}; {scheme}", code=Code.TLS) if scheme else error

    def _forget_client(self) -> None:
        """Let the next request create a new client: one that found no keys never searches again."""
        with self._lock:
            self._client = None


def _may_contain(path: Path, stored: ObjectInfo) -> bool:
    """Whether an unchanged object may contain the file: its tag is the digest of the file, or cannot be compared."""
    tag = stored.tag.strip('"')
    if not tag or "-" in tag:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == tag


def _refuse_page(response: Mapping[str, Any], what: str) -> None:
    """Raise UnreadableResponse when the response to a request `what` for an object is a page of a web server or a proxy."""
    if is_message_type(kind := str(response.get("ContentType"))):
        raise UnreadableResponse(
            f"{what}: the response is {kind}, so this is not an S3 store; check [s3] endpoint_url (host and port)"
        )


def _object_key(location: MediaLocation) -> str:
    return location.folder + location.name


def _object_name(location: MediaLocation) -> str:
    return f"s3://{location.bucket}/{_object_key(location)}"
