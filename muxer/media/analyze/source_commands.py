"""The ffmpeg commands that turn a source into a form whose samples can be copied. Pure."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from muxer.media.ffmpeg import (
    MP4_OPTIONS,
    PROGRESS_OPTIONS,
    QUIET_OPTIONS,
    TOLERANT_OPTIONS,
    MediaTools,
    VideoTarget,
    decoding_options,
    encoder_options,
    fit_filters,
    input_options,
)
from muxer.media.media_info import MediaInfo, Video, canvas_size, require_video
from muxer.media.mp4 import TIMESCALE


def scan_command(tools: MediaTools, source: MediaInfo) -> list[str]:
    """Return the command that decodes a screen file whole, and prints a line for each frame: stream, dts, pts and more."""
    video = require_video(source)
    # Frames are handed on as they lie in memory: only their times are looked at.
    times = [*tools.keep_times, "-enc_time_base:v", f"1:{TIMESCALE}", "-c:v", "wrapped_avframe"]
    command = [
        tools.ffmpeg,
        *QUIET_OPTIONS,
        *TOLERANT_OPTIONS,
        *decoding_options(source),
        *input_options(source.path),
        "-map",
        f"0:{video.stream_index}",
    ]
    return [*command, *times, "-f", "framecrc", "-"]


def retime_command(tools: MediaTools, source: Path, video: Video, step: Fraction, output: Path) -> list[str]:
    """Return the command that re-encodes all frames of a screen file that does not say when they are shown, evenly spaced.

    ``step`` is the time from one frame to the next, in seconds.
    """
    width, height = video.orientation.shown_size(*canvas_size([video]))
    target = VideoTarget(width, height, "yuv420p", "high", 1 / step, orientation=video.orientation)
    distance = step * TIMESCALE
    times = f"settb=1/{TIMESCALE},setpts=round(N*{distance.numerator}/{distance.denominator})"
    filters = ",".join((times, *fit_filters(video, target)))
    command = [
        tools.ffmpeg,
        *QUIET_OPTIONS,
        *PROGRESS_OPTIONS,
        "-noautorotate",
        *input_options(source),
        "-map",
        f"0:{video.stream_index}",
    ]
    return [*command, "-vf", filters, *encoder_options(tools, target), str(output)]


def copy_audio_command(tools: MediaTools, audio: Path, output: Path) -> list[str]:
    """Return the command that copies the audio of a call's file into an MP4 file."""
    command = [tools.ffmpeg, *QUIET_OPTIONS, *input_options(audio), "-map", "0:a:0", "-c:a", "copy"]
    # MP3 below 16 kHz and FLAC are refused in MP4 without it; both play in browsers.
    return [*command, "-strict", "-2", *MP4_OPTIONS, str(output)]


def remux_command(tools: MediaTools, source: Path, video: Video, output: Path) -> list[str]:
    """Return the command that copies one video stream of a file, H.264, alone, into an MP4 file."""
    command = [tools.ffmpeg, *QUIET_OPTIONS, *input_options(source), "-map", f"0:{video.stream_index}", "-c", "copy"]
    # The lengths before pictures then have four bytes, whatever they had.
    return [*command, "-bsf:v", "h264_mp4toannexb", *MP4_OPTIONS, str(output)]


def continue_command(tools: MediaTools, source: Path, video: Video, output: Path) -> list[str]:
    """Return the command that copies one video stream into a Matroska file in which times never go back."""
    # Matroska takes no packet without a time, and a program stream has some.
    command = [
        tools.ffmpeg,
        *QUIET_OPTIONS,
        "-fflags",
        "+genpts",
        *input_options(source),
        "-map",
        f"0:{video.stream_index}",
        "-c",
        "copy",
    ]
    return [*command, "-map_metadata", "-1", "-map_chapters", "-1", "-f", "matroska", str(output)]


def salvage_command(tools: MediaTools, source: Path, form: str, output: Path) -> list[str]:
    """Return the command that copies what is there of the file at `source`, which breaks off, into the file `output`.

    `form` is the form of both, as :func:`muxer.media.completeness.form_of` names it. Times stay as they are.
    """
    # The form of MOV holds whatever codec an MP4 file may hold, and more.
    form, options = ("mov", ["-write_tmcd", "0"]) if form == "mp4" else (form, [])
    command = [tools.ffmpeg, *QUIET_OPTIONS, "-fflags", "+discardcorrupt", "-copyts", *input_options(source)]
    command += ["-map", "0:v?", "-map", "0:a?", "-c", "copy", "-map_metadata", "-1", "-map_chapters", "-1", *options]
    return [*command, "-strict", "-2", "-f", form, str(output)]
