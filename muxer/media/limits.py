"""Limits on media files, so that a harmful one fails early. Our decision: far above a day's work. Pure."""

from __future__ import annotations

from muxer.errors import Code, MediaError

# ffmpeg's demuxers of containers that contain their media; the others refer to further files, which ffmpeg would read.
INPUT_FORMATS = (
    *("mov", "matroska", "avi", "asf", "flv", "ogg", "mpegts", "mpeg", "h264", "ivf", "mxf", "nut", "rm", "dv"),
    *("mp3", "aac", "wav", "flac", "amr", "au", "w64", "caf", "aiff", "ac3", "eac3", "loas", "voc", "wv"),
    *("dts", "tta", "sox", "ircam"),
)
# Two days at some 58 frames a second.
MAX_FRAMES = 10_000_000
MAX_LENGTH_SECONDS = 48 * 3600
# The time limit of a program that decodes a file: for any file, the frames a second that a slow machine decodes, and in all,
# because a program that hangs occupies a worker.
DECODE_SECONDS, MIN_DECODED_PER_SECOND, MAX_DECODE_SECONDS = 1800.0, 20, 4 * 3600.0
# The largest frame of H.264, level 6.2 (ISO/IEC 14496-10, table A-1), which is also the largest that libx264 encodes.
MAX_SIDE, MAX_PIXELS = 16_384, 139_264 * 256


def reading_options() -> list[str]:
    """Return the options of ffmpeg and ffprobe before an input: only files of known containers are opened."""
    return ["-protocol_whitelist", "file", "-format_whitelist", ",".join(INPUT_FORMATS)]


def check_frames(count: int) -> None:
    """Raise MediaError when a file has more frames, or audio packets, than any recording."""
    if count > MAX_FRAMES:
        raise MediaError(f"the file has {count} frames or more; at most {MAX_FRAMES} are read", code=Code.TOO_MUCH)


def decoding_seconds(frames: int) -> float:
    """Return the time limit, in seconds, of a program that decodes files with `frames` frames in all."""
    return min(DECODE_SECONDS + frames / MIN_DECODED_PER_SECOND, MAX_DECODE_SECONDS)


def check_length(microseconds: int) -> None:
    """Raise MediaError when a file lasts longer than any recording."""
    if microseconds > MAX_LENGTH_SECONDS * 1_000_000:
        raise MediaError(
            f"the file lasts {microseconds / 3.6e9:.1f} h; at most {MAX_LENGTH_SECONDS // 3600} h are muxed",
            code=Code.TOO_MUCH,
        )


def check_frame_size(width: int, height: int) -> None:
    """Raise MediaError when frames have no size, or one that no encoder supports."""
    if width < 1 or height < 1:
        raise MediaError(f"the frames have no size ({width}x{height})", code=Code.NO_VIDEO)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        limit = f"{MAX_SIDE} in a direction, {MAX_PIXELS} in all"
        raise MediaError(
            f"the frames are too large ({width}x{height}); at most {limit} pixels can be encoded", code=Code.TOO_MUCH
        )
