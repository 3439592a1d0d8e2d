"""Limits size and time of the responses that boto3 reads itself: it has no limits for those that are not media."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from muxer.net.header_timeout import with_header_deadline
from muxer.net.transfer import CHUNK_BYTES, limit_body

# Limits of a response that is not media: it describes one object or one error.
MAX_S3_RESPONSE_SECONDS = 120.0
MAX_S3_RESPONSE_BYTES = 16 * 1024 * 1024


def limit_responses(client: Any, stop: threading.Event) -> None:
    """Limit header time, and time and size of each body that boto3 reads itself; it has no public way to do so."""

    def prepare_response(response: Any) -> None:
        chunks, deadline = iter(partial(response.read1, CHUNK_BYTES), b""), time.monotonic() + MAX_S3_RESPONSE_SECONDS
        response.stream = partial(limit_body, chunks, "the S3 store", MAX_S3_RESPONSE_BYTES, deadline, stop)

    pools = client._endpoint.http_session._pool_classes_by_scheme
    pools.update(with_header_deadline(pools, prepare_response))


def iterate_body(body: Any) -> Iterator[bytes]:
    """Yield a body as it arrives; all public methods of botocore wait for a whole chunk."""
    while piece := body._raw_stream.read1(CHUNK_BYTES):
        yield piece
