"""Limits size and time of the responses that boto3 reads itself: it has no limits for those that are not media."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from typing import Any

from muxer.errors import UnreadableResponse
from muxer.net import transfer
from muxer.net.header_timeout import with_header_deadline

# Limits of a response that is not media: it describes one object or one error.
MAX_S3_RESPONSE_SECONDS = 120.0
MAX_S3_RESPONSE_BYTES = 16 * 1024 * 1024


def limit_responses(client: Any, stop: threading.Event) -> None:
    """Limit header time, and time and size of each body that boto3 reads itself; it has no public way to do so."""

    def prepare_response(response: Any) -> None:
        response.stream = functools.partial(_limited_body, response, time.monotonic() + MAX_S3_RESPONSE_SECONDS, stop)

    pools = client._endpoint.http_session._pool_classes_by_scheme
    pools.update(with_header_deadline(pools, prepare_response))


def _limited_body(response: Any, deadline: float, stop: threading.Event) -> Iterator[bytes]:
    length = 0
    while piece := response.read1(transfer.CHUNK_BYTES):
        length += len(piece)
        if length > MAX_S3_RESPONSE_BYTES:
            raise UnreadableResponse(f"a response of the S3 store is longer than {MAX_S3_RESPONSE_BYTES} bytes")
        yield piece
        transfer.check_progress(deadline, "a response of the S3 store", stop)


def iterate_body(body: Any) -> Iterator[bytes]:
    """Yield a body as it arrives; all public methods of botocore wait for a whole chunk."""
    while piece := body._raw_stream.read1(transfer.CHUNK_BYTES):
        yield piece
