"""Sources that can be copied as they are: screen files that are plain MP4 with H.264, and sound in a plain MP4 file."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from muxer.media.mp4 import avc, boxes
from muxer.media.mp4.avc import AvcError
from muxer.media.mp4.boxes import BoxError
from muxer.media.mp4.ordering import is_increasing, sorted_copy
from muxer.media.mp4.tracks import Track, read_tracks
from muxer.media.probe import MIN_START_OFFSET_US, MediaInfo, Packets, Video

_VIDEO_FIELDS, _SOUND_FIELDS = 78, 28
# As much as any parameter set needs.
_UNIT_HEAD_BYTES = 512
_EDIT_LIST_ROUNDING = 500
# Sound that begins later than this part of a second is put right.
_LATE_START_DIVISOR = 20
_OBJECT_TYPES = {0x40: "aac", 0x69: "mp3", 0x6B: "mp3"}


@dataclass(frozen=True)
class CopyableAudio:
    """The call's audio, ready to be copied: the file it lies in, its track, its codec by ffmpeg's name, and how many ticks
    at its end are no sound."""

    path: Path
    track: Track
    codec: str
    padding: int = 0

    @property
    def length_us(self) -> int:
        """How long the sound lasts when it is played, in microseconds."""
        track = self.track
        held = track.total_ticks - track.skipped - self.padding
        # The edit list counts in milliseconds.
        cut = track.shown and held - track.shown > track.timescale // _EDIT_LIST_ROUNDING
        return round(Fraction((track.shown if cut else held) * 1_000_000, track.timescale))

    @property
    def has_gaps(self) -> bool:
        """Whether any sample but the last lasts clearly longer than most, or the first one begins clearly late: there the
        file says nothing of what is heard."""
        if self.track.delay * _LATE_START_DIVISOR > self.track.timescale:
            return True
        durations = self.track.durations[:-1]
        if not durations:
            return False
        [(usual, _)] = Counter(durations).most_common(1)
        return max(durations) > usual * 3 // 2


def read_copyable_screen(path: Path) -> MediaInfo | None:
    """Return what a screen file holds when its frames can be copied as they are; None when ffmpeg has to convert it first.

    Of several tracks the only one with frames counts: beside it there may be sound, time codes, chapters or subtitles.
    Raise :class:`MediaError` when the file is truncated.
    """
    try:
        tracks = read_tracks(path)
        videos = [number for number, track in enumerate(tracks) if track.handler == b"vide" and track.sizes]
        if len(videos) != 1:
            return None
        with path.open("rb") as file:
            found = _read_video_track(path, file, tracks[videos[0]], videos[0])
    except (BoxError, AvcError):
        return None
    sounds = [track for track in tracks if track.handler == b"soun" and track.sizes]
    if found is None or not sounds:
        return found
    # What is empty at first counts from the sound on, if there is some.
    began = min(found.start_us, *(round(Fraction(one.delay * 1_000_000, one.timescale)) for one in sounds))
    late = found.start_us - began
    return replace(found, audio_only_us=late if late >= MIN_START_OFFSET_US else 0, empty_us=0)


def read_copyable_audio(path: Path) -> CopyableAudio | None:
    """Given the path of an MP4 file, return its audio track; None when there is none that can be copied."""
    try:
        track = next((one for one in read_tracks(path) if one.handler == b"soun" and one.sizes), None)
        if track is None:
            return None
        with path.open("rb") as file:
            return CopyableAudio(path, track, _audio_codec(track, file))
    except BoxError:
        return None


def _read_video_track(path: Path, file: BinaryIO, track: Track, index: int) -> MediaInfo | None:
    kind, description = track.description
    if kind != b"avc1":
        return None
    about = memoryview(description)[_VIDEO_FIELDS:]
    stream = avc.read_config(bytes(boxes.require_child(about, b"avcC")))
    if not stream.square or _has_nonsquare_pixels(about):
        return None
    decoded = track.decode_times
    shown = decoded if track.shifts is None else array("q", map(int.__add__, decoded, track.shifts))
    begin = min(shown)
    if track.skipped > begin or not is_increasing(sorted_copy(shown)):
        return None
    kept = _count_kept(track, shown)
    if kept < len(shown) and not is_increasing(shown):
        return None
    lasts = _display_durations(track, shown, kept)
    if track.pauses:
        shown = array("q", (one + sum(pause.length for pause in track.pauses if one >= pause.at) for one in shown))
    origin = track.skipped - track.delay
    keys = _instant_keyframes(file, track, stream.sets)
    pts = array("q", (one - origin for one in shown))
    packets = Packets(
        pts=pts,
        dts=pts if shown is decoded else array("q", (one - origin for one in decoded)),
        durations=lasts,
        keys=keys,
        sizes=track.sizes,
        offsets=track.offsets,
    )
    packets = packets.select_packets(range(kept)) if kept < len(shown) else packets
    packets = packets.from_keyframe(track.sync[0] if track.sync else 0)
    entry = {
        "index": str(index),
        "codec_name": "h264",
        "profile": stream.profile,
        "width": str(stream.width),
        "height": str(stream.height),
        "pix_fmt": "yuvj420p" if stream.full_range else "yuv420p",
        "sample_aspect_ratio": "1:1",
        "time_base": f"1/{track.timescale}",
        "r_frame_rate": str(_usual_rate(track)),
    }
    video = Video(entry, packets, stream, track.orientation)
    start_us, empty_us = video.ticks_to_us(begin - origin), video.ticks_to_us(track.delay)
    lost_us = video.ticks_to_us(video.first_pts) - start_us
    return MediaInfo(path, "mp4", start_us, 1, video, None, empty_us=empty_us, lost_us=lost_us, paused=bool(track.pauses))


def _count_kept(track: Track, shown: Sequence[int]) -> int:
    """Return how many of the frames the edit list leaves at the end; ``shown`` are their times, in any order."""
    end = track.skipped + track.shown
    return sum(one < end for one in shown) if track.shown and end <= max(shown) else len(shown)


def _display_durations(track: Track, shown: Sequence[int], kept: int) -> array[int]:
    """Return how long each sample is displayed, as far as it matters: that of the last of the ``kept`` ones counts."""
    lasts = array("q", track.durations)
    last = max(range(kept), key=shown.__getitem__)
    if kept < len(shown):
        lasts[last] = track.skipped + track.shown - shown[last]
    elif track.shifts is not None:
        # The sum of all durations is that of what is displayed, too, or more; that of a single sample is when it is decoded.
        ends = [min(shown) + track.total_ticks, *([track.skipped + track.shown] if track.shown else [])]
        lasts[last] = max(1, min(ends) - shown[last])
    lasts[last] += sum(pause.length for pause in track.pauses if pause.at > shown[last])
    return lasts


def _usual_rate(track: Track) -> Fraction:
    """Return the frame rate that most frames have, in frames a second."""
    [(duration, _)] = Counter(track.durations).most_common(1)
    return Fraction(track.timescale, duration or track.timescale)


def _has_nonsquare_pixels(about: memoryview) -> bool:
    ratio = boxes.find_child(about, b"pasp")
    return ratio is not None and boxes.read_number(ratio, 0, 4) != boxes.read_number(ratio, 4, 4)


def _instant_keyframes(file: BinaryIO, track: Track, sets: Sequence[bytes]) -> bytearray:
    """Return a flag for each sample: whether decoding can begin there with other parameter sets than before (IDR).

    Raise :class:`AvcError` when there are sets within the file that differ from those of the whole.
    """
    keys = bytearray(len(track.sizes))
    for number in range(len(track.sizes)) if track.sync is None else track.sync:
        kind = 0
        for unit in _unit_heads(file, track.offsets[number], track.sizes[number]):
            kind = unit[0] & 31
            if kind in (avc.SEQUENCE_SET, avc.PICTURE_SET) and unit not in sets:
                raise AvcError("the parameter sets change within the file")
        keys[number] = kind == avc.IDR
    return keys


def _unit_heads(file: BinaryIO, offset: int, size: int) -> Iterator[bytes]:
    """Yield the beginnings of a sample's units, parameter sets whole, up to its first slice."""
    end = offset + size
    while offset + avc.UNIT_LENGTH_BYTES < end:
        file.seek(offset)
        head = file.read(_UNIT_HEAD_BYTES)
        length = int.from_bytes(head[: avc.UNIT_LENGTH_BYTES], "big")
        unit = head[avc.UNIT_LENGTH_BYTES :][:length]
        if unit:
            yield unit
        if unit and unit[0] & 31 not in avc.UNITS_BEFORE_SLICES:
            return
        offset += avc.UNIT_LENGTH_BYTES + length


