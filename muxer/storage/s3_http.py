"""The HTTP under boto3, with limits: what is no media it reads whole, however long it is and however slowly it comes."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

from muxer.errors import UnreadableResponse
from muxer.net import transfer
from muxer.net.header_timeout import with_header_deadline

# An answer that is no media may take this long, and be so long: one object or one error is described in it.
MAX_S3_RESPONSE_SECONDS = 120.0
MAX_S3_RESPONSE_BYTES = 16 * 1024 * 1024


def limit_responses(client: Any, stop: threading.Event) -> None:
    """Given a client of boto3 that has sent nothing yet, and the stop event, give the head of each answer a time limit, and
    each body that boto3 reads itself one of time and size. Media are for :mod:`muxer.net.transfer`, which has its own."""

    def prepare_response(answer: Any) -> None:
        answer.stream = functools.partial(_limited_body, answer, time.monotonic() + MAX_S3_RESPONSE_SECONDS, stop)

    pools = client._endpoint.http_session._pool_classes_by_scheme
    pools.update(with_header_deadline(pools, prepare_response))


def _limited_body(answer: Any, deadline: float, stop: threading.Event) -> Iterator[bytes]:
    """Yield the body of an answer as it comes."""
    length = 0
    while piece := answer.read1(transfer.CHUNK_BYTES):
        length += len(piece)
        if length > MAX_S3_RESPONSE_BYTES:
            raise UnreadableResponse(f"an answer of the S3 store is longer than {MAX_S3_RESPONSE_BYTES} bytes")
        yield piece
        transfer.check_progress(deadline, "an answer of the S3 store", stop)


def iterate_body(body: Any) -> Iterator[bytes]:
    """Yield a body in pieces as they arrive, so that time limits hold for a store that sends drop by drop; botocore's own
    iterator waits for a whole piece, with urllib3's response behind it."""
    while piece := body._raw_stream.read1(transfer.CHUNK_BYTES):
        yield piece
