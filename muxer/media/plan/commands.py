"""The ffmpeg commands of a plan: they encode pieces, and decode what is verified. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from muxer.media.ffmpeg import (
    PROGRESS_OPTIONS,
    QUIET_OPTIONS,
    TOLERANT_OPTIONS,
    MediaTools,
    VideoTarget,
    decoding_options,
    encoder_options,
    fit_filters,
    format_seconds,
    input_options,
)
from muxer.media.media_info import TIME_TOLERANCE_US, MediaInfo, require_video
from muxer.media.mp4 import TIMESCALE, to_ticks
from muxer.media.plan.cut import Cut, FrameIndex

# The suffix of the file of decoded frames of the excerpts.
FRAME_FILE_SUFFIX = ".yuv"
# The time from one frame of the excerpts to the next.
EXCERPT_TICKS = TIMESCALE // 10
# Keyframe interval of padding: black costs nothing, and a player that seeks into it has little to decode.
PADDING_KEYFRAMES = 10


def padding_command(tools: MediaTools, target: VideoTarget, slice_frames: int, output: Path) -> list[str]:
    """Return the command that encodes a padding slice: black, with the parameters of `target`, without B-frames."""
    source = f"color=c=black:s={target.width}x{target.height}:r={target.rate}"
    command = [tools.ffmpeg, *QUIET_OPTIONS, "-f", "lavfi", "-i", source, "-frames:v", str(slice_frames)]
    return [*command, *encoder_options(tools, target), "-g", str(PADDING_KEYFRAMES), str(output)]


def encode_cut_command(
    tools: MediaTools, target: VideoTarget, source: MediaInfo, cut: Cut, index: FrameIndex, output: Path
) -> list[str]:
    """Return the command that re-encodes a cut. Its first frame is shown from 0 on; the others keep their distance."""
    video = require_video(source)
    effective = index.visible_frame(cut.begin)
    start = index.seek_time(effective)
    first = video.ticks_to_us(video.first_pts)
    after_first = format_seconds(first + effective + TIME_TOLERANCE_US // 2)
    # By their times in the file: numbers restart where the size changes, shifted times are rounded to a coarse time base.
    filters = [
        f"settb=1/{TIMESCALE}",
        f"trim=start={format_seconds(first + index.just_before(effective))}",
        f"setpts=gt(PTS\\,{after_first}/TB)*(PTS-{format_seconds(first + cut.begin)}/TB)",
        *fit_filters(video, target),
    ]
    command = [tools.ffmpeg, *QUIET_OPTIONS, *PROGRESS_OPTIONS, *TOLERANT_OPTIONS, *_decode_from(source, index, start)]
    command += ["-map", f"0:{video.stream_index}", "-vf", ",".join(filters), "-frames:v", str(cut.frames)]
    return [*command, *encoder_options(tools, target), str(output)]


def _decode_from(source: MediaInfo, index: FrameIndex, start: int) -> list[str]:
    """Return the options to decode a file, as coded, with its own times from `start` microseconds on (0: its beginning)."""
    video = require_video(source)
    seek = max(0, video.ticks_to_us(video.first_pts) - source.start_us + index.just_before(start)) if start else 0
    return [*decoding_options(source), *(("-ss", format_seconds(seek)) if seek else ()), *input_options(source.path)]


def frame_command(
    tools: MediaTools,
    target: VideoTarget,
    wanted: Sequence[tuple[MediaInfo, FrameIndex, int, Path]],
    size: tuple[int, int],
    *,
    seekable: bool,
) -> list[str]:
    """Return the command that writes the `wanted` frames of sources as yuv420p, fitted to the canvas and to `size`."""
    command = [tools.ffmpeg, *QUIET_OPTIONS]
    outputs: list[str] = []
    # Frames after the same keyframe are decoded together.
    inputs: dict[tuple[Path, int], int] = {}
    for source, index, frame, path in wanted:
        video = require_video(source)
        first = video.ticks_to_us(video.first_pts)
        # A tick more on both sides: times are rounded.
        begin, end = to_ticks(first + index.just_before(frame)) - 1, to_ticks(first + index.just_after(frame)) + 1
        start = index.seek_time(frame) if seekable else 0
        if (source.path, start) not in inputs:
            inputs[source.path, start] = len(inputs)
            command += _decode_from(source, index, start)
        number = inputs[source.path, start]
        filters = [f"settb=1/{TIMESCALE}", f"select=between(pts\\,{begin}\\,{end})", *fit_filters(video, target)]
        outputs += ["-map", f"{number}:{video.stream_index}", "-vf", ",".join((*filters, *comparison_filters(size)))]
        outputs += [*tools.keep_times, "-frames:v", "1", "-f", "rawvideo", str(path)]
    return command + outputs


def check_command(
    tools: MediaTools, excerpts: Path, muxed: Path, from_us: int, frames: Sequence[int] = (), size: tuple[int, int] = (2, 2)
) -> list[str]:
    """Return the command that decodes the excerpts, and the audio from `from_us` on; writes `frames` as yuv420p.

    Of the video of the muxed file, only the packets from `from_us` on are read: not all from the keyframe before it on.
    """
    # One thread is the fastest for a few frames. Our index contains all that ffmpeg would otherwise decode the first frames
    # for. The loop filter only smooths frames; it is skipped when none is compared.
    strict = ["-noautorotate", "-err_detect", "explode", "-threads", "1", "-nofind_stream_info"]
    command = [tools.ffmpeg, *QUIET_OPTIONS, "-xerror", *strict, *(() if frames else ("-skip_loop_filter", "all"))]
    # Its last frames may need other parameter sets than those of the index, which come with a keyframe that is not read: not
    # parsed, or else ffmpeg reports errors.
    end = ["-seek2any", "1", "-fflags", "+noparse+nofillin", "-ss", format_seconds(from_us)]
    command += [*input_options(excerpts), *strict, *end, *input_options(muxed)]
    # Only times are checked: frames are passed on uncoded, and not buffered until the other streams catch up.
    times = [*tools.keep_times, "-enc_time_base:v", f"1:{TIMESCALE}", "-c:v:0", "wrapped_avframe"]
    command += ["-map", "0:v:0", "-map", "1:v:0", "-map", "1:a:0", "-c:v:1", "copy", "-copyinkf:v:1"]
    command += [*times, "-max_interleave_delta", "1", "-f", "framecrc", "-"]
    if not frames:
        return command
    # By their times: ffmpeg restarts counting where the size, the range or the colours change.
    chosen = "+".join(f"eq(pts\\,{number * EXCERPT_TICKS})" for number in frames)
    filters = (f"settb=1/{TIMESCALE}", f"select={chosen}", *comparison_filters(size))
    command += ["-map", "0:v:0", "-vf", ",".join(filters), *tools.keep_times]
    return [*command, "-enc_time_base", f"1:{TIMESCALE}", "-f", "rawvideo", str(excerpts.with_suffix(FRAME_FILE_SUFFIX))]


def comparison_filters(size: tuple[int, int]) -> tuple[str, str]:
    """Return the filters that scale frames to `size` for comparison."""
    return f"scale={size[0]}:{size[1]}:flags=area:out_range=limited", "format=yuv420p"
