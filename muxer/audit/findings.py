"""What an audit can find, and what to do about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FindingKind(StrEnum):
    """The kinds of findings; the values are names in the JSON output and in the metrics."""

    MISSING = "missing"
    FILE_MISSING = "file_missing"
    WRONG_LENGTH = "wrong_length"
    NOT_ENCRYPTED = "not_encrypted"
    WRONG_RECIPIENT = "wrong_recipient"
    LABEL_MISSING = "label_missing"
    SOURCE_MISSING = "source_missing"
    SOURCE_DAMAGED = "source_damaged"
    SUPERSEDED_LEFT = "superseded_left"
    PUBLISHED_TWICE = "published_twice"
    DAMAGED = "damaged"
    ORPHAN = "orphan"
    UNCHECKED = "unchecked"


@dataclass(frozen=True)
class KindText:
    """The texts of a kind: its title, and what to do."""

    title: str
    remedy: str


_MUX_AGAIN = "Run the audit with --repair: it is muxed again from its sources, and the earlier file is deleted"
TEXTS = {
    FindingKind.MISSING: KindText(
        "no muxed file is published",
        "`failed` shows why, when the muxer has tried it; --repair muxes it now",
    ),
    FindingKind.FILE_MISSING: KindText("the stored file of a muxed recording is missing", _MUX_AGAIN),
    FindingKind.WRONG_LENGTH: KindText("the stored file has another length than its metadata say", _MUX_AGAIN),
    FindingKind.NOT_ENCRYPTED: KindText("the muxed file is not encrypted, but must be", _MUX_AGAIN),
    FindingKind.WRONG_RECIPIENT: KindText(
        "the muxed file is encrypted for other recipients than the site's certificates", _MUX_AGAIN
    ),
    FindingKind.LABEL_MISSING: KindText("the call recording lacks the label of muxed recordings", "--repair adds it"),
    FindingKind.SOURCE_MISSING: KindText(
        "a source file is missing in its storage",
        "Restore it from a backup. The muxed file, if there is one, cannot be made again without it",
    ),
    FindingKind.SOURCE_DAMAGED: KindText(
        "a source file is damaged", "Restore the source from a backup; the muxed file was not changed"
    ),
    FindingKind.SUPERSEDED_LEFT: KindText(
        "a superseded muxed file is left", "--repair deletes it, after it has checked that its replacement is published"
    ),
    FindingKind.PUBLISHED_TWICE: KindText(
        "several muxed files of the same sources are published", "--repair keeps one that is right, and deletes the others"
    ),
    FindingKind.DAMAGED: KindText("the muxed file differs from what its sources give", _MUX_AGAIN),
    FindingKind.ORPHAN: KindText(
        "no metadata name this muxed file", "Delete it with --delete-orphans, a week after it was stored"
    ),
    FindingKind.UNCHECKED: KindText("this could not be checked", "Remove the cause that is stated, and run the audit again"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. `file` is a mediaId or a location, empty when it is about the whole recording.

    `target` is the name of the muxed file that the recording should have, for a repair. `started` is when the call began, in
    epoch seconds, None when unknown.
    """

    kind: FindingKind
    recording: str
    file: str
    detail: str
    target: str = ""
    started: float | None = None
