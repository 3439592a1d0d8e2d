"""The HTTP under boto3, with limits: what is no media it reads whole, however long it is and however slowly it comes."""

from __future__ import annotations

import functools
import hashlib
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3

from muxer import transfer
from muxer.errors import MuxerError, UnreadableAnswer
from muxer.punctual import punctual
from muxer.storage import s3_failures
from muxer.storage.base import Stored

# An answer that is no media may take this long, and be so long: one object or one error is described in it.
ANSWER_SECONDS = 120.0
ANSWER_BYTES = 16 * 1024 * 1024


def limit(client: Any, stop: threading.Event) -> None:
    """Given a client of boto3 that has sent nothing yet, and the stop event, give the head of each answer a time limit, and
    each body that boto3 reads itself one of time and size. Media are for :mod:`muxer.transfer`, which has its own."""

    def prepare(answer: Any) -> None:
        answer.stream = functools.partial(_whole, answer, time.monotonic() + ANSWER_SECONDS, stop)

    pools = client._endpoint.http_session._pool_classes_by_scheme
    pools.update(punctual(pools, prepare))


def _whole(answer: Any, deadline: float, stop: threading.Event) -> Iterator[bytes]:
    """Yield the body of an answer as it comes."""
    length = 0
    while piece := answer.read1(transfer.CHUNK):
        length += len(piece)
        if length > ANSWER_BYTES:
            raise UnreadableAnswer(f"an answer of the S3 store is longer than {ANSWER_BYTES} bytes")
        yield piece
        transfer.check_progress(deadline, "an answer of the S3 store", stop)


def check_servers_with(context: ssl.SSLContext, client: Any) -> None:
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


def raise_ours(caught_exception: Exception | None = None, **_: Any) -> None:
    """End a request with the error of ours that broke it, such as :class:`Stopped`; boto3 would send the request again."""
    error = getattr(caught_exception, "kwargs", {}).get("error")
    if isinstance(error, MuxerError):
        raise error


def pieces(body: Any) -> Iterator[bytes]:
    """Yield a body in pieces as they arrive, so that time limits hold for a store that sends drop by drop; botocore's own
    iterator waits for a whole piece, with urllib3's response behind it."""
    while piece := body._raw_stream.read1(transfer.CHUNK):
        yield piece


def end_redirect(response: tuple[Any, dict[str, Any]] | None = None, operation: Any = None, **_: Any) -> None:
    """End a request that is redirected without a region. boto3 would ask for the region of the bucket, be redirected once
    more, and so on until its stack is full."""
    from botocore.exceptions import ClientError

    if response is not None and s3_failures.is_plain_redirect(response[1]):
        raise ClientError(response[1], operation.name)


def may_hold(path: Path, stored: Stored) -> bool:
    """Whether an object that did not change may hold a file: its tag is the file's digest, or none that can be compared."""
    tag = stored.tag.strip('"')
    if not tag or "-" in tag:
        return True
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() == tag
