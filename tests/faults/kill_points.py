"""The points at which the muxer is killed: before and after each step of a job, and within the steps."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KillPoint:
    """A point before or after the n-th call of a function (module:attribute.path) while the point is armed."""

    where: str
    after: bool = False
    number: int = 1


STEPS = ("check", "fetch", "mux", "encrypt", "store", "publish", "delete", "label")
CALL_POINTS = {
    "the file to upload is renamed": KillPoint("muxer.storage.webdav:WebdavStorage._request_move", after=True),
    "the upload exists under its temporary name": KillPoint(
        "muxer.storage.webdav:WebdavStorage._upload_checked", after=True
    ),
    "the crash file is written": KillPoint("muxer.gir.publish:write_record", after=True),
    "before the first post": KillPoint("muxer.gir.rws:RwsClient.post_media"),
    "after the first post": KillPoint("muxer.gir.rws:RwsClient.post_media", after=True),
    "before the second post": KillPoint("muxer.gir.rws:RwsClient.post_media", number=2),
    "after the second post": KillPoint("muxer.gir.rws:RwsClient.post_media", after=True, number=2),
    "before the superseded entry is deleted": KillPoint("muxer.gir.rws:RwsClient.delete_media"),
    "between the superseded entry and its file": KillPoint("muxer.gir.rws:RwsClient.delete_media", after=True),
    "the superseded file is deleted": KillPoint("muxer.storage.webdav:WebdavStorage.delete_file", after=True),
    "the label is posted": KillPoint("muxer.gir.rws:RwsClient._post_label", after=True),
}
# Within functions that the launcher wraps separately.
WRAPPED_POINTS = (
    "a source is half fetched",
    "ffmpeg runs",
    "openssl runs",
    "the record in uploading is half written",
    "the upload is half done",
    "the crash file is half written",
    "the record in deleting is half written",
    "a state is half written to the journal",
)
# A second post is needed only by a server that replaces the list of a recording.
REPLACING_POINTS = frozenset({"after the first post", "before the second post", "after the second post"})
POINTS = (*(f"{when} {step}" for step in STEPS for when in ("before", "after")), *WRAPPED_POINTS, *CALL_POINTS)


def resolve_owner(where: str) -> tuple[Any, str]:
    """Return the owner and the name of the last attribute of ``module:attribute.path``."""
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    return owner, name
