"""What a bucket of an S3 store shows beside its media: the signature region that it wants, and the rights of the keys."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from muxer.checks.checklist import Finding, failed, warning
from muxer.errors import MuxerError
from muxer.storage.base import Place
from muxer.storage.s3 import S3Storage

_GIVE = "give the keys of [s3] the right {} in this bucket (docs/s3.md)"


def bucket_findings(store: S3Storage, place: Place, write: bool) -> Iterator[Finding]:
    """Yield what is to be corrected for the bucket of `place`. With `write`, an upload in parts is started and aborted."""
    if region := store.wanted_region(place):
        advice = f"set [s3] region = {region}"
        yield warning(f"S3 region of {place.bucket}", f"the store wants the region {region}", advice)
    rights = f"S3 rights in {place.bucket}"
    if not store.may_list(place):
        found = "the keys lack s3:ListBucket, so a file that is still on its way looks like a forbidden one"
        yield warning(rights, found, _GIVE.format("s3:ListBucket"))
    if write:
        try:
            store.try_parts(place.beside(f"recording-muxer-check-{secrets.token_hex(6)}.txt"))
        except MuxerError as error:
            advice = _GIVE.format("s3:PutObject and s3:AbortMultipartUpload")
            yield failed(f"S3 upload in parts to {place.bucket}", f"it could not be started or aborted: {error}", advice)


def not_shown(store: S3Storage, check: str, place: Place) -> Finding | None:
    """Return the finding for a file that keys without s3:ListBucket do not show; None when they may list."""
    if store.may_list(place):
        return None
    found = f"keys accepted, but {place.name} is not there, or the keys may not read it"
    return warning(check, found, _GIVE.format("s3:GetObject, and s3:ListBucket to find out which it is,"))
