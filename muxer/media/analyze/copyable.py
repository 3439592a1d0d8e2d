"""Read sources that can be copied: screen files with H.264 in a simple MP4 file, and audio in an MP4 file."""

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
    """Read `path` as a copyable screen file; None when ffmpeg has to convert it. Raises MediaError when truncated."""
    try:
        tracks = read_tracks(path)
        videos = [number for number, track in enumerate(tracks) if track.handler == b"vide" and track.sizes]
        if len(videos) != 1:
            return None
        with path.open("rb") as file:
            screen = _read_video_track(path, file, tracks[videos[0]], videos[0])
    except (BoxError, AvcError):
        return None
    audio_tracks = [track for track in tracks if track.handler == b"soun" and track.sizes]
    if screen is None or not audio_tracks:
        return screen
    # With audio, the empty beginning counts from its start.
    begin_us = min(screen.start_us, *(round(Fraction(track.delay * 1_000_000, track.timescale)) for track in audio_tracks))
    audio_only_us = screen.start_us - begin_us
    return replace(screen, audio_only_us=audio_only_us if audio_only_us >= MIN_START_OFFSET_US else 0, empty_us=0)


def read_copyable_audio(path: Path) -> CopyableAudio | None:
    """Read the audio track of the MP4 file at `path`. Returns None when there is none that can be copied."""
    try:
        track = next((track for track in read_tracks(path) if track.handler == b"soun" and track.sizes), None)
        if track is None:
            return None
        with path.open("rb") as file:
            return CopyableAudio(path, track, read_audio_codec(track, file))
    except BoxError:
        return None


def _read_video_track(path: Path, file: BinaryIO, track: Track, index: int) -> MediaInfo | None:
    config = read_avc_config(track)
    if config is None:
        return None
    decode_times = track.decode_times
    shown = decode_times if track.shifts is None else array("q", map(int.__add__, decode_times, track.shifts))
    begin = min(shown)
    if track.skipped > begin or not is_increasing(sorted_copy(shown)):
        return None
    kept_count = _count_kept(track, shown)
    if kept_count < len(shown) and not is_increasing(shown):
        return None
    durations = _display_durations(track, shown, kept_count)
    if track.pauses:
        shown = array("q", (time + sum(pause.length for pause in track.pauses if time >= pause.at) for time in shown))
    origin = track.skipped - track.delay
    idr_flags = find_idr_samples(file, track, config.sets)
    pts = array("q", (time - origin for time in shown))
    packets = Packets(
        pts=pts,
        dts=pts if shown is decode_times else array("q", (time - origin for time in decode_times)),
        durations=durations,
        keys=idr_flags,
        sizes=track.sizes,
        offsets=track.offsets,
    )
    packets = packets.select_packets(range(kept_count)) if kept_count < len(shown) else packets
    packets = packets.from_keyframe(track.sync[0] if track.sync else 0)
    entry = {
        "index": str(index),
        "codec_name": "h264",
        "profile": config.profile,
        "width": str(config.width),
        "height": str(config.height),
        "pix_fmt": "yuvj420p" if config.full_range else "yuv420p",
        "sample_aspect_ratio": "1:1",
        "time_base": f"1/{track.timescale}",
        "r_frame_rate": str(_usual_rate(track)),
    }
    video = Video(entry, packets, config, track.orientation)
    start_us, empty_us = video.ticks_to_us(begin - origin), video.ticks_to_us(track.delay)
    lost_us = video.ticks_to_us(video.first_pts) - start_us
    return MediaInfo(path, "mp4", start_us, 1, video, None, empty_us=empty_us, lost_us=lost_us, paused=bool(track.pauses))


def _count_kept(track: Track, shown: Sequence[int]) -> int:
    """Return how many frames remain when the edit list cuts off the end. `shown` are their times, in any order."""
    end = track.skipped + track.shown
    return sum(time < end for time in shown) if track.shown and end <= max(shown) else len(shown)


def _display_durations(track: Track, shown: Sequence[int], kept_count: int) -> array[int]:
    """Return the durations of the samples; only that of the last of `kept_count` frames must be exact."""
    durations = array("q", track.durations)
    last = max(range(kept_count), key=shown.__getitem__)
    if kept_count < len(shown):
        durations[last] = track.skipped + track.shown - shown[last]
    elif track.shifts is not None:
        # With B-frames, a duration is that until the next decoding time; only the sum is (at most) the displayed time.
        ends = [min(shown) + track.total_ticks, *([track.skipped + track.shown] if track.shown else [])]
        durations[last] = max(1, min(ends) - shown[last])
    durations[last] += sum(pause.length for pause in track.pauses if pause.at > shown[last])
    return durations


def _usual_rate(track: Track) -> Fraction:
    [(duration, _)] = Counter(track.durations).most_common(1)
    return Fraction(track.timescale, duration or track.timescale)
