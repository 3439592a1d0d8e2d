"""Checks of an S3 bucket: the region and the permissions of the keys."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from muxer.checks.checklist import Finding, failed_finding, warning_finding
from muxer.errors import MuxerError
from muxer.storage.base import MediaLocation
from muxer.storage.s3 import S3Storage

_PERMISSION_ADVICE = "grant the keys of [s3] the permission {} for this bucket (docs/s3.md)"


def check_bucket(store: S3Storage, place: MediaLocation, write: bool) -> Iterator[Finding]:
    """Yield the problems of the bucket of `place`. With `write`, a multipart upload is started and aborted."""
    if region := store.wanted_region(place):
        advice = f"set [s3] region = {region}"
        yield warning_finding(f"S3 region of {place.bucket}", f"the store requires the region {region}", advice)
    rights = f"S3 rights in {place.bucket}"
    if not store.may_list(place):
        found = "the keys lack s3:ListBucket, so a file that is not uploaded yet looks like a forbidden one"
        yield warning_finding(rights, found, _PERMISSION_ADVICE.format("s3:ListBucket"))
    if write:
        try:
            store.try_multipart(place.sibling(f"recording-muxer-check-{secrets.token_hex(6)}.txt"))
        except MuxerError as error:
            advice = _PERMISSION_ADVICE.format("s3:PutObject and s3:AbortMultipartUpload")
            yield failed_finding(f"S3 upload in parts to {place.bucket}", f"cannot start or abort it: {error}", advice)


def hidden_file_finding(store: S3Storage, check: str, place: MediaLocation) -> Finding | None:
    """Return the finding for a file that keys without s3:ListBucket cannot see; None when they have that permission."""
    if store.may_list(place):
        return None
    found = f"keys accepted, but {place.name} does not exist, or the keys may not read it"
    return warning_finding(
        check, found, _PERMISSION_ADVICE.format("s3:GetObject, and s3:ListBucket to find out which it is,")
    )
