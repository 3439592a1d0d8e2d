"""Sources that can be copied as they are: screen files that are plain MP4 with H.264, and sound in a plain MP4 file."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from muxer.media.analyze.probe import MIN_START_OFFSET_US
from muxer.media.media_info import MediaInfo, Packets, Video
from muxer.media.mp4 import (
    AvcError,
    BoxError,
    CopyableAudio,
    Track,
    find_idr_samples,
    is_increasing,
    read_audio_codec,
    read_avc_config,
    read_tracks,
    sorted_copy,
)


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
            return CopyableAudio(path, track, read_audio_codec(track, file))
    except BoxError:
        return None


def _read_video_track(path: Path, file: BinaryIO, track: Track, index: int) -> MediaInfo | None:
    stream = read_avc_config(track)
    if stream is None:
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
    keys = find_idr_samples(file, track, stream.sets)
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
