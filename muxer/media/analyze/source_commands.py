"""The ffmpeg commands that read sources, or convert them so that their samples can be copied. Pure."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from muxer.media.ffmpeg import (
    FIRST_AUDIO,
    KEEP_PAUSES,
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
from muxer.media.mp4 import TIMESCALE, to_ticks


def scan_command(tools: MediaTools, source: MediaInfo) -> list[str]:
    """Return the command that decodes a whole screen file and prints a line for each frame: stream, dts, pts and more."""
    video = require_video(source)
    # Frames are passed on uncoded: only their times are used.
    times = [*tools.keep_times, "-enc_time_base:v", f"1:{TIMESCALE}", "-c:v", "wrapped_avframe"]
    command = [tools.ffmpeg, *QUIET_OPTIONS, *TOLERANT_OPTIONS, *decoding_options(source), *input_options(source.path)]
    return [*command, "-map", f"0:{video.stream_index}", *times, "-f", "framecrc", "-"]


def retime_command(tools: MediaTools, source: Path, video: Video, times: str, rate: Fraction, output: Path) -> list[str]:
    """Return the command that re-encodes a screen file with other times: `times` is the expression in ticks of 1/90000 s."""
    width, height = video.orientation.shown_size(*canvas_size([video]))
    target = VideoTarget(width, height, "yuv420p", "high", rate, orientation=video.orientation)
    filters = ",".join((f"settb=1/{TIMESCALE},setpts={times}", *fit_filters(video, target)))
    command = [tools.ffmpeg, *QUIET_OPTIONS, *PROGRESS_OPTIONS, "-noautorotate", *input_options(source)]
    command += ["-map", f"0:{video.stream_index}", "-vf", filters]
    return [*command, *encoder_options(tools, target), str(output)]


def even_times(step: Fraction) -> str:
    """Return the expression for frames that are `step` seconds apart."""
    distance = step * TIMESCALE
    return f"round(N*{distance.numerator}/{distance.denominator})"


def distinct_times(distance_us: int) -> str:
    """Return the expression for frames at their own times, but at least `distance_us` microseconds apart."""
    return f"if(N\\,max(PTS-STARTPTS\\,PREV_OUTPTS+{to_ticks(distance_us)})\\,0)"


def copy_audio_command(tools: MediaTools, audio: Path, output: Path, stream: str = FIRST_AUDIO) -> list[str]:
    """Return the command that copies an audio stream of a call's file into an MP4 file."""
    command = [tools.ffmpeg, *QUIET_OPTIONS, *KEEP_PAUSES, *input_options(audio), "-map", stream, "-c:a", "copy"]
    # ffmpeg rejects MP3 below 16 kHz and FLAC in MP4 without it; both play in browsers.
    return [*command, "-strict", "-2", *MP4_OPTIONS, str(output)]


def remux_command(tools: MediaTools, source: Path, video: Video, output: Path) -> list[str]:
    """Return the command that copies one H.264 stream of a file into a separate MP4 file."""
    command = [tools.ffmpeg, *QUIET_OPTIONS, *input_options(source), "-map", f"0:{video.stream_index}", "-c", "copy"]
    # The NAL unit lengths then have four bytes, and the sample entry has the parameter sets, also those of avc3.
    return [*command, "-bsf:v", "h264_mp4toannexb", "-tag:v", "avc1", *MP4_OPTIONS, str(output)]


def continue_command(tools: MediaTools, source: Path, video: Video, output: Path) -> list[str]:
    """Return the command that copies one video stream into a Matroska file in which times never go back."""
    # Matroska rejects packets without a time, which program streams contain.
    command = [tools.ffmpeg, *QUIET_OPTIONS, *KEEP_PAUSES, "-fflags", "+genpts", *input_options(source)]
    command += ["-map", f"0:{video.stream_index}", "-c", "copy"]
    return [*command, "-map_metadata", "-1", "-map_chapters", "-1", "-f", "matroska", str(output)]


def salvage_command(tools: MediaTools, source: Path, form: str, output: Path) -> list[str]:
    """Return the command that copies the readable part of a truncated file into the container `form`."""
    options = ["-write_tmcd", "0"] if form in ("mov", "mp4") else []
    command = [tools.ffmpeg, *QUIET_OPTIONS, "-fflags", "+discardcorrupt", "-copyts", *input_options(source)]
    command += ["-map", "0:v?", "-map", "0:a?", "-c", "copy", "-map_metadata", "-1", "-map_chapters", "-1", *options]
    return [*command, "-strict", "-2", "-f", form, str(output)]
