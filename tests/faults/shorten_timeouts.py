"""Shorter time limits and delays: a fault that takes a minute in production takes a second here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from webdav4 import retry as webdav_retry

from muxer.app import assembly
from muxer.gir import publish
from muxer.journal import journal, retry_policy
from muxer.net import transfer
from muxer.pipeline import store_and_publish
from muxer.storage import s3, s3_http, webdav_http

READ_TIMEOUT_SECONDS = 0.7


def shorten_timeouts(patch: Callable[[Any, str, Any], None], silence: float = READ_TIMEOUT_SECONDS) -> None:
    """Shorten the muxer's time limits with `patch`. `silence`: the read timeout in seconds."""
    patch(webdav_http, "CONNECT_SECONDS", silence)
    patch(webdav_http, "READ_TIMEOUT_SECONDS", silence)
    patch(webdav_http, "MAX_WEBDAV_RESPONSE_SECONDS", 2 * silence)
    patch(webdav_retry, "BACKOFF", 0.05)
    patch(s3, "READ_SECONDS", silence)
    patch(s3_http, "MAX_S3_RESPONSE_SECONDS", 2 * silence)
    patch(s3, "ATTEMPTS", 2)
    patch(retry_policy, "STEP_DELAYS", (0.05, 0.1, 0.2))
    patch(retry_policy, "MAX_STEP_DELAY_SECONDS", 0.5)
    patch(store_and_publish, "PUBLISH_WAIT_SECONDS", 1.0)
    patch(transfer, "GRACE_SECONDS", 2 * silence)
    patch(publish, "READ_BACK_DELAYS", (0.0, 0.1))
    patch(retry_policy, "FIRST_DELAY_SECONDS", 0.3)
    patch(retry_policy, "MAX_DELAY_SECONDS", 2.0)
    patch(journal, "MAX_DELAY_SECONDS", 2.0)
    patch(retry_policy, "MAX_POLL_DELAY_SECONDS", 1.0)
    account = assembly.ServiceAccount  # type: ignore[attr-defined]
    patch(assembly, "ServiceAccount", lambda *given: account(*given[:-1], silence))  # type: ignore[call-arg]
