"""What a media file may be, so that one that was made to do harm fails with a clear error before it costs much. Pure.

The files come from whoever can write metadata or the storage. The numbers are our decision: far above a day's work.
"""

from __future__ import annotations

from muxer.errors import Code, MediaError

# Containers that hold their media themselves. Playlists, concat lists, SDP, image series and devices are not among them:
# they name other files, and ffmpeg would read those. The names are those of ffmpeg's demuxers.
INPUT_FORMATS = (
    *("mov", "matroska", "avi", "asf", "flv", "ogg", "mpegts", "mpeg", "h264"),
    *("mp3", "aac", "wav", "flac", "amr", "au", "w64", "caf", "aiff", "ac3", "eac3", "loas", "voc", "wv"),
)
# Two days at some 58 frames a second.
MAX_FRAMES = 10_000_000
MAX_LENGTH_SECONDS = 48 * 3600
# The largest picture of H.264, level 6.2 (ISO/IEC 14496-10, table A-1), which is also the largest that libx264 makes.
MAX_SIDE, MAX_PIXELS = 16_384, 139_264 * 256


def reading_options() -> list[str]:
    """Return the options of ffmpeg and ffprobe that stand before an input: nothing but a file of a known form is opened."""
    return ["-protocol_whitelist", "file", "-format_whitelist", ",".join(INPUT_FORMATS)]


def check_frames(count: int) -> None:
    """Raise :class:`MediaError` when a file has more frames, or packets of sound, than any recording."""
    if count > MAX_FRAMES:
        raise MediaError(f"the file has {count} frames or more; at most {MAX_FRAMES} are read", code=Code.TOO_MUCH)


def check_length(microseconds: int) -> None:
    """Raise :class:`MediaError` when a file lasts longer than any recording."""
    if microseconds > MAX_LENGTH_SECONDS * 1_000_000:
        raise MediaError(
            f"the file lasts {microseconds / 3.6e9:.1f} h; at most {MAX_LENGTH_SECONDS // 3600} h are muxed",
            code=Code.TOO_MUCH,
        )


def check_frame_size(width: int, height: int) -> None:
    """Raise :class:`MediaError` when pictures have no size, or one that no encoder takes."""
    if width < 1 or height < 1:
        raise MediaError(f"the pictures have no size ({width}x{height})", code=Code.NO_VIDEO)
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        most = f"{MAX_SIDE} in a direction, {MAX_PIXELS} in all"
        raise MediaError(
            f"the pictures are too large ({width}x{height}); at most {most} pixels can be encoded", code=Code.TOO_MUCH
        )
