"""Creates the boto3 client for an S3 store: its options, its TLS, and when a request ends early."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Mapping
from typing import Any

import urllib3

from muxer.config import schema
from muxer.errors import AccessDenied, Code, MuxerError
from muxer.storage import s3_failures, s3_http

SET_KEYS = "set [s3] access_key_id and secret_access_key"


def create_client(
    options: schema.S3Options, context: ssl.SSLContext | None, stop: threading.Event, limits: Mapping[str, Any]
) -> Any:
    """Create the client. `limits` are boto3's timeouts and attempts. Raises AccessDenied for invalid options.

    An endpoint gets paths and no new checksums: older stores save the chunk marks as content. No proxies are used for it.
    """
    import boto3
    from botocore.config import Config

    if bool(options.access_key_id) != bool(options.secret_access_key):
        raise AccessDenied(f"[s3] holds only half of the keys; {SET_KEYS}", code=Code.S3_OPTIONS)
    own = options.endpoint_url is not None
    style = options.addressing_style or ("path" if own else "auto")
    plain = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required", "proxies": {}}
    config = Config(**limits, s3={"addressing_style": style}, **(plain if own else {}))
    session = boto3.session.Session(
        aws_access_key_id=options.access_key_id or None,
        aws_secret_access_key=options.secret_access_key or None,
        region_name=options.region or ("us-east-1" if own else None),
    )
    try:
        client = session.client("s3", endpoint_url=options.endpoint_url, config=config)
    except ValueError as error:
        raise AccessDenied(
            "boto3 refuses [s3] endpoint_url or region; host names hold letters, digits, - and .", code=Code.S3_OPTIONS
        ) from error
    for handler in (_raise_muxer_error, _end_redirect):
        client.meta.events.register_first("needs-retry.s3", handler)
    s3_http.limit_responses(client, stop)
    if context is not None:
        _use_tls_context(context, client)
    return client


def _use_tls_context(context: ssl.SSLContext, client: Any) -> None:
    """Set the TLS context before the first request; boto3 accepts only a file, which cannot hold all of it."""
    if context.verify_mode is ssl.CERT_NONE:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    http = client._endpoint.http_session
    http._setup_ssl_cert = lambda *_: None
    http._get_ssl_context = lambda: context
    http._manager.connection_pool_kw["ssl_context"] = context


def _raise_muxer_error(caught_exception: Exception | None = None, **_: Any) -> None:
    """End a request with the MuxerError that interrupted it, such as Stopped; boto3 would repeat the request."""
    error = getattr(caught_exception, "kwargs", {}).get("error")
    if isinstance(error, MuxerError):
        raise error


def _end_redirect(response: tuple[Any, dict[str, Any]] | None = None, operation: Any = None, **_: Any) -> None:
    """End a redirect without a region, which boto3 would follow until a stack overflow."""
    from botocore.exceptions import ClientError

    if response is not None and s3_failures.is_foreign_redirect(response[1]):
        raise ClientError(response[1], operation.name)
