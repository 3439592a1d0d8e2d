"""The points at which the muxer is killed: before and after each step of a job, and at the seams within."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Call:
    """The n-th call of a function (module:attribute.path) while the point is armed, before or after it."""

    where: str
    after: bool = False
    number: int = 1


STEPS = ("check", "fetch", "mux", "encrypt", "store", "publish", "delete", "label")
CALLS = {
    "the file to upload is renamed": Call("muxer.storage.webdav:WebdavStorage._moved", after=True),
    "the upload stands under its temporary name": Call("muxer.storage.webdav:WebdavStorage._upload", after=True),
    "the crash file is written": Call("muxer.gir.publish:Publisher._keep", after=True),
    "before the first post": Call("muxer.gir.rws:Rws.post_media"),
    "after the first post": Call("muxer.gir.rws:Rws.post_media", after=True),
    "before the second post": Call("muxer.gir.rws:Rws.post_media", number=2),
    "after the second post": Call("muxer.gir.rws:Rws.post_media", after=True, number=2),
    "before the superseded entry is deleted": Call("muxer.gir.rws:Rws.delete_media"),
    "between the superseded entry and its file": Call("muxer.gir.rws:Rws.delete_media", after=True),
    "the superseded file is deleted": Call("muxer.storage.webdav:WebdavStorage.delete", after=True),
    "the label is posted": Call("muxer.gir.rws:Rws._post_label", after=True),
}
# Within what the launcher wraps in its own way.
WITHIN = (
    "a source is half fetched",
    "ffmpeg runs",
    "openssl runs",
    "the note in uploading is half written",
    "the upload is half done",
    "the crash file is half written",
    "the note in deleting is half written",
    "a state is half written to the journal",
)
# A second post is needed only by a server that replaces the list of a recording.
REPLACING = frozenset({"after the first post", "before the second post", "after the second post"})
POINTS = (*(f"{when} {step}" for step in STEPS for when in ("before", "after")), *WITHIN, *CALLS)


def resolve(where: str) -> tuple[Any, str]:
    """Given ``module:attribute.path``, return the owner of the last attribute, and its name."""
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for one in owners:
        owner = getattr(owner, one)
    return owner, name
