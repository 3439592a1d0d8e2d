"""Recordings and media files of RWS (gir-api, sections 3 to 5). Unknown fields are kept and passed on. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeGuard
from urllib.parse import unquote

from muxer.errors import Code, MetadataError
from muxer.system.iso_time import parse_time

Json = Mapping[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# A recording of hours has some hundred; every audio file is compared with every screen file (our decision).
MAX_MEDIA_FILES = 2000
_MAX_BYTES = 1 << 60


def to_microseconds(time: datetime) -> int:
    """Return the microseconds since 1970 of an aware time, exactly."""
    return (time - _EPOCH) // _MICROSECOND


def format_time(time: datetime) -> str:
    """Format an aware time as RWS does, in UTC with milliseconds."""
    utc = time.astimezone(UTC)
    return f"{utc:%Y-%m-%dT%H:%M:%S}.{utc.microsecond // 1000:03d}+0000"


@dataclass(frozen=True)
class MediaFile:
    """One media file of a call or screen recording."""

    raw: Json
    media_id: str
    type: str
    start: datetime | None
    stop: datetime | None

    @classmethod
    def from_json(cls, raw: Json) -> MediaFile:
        """Parse a media file. One without a mediaId is unusable, but must not be lost."""
        named = raw.get("mediaId")
        media_id = named if _is_url_safe_id(named) else ""
        start, stop = parse_time(raw.get("startTime")), parse_time(raw.get("stopTime"))
        if start and stop and stop <= start:
            stop = None
        return cls(raw, media_id, _to_text(raw.get("type")).lower(), start, stop)

    @property
    def _parameters(self) -> Json:
        return _to_mapping(self.raw.get("parameters"))

    @property
    def agent_contact(self) -> Json:
        """The agent in the metadata, empty when unknown."""
        return _to_mapping(self._parameters.get("contact"))

    @property
    def agent_name(self) -> str:
        """The agent's user name; empty when unknown."""
        return _to_text(self.agent_contact.get("userName"))

    @property
    def region(self) -> str:
        """The region under the file's parameters; empty when unknown."""
        return _to_text(self._parameters.get("region"))

    @property
    def muxed_from(self) -> tuple[str, ...] | None:
        """The mediaIds of the sources of a muxed file, None for a source. A text is a comma-separated list of ids."""
        ids = self._parameters.get("muxed_mediaIds")
        if isinstance(ids, str):
            ids = [one.strip() for one in ids.split(",")]
        return None if ids is None else tuple(map(_to_text, ids)) if isinstance(ids, list) else ()

    @property
    def pkcs7_envelope(self) -> str | None:
        """The PEM envelope of an encrypted file, None for a clear one."""
        value = self.raw.get("pkcs7")
        return value if isinstance(value, str) and value.strip() else None

    @property
    def is_encrypted(self) -> bool:
        """Whether it is encrypted, by its envelope, its aliases or the suffix of its name."""
        return bool(self.pkcs7_envelope or self.raw.get("certAlias")) or any(
            name.lower().endswith(".bin") for name in self.known_names
        )

    @property
    def media_descriptor(self) -> Json | None:
        """The location of the file, None when only RWS can deliver it."""
        value = self.raw.get("originalMediaDescriptor") or self.raw.get("mediaDescriptor")
        return value if isinstance(value, Mapping) and value else None

    @property
    def known_names(self) -> frozenset[str]:
        """Its mediaId, and the file name in its descriptor."""
        path = (self.media_descriptor or {}).get("path")
        file = path.rstrip("/").rpartition("/")[2] if isinstance(path, str) else ""
        return frozenset((self.media_id, file, unquote(file))) - {""}

    @property
    def stated_size(self) -> int:
        """The length in bytes according to the metadata, which may be wrong; 0 when unknown."""
        try:
            return min(max(0, int(_to_text(self.raw.get("size")))), _MAX_BYTES)
        except ValueError:
            return 0

    @property
    def media_uri(self) -> str | None:
        """The address of the same media through RWS, None when there is none."""
        value = self.raw.get("mediaUri") or self.raw.get("mediaPath")
        return value if isinstance(value, str) and value and is_encodable(value) else None

    @property
    def relative_paths(self) -> tuple[str, ...]:
        """Its mediaPath and mediaUri where these are relative, without a slash in front."""
        values = [self.raw.get(name) for name in ("mediaPath", "mediaUri")]
        texts = [one for one in values if isinstance(one, str) and is_encodable(one) and "://" not in one]
        return tuple(dict.fromkeys(one.lstrip("/") for one in texts if one.strip("/")))

    def overlaps_with(self, other: MediaFile) -> bool:
        """Whether the times of the two files overlap; a file with an unknown end has no end."""
        if self.start is None or other.start is None:
            return False
        return (other.stop is None or self.start < other.stop) and (self.stop is None or other.start < self.stop)