def _audio_codec(track: Track, file: BinaryIO) -> str:
    """Return the codec of an audio track by ffmpeg's name, or the kind of its description when browsers do not play it."""
    kind, description = track.description
    if kind == b"Opus":
        return "opus"
    if kind == b"fLaC":
        return "flac"
    if kind != b"mp4a":
        return kind.decode("ascii", "replace").strip()
    codec = _OBJECT_TYPES.get(
        _object_type(bytes(boxes.require_child(memoryview(description)[_SOUND_FIELDS:], b"esds"))), "mp4a"
    )
    if codec != "mp3":
        return codec
    file.seek(track.offsets[0])
    head = file.read(2)
    # Layer II has the same object type as layer III.
    return "mp3" if len(head) == 2 and head[1] & 0x06 == 0x02 else "mp2"


def _object_type(esds: bytes) -> int:
    """Given the content of an esds box, return the object type of its stream (ISO/IEC 14496-1)."""
    position = 4
    for tag, fields in ((3, 3), (4, 0)):
        if position >= len(esds) or esds[position] != tag:
            raise BoxError("an esds box is broken")
        position += 1
        while position < len(esds) and esds[position] & 0x80:
            position += 1
        position += 1 + fields
    if position >= len(esds):
        raise BoxError("an esds box is broken")
    return esds[position]
