"""Helpers for tests of the S3 storage: the storage under test, locations, a separate client, a delayed stop."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3

from muxer.config.schema import S3Options
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.storage.base import MediaLocation, parse_descriptor
from muxer.storage.s3 import S3Storage

UNSET = {"region": "", "addressing_style": None, "trusted_ca": None}
BUCKET, KEY, SECRET = "recordings", "AKIATESTKEY", "topsecret/key+%"
MIB = 1024 * 1024
_NOTES = tempfile.TemporaryDirectory(prefix="muxer-notes-")  # removed when the tests end
OBJECT_NAMES = [
    *("plain.mp4", "with blank.mp4", "hash#mark.mp4", "question?.mp4", "per%20cent.mp4", "100%.mp4", "grüße.mp4"),
    *("a&b=c+d.mp4", "semi;colon.mp4", "back\\slash.mp4", "'quoted'.mp4"),
]


class S3Server:
    """A store, and a separate client that reads its content."""

    def __init__(
        self,
        url: str,
        key: str = KEY,
        secret: str = SECRET,
        trusted_ca: Path | None = None,
        region: str = "us-east-1",
    ) -> None:
        self.url = url
        keys = {"aws_access_key_id": key, "aws_secret_access_key": secret, "region_name": region}
        self.client: Any = boto3.client("s3", endpoint_url=url, verify=trusted_ca and str(trusted_ca), **keys)

    def read_object(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    def list_objects(self) -> list[str]:
        """Return the keys of all objects."""
        return [item["Key"] for item in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def count_open_uploads(self) -> int:
        """Return the number of multipart uploads that are neither completed nor aborted."""
        return len(self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []))


def keep_stored() -> bool:
    """Refuse to replace a stored object."""
    return False


def replace_stored() -> bool:
    """Allow a stored object to be replaced."""
    return True


def create_storage(
    url: str,
    stop: threading.Event | None = None,
    uploading: Path | None = None,
    circuit_breaker: CircuitBreaker | None = None,
    **options: Any,
) -> S3Storage:
    """Return the storage under test. Without a separate folder for intent records it uses a shared one."""
    given = UNSET | {"endpoint_url": url, "access_key_id": KEY, "secret_access_key": SECRET} | options
    return S3Storage(S3Options(**given), uploading or Path(_NOTES.name), stop or threading.Event(), circuit_breaker)


def s3_location(name: str, bucket: str = BUCKET) -> MediaLocation:
    return parse_descriptor({"storage": "awsS3", "path": f"screens/{name}", "data": {"bucket": bucket}})


def write_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class DelayedStop(threading.Event):
    """A stop event that becomes set after `looks` checks."""

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