@dataclass(frozen=True)
class CallRecording:
    """A call recording with its audio files; `start` is that of the metadata, or of the first audio file."""

    id: str
    region: str
    audio: tuple[MediaFile, ...]
    labels: frozenset[str]
    start: datetime | None = None

    @classmethod
    def from_json(cls, raw: object) -> CallRecording:
        """Parse a call recording. Raises MetadataError when it has no usable id, or too many media files."""
        recording = _to_mapping(raw)
        audio = tuple(one for one in _media_files(recording) if one.media_id and one.type.startswith("audio/"))
        starts = (parse_time(recording.get("startTime")), *(one.start for one in audio))
        start = next((one for one in starts if one is not None), None)
        region = _to_text(recording.get("region"))
        return cls(recording_id(recording), region, audio, _label_names(recording), start)


@dataclass(frozen=True)
class ScreenRecording:
    """The screen recording of a call: screen files of its agents, and muxed files."""

    id: str
    region: str
    media: tuple[MediaFile, ...]

    @classmethod
    def from_json(cls, raw: object) -> ScreenRecording:
        """Parse a screen recording. Raises MetadataError when it has no usable id, or too many media files."""
        recording = _to_mapping(raw)
        return cls(recording_id(recording), _to_text(recording.get("region")), tuple(_media_files(recording)))

    @property
    def screen_files(self) -> tuple[MediaFile, ...]:
        """The screen files, each mediaId once, without the muxed ones."""
        by_id = {one.media_id: one for one in self.media if one.type.startswith("video/") and one.muxed_from is None}
        by_id.pop("", None)
        return tuple(by_id.values())

    @property
    def muxed_files(self) -> tuple[MediaFile, ...]:
        """The muxed files."""
        return tuple(one for one in self.media if one.media_id and one.muxed_from is not None)


def recording_id(raw: Json) -> str:
    """Return the id of a recording. Raises MetadataError when it cannot be used in a URL."""
    value = raw.get("id")
    if not _is_url_safe_id(value):
        raise MetadataError(f"a recording has no usable id: {_to_text(value)[:80]!r}")
    return value


def merge_recordings(recordings: Iterable[ScreenRecording]) -> dict[str, ScreenRecording]:
    """Return screen recordings by id; the media of duplicates are merged."""
    by_id: dict[str, ScreenRecording] = {}
    for recording in recordings:
        earlier = by_id.get(recording.id)
        if earlier is not None:
            known = {one.media_id for one in earlier.media}
            media = earlier.media + tuple(one for one in recording.media if one.media_id not in known or not one.media_id)
            recording = ScreenRecording(recording.id, earlier.region or recording.region, media)
        by_id[recording.id] = recording
    return by_id


def _media_files(recording: Json) -> list[MediaFile]:
    files = recording.get("mediaFiles")
    if not isinstance(files, list):
        return []
    if len(files) > MAX_MEDIA_FILES:
        named = _to_text(recording.get("id"))[:80]
        raise MetadataError(
            f"{named} has {len(files)} media files; at most {MAX_MEDIA_FILES} are processed", code=Code.TOO_MUCH
        )
    return [MediaFile.from_json(one) for one in files if isinstance(one, Mapping)]


def _label_names(recording: Json) -> frozenset[str]:
    labels = recording.get("labels")
    if not isinstance(labels, list):
        return frozenset()
    return frozenset(_to_text(one.get("name") if isinstance(one, Mapping) else one) for one in labels)


def _is_url_safe_id(value: object) -> TypeGuard[str]:
    """Whether an id can be used in a URL: ``.`` and ``..`` would name a parent, and JSON may contain lone surrogates."""
    return isinstance(value, str) and value not in ("", ".", "..") and is_encodable(value)


def is_encodable(value: str) -> bool:
    """Whether a text can be encoded: JSON may contain lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _to_text(value: object) -> str:
    """Return a text or number as an encodable text, empty for anything else."""
    if not isinstance(value, str | int | float) or not value:
        return ""
    return str(value).encode(errors="backslashreplace").decode()


def _to_mapping(value: object) -> Json:
    return value if isinstance(value, Mapping) else {}
