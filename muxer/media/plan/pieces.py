"""Turns a timeline into pieces, and pieces into argument lists of ffmpeg. Pure: nothing is run or read here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from muxer.media import limits
from muxer.media.compose import TIMESCALE, to_ticks
from muxer.media.mp4.avc import AvcConfig
from muxer.media.orientation import UPRIGHT, Orientation
from muxer.media.plan.cut import TIME_TOLERANCE_US, Cut, FrameIndex
from muxer.media.plan.timeline import Segment
from muxer.media.probe import DEFAULT_RATE, MediaInfo, Packets, Video, canvas_size, require_video

# Codecs that browsers play out of an MP4 file; other audio is re-encoded.
PLAYABLE_AUDIO = ("mp3", "aac", "opus", "flac")
FULL_RANGE_FORMAT = "yuvj420p"
PIXEL_FORMATS = ("yuv420p", FULL_RANGE_FORMAT)
_X264_PROFILES = {"Constrained Baseline": "baseline", "Baseline": "baseline", "Main": "main", "High": "high"}
QUIET_OPTIONS = ("-nostdin", "-hide_banner", "-v", "error", "-y")
# In an MP4 file, ffmpeg makes a track of its own of chapters and of a time code.
WITHOUT_EXTRAS_OPTIONS = ("-map_metadata", "-1", "-map_chapters", "-1", "-write_tmcd", "0")
# An encoder uses so many threads; as many encoders run at a time as that leaves room for (our decision).
ENCODER_THREADS = 2
# What the frames of the excerpts that are looked at are called.
FRAME_FILE_SUFFIX = ".yuv"
# The frames of the excerpts follow one another at this distance.
EXCERPT_TICKS = TIMESCALE // 10
# Every so many frames of padding are a key frame: black costs nothing, and who begins within it has little to decode.
PADDING_KEYFRAMES = 10


@dataclass(frozen=True)
class MediaTools:
    """The media programs, and the words by which this ffmpeg is told to keep all frame times."""

    ffmpeg: str
    ffprobe: str
    keep_times: tuple[str, str] = ("-fps_mode", "passthrough")


@dataclass(frozen=True)
class VideoTarget:
    """The parameters of the video stream of the result, those of the clips that are copied. ``width`` and ``height`` are
    those of the coded frames, which a player turns by ``orientation``. ``avc`` is how the clips that are copied describe
    themselves, None when nothing is copied."""

    width: int
    height: int
    pixels: str
    profile: str
    rate: Fraction
    avc: AvcConfig | None = None
    orientation: Orientation = UPRIGHT

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height as a player shows the result."""
        return self.orientation.shown_size(self.width, self.height)


@dataclass(frozen=True)
class Piece:
    """A part of the result, ``begin`` to ``end`` in microseconds: a cut of a clip, or padding (no clip)."""

    begin: int
    end: int
    frames: int
    clip: int | None = None
    cut: Cut | None = None

    @property
    def reason(self) -> str | None:
        """Why the piece is re-encoded; None for a copy and for padding."""
        return self.cut.reason if self.cut else None


def choose_video_target(clips: Mapping[int, Video]) -> tuple[VideoTarget, frozenset[int]]:
    """Given the clips by index, return the parameters of the result and the indices of the clips that have them.

    The canvas is the smallest on which every clip fits; the parameters are those of the longest group of equal clips of
    that size.
    """
    size = canvas_size(clips.values())
    groups: dict[tuple[str, str, Orientation], list[int]] = {}
    for index, video in clips.items():
        if video.display_size == size and is_copyable(video):
            groups.setdefault((video.entry["pix_fmt"], video.entry["profile"], video.orientation), []).append(index)
    if not groups:
        rate = max((video.frame_rate for video in clips.values()), default=DEFAULT_RATE)
        return VideoTarget(*size, "yuv420p", "high", rate), frozenset()
    best = max(groups.values(), key=lambda group: sum(clips[index].length_us for index in group))
    video = clips[best[0]]
    profile, turned = _X264_PROFILES[video.entry["profile"]], video.orientation
    coded = turned.shown_size(*size)
    return VideoTarget(*coded, video.entry["pix_fmt"], profile, video.frame_rate, video.avc, turned), frozenset(best)


def is_copyable(video: Video) -> bool:
    """Whether a clip's frames may stand in the result as they are: H.264 that every browser plays, in square pixels."""
    return video.avc is not None


def plan_pieces(
    segments: Sequence[Segment], indices: Mapping[int, FrameIndex], why: Mapping[int, str], rate: Fraction, slice_frames: int
) -> tuple[Piece, ...]:
    """Given a timeline, the frames of the clips, why some of them are re-encoded as a whole, and the rate and the number of
    frames of a padding slice, return the pieces of the result in order."""
    made: list[Piece] = []
    for segment in segments:
        if segment.clip is None:
            frames = sum(
                count_frames_in(end - begin, rate) for begin, end in padding_slices(segment.length, slice_frames, rate)
            )
            made.append(Piece(segment.begin, segment.end, frames))
            continue
        start = segment.offset - segment.held
        index, stop = indices[segment.clip], start + segment.length
        reason = why.get(segment.clip)
        cuts = index.copy_cuts(start, stop) if reason is None else [index.encode_cut(start, stop, reason)]
        shift = segment.begin - start
        made += [Piece(cut.begin + shift, cut.end + shift, cut.frames, segment.clip, cut) for cut in cuts]
    return tuple(made)


def find_encode_reasons(clips: Mapping[int, Video], copied: frozenset[int]) -> dict[int, str]:
    """Given the clips by index and the indices of those that may be copied, return why each of the others is not."""
    return {index: _encode_reason(video, copied) for index, video in clips.items() if index not in copied}


def _encode_reason(video: Video, copied: frozenset[int]) -> str:
    if not is_copyable(video):
        return f"{video.codec_name} {video.entry.get('pix_fmt', '')} cannot be copied"
    return "differs in size or parameters from the others" if copied else "everything is re-encoded"


def count_frames_in(length: int, rate: Fraction) -> int:
    """Given a length in microseconds and a frame rate, return how many frames begin within it."""
    return max(1, ceil((length - TIME_TOLERANCE_US) * rate / 1_000_000))


def padding_slices(length: int, slice_frames: int, rate: Fraction) -> Iterator[tuple[int, int]]:
    """Given the length of a gap in microseconds and the number of frames in a padding slice, yield where each slice begins
    and ends in the gap; the last one is cut to fit."""
    number = 0
    while (begin := round(number * slice_frames * 1_000_000 / rate)) < length:
        number += 1
        end = round(number * slice_frames * 1_000_000 / rate)
        yield begin, length if length - end <= TIME_TOLERANCE_US else end
        if length - end <= TIME_TOLERANCE_US:
            return


def format_seconds(microseconds: int) -> str:
    """Given microseconds, return seconds as ffmpeg reads them."""
    return f"{microseconds / 1_000_000:.6f}"


def padding_command(tools: MediaTools, target: VideoTarget, slice_frames: int, output: Path) -> list[str]:
    """Given the number of frames in a padding slice, return the command that makes it: black, in the target's parameters,
    beginning with a key frame, without reordering."""
    source = f"color=c=black:s={target.width}x{target.height}:r={target.rate}"
    command = [tools.ffmpeg, *QUIET_OPTIONS, "-f", "lavfi", "-i", source, "-frames:v", str(slice_frames)]
    return [*command, *_encoder_options(tools, target), "-g", str(PADDING_KEYFRAMES), str(output)]


def encode_cut_command(
    tools: MediaTools, target: VideoTarget, source: MediaInfo, cut: Cut, index: FrameIndex, output: Path
) -> list[str]:
    """Return the command that re-encodes a cut. Its first frame, the one in effect where the cut begins, is shown from zero
    on; the others keep their distance."""
    video = require_video(source)
    effective = index.visible_frame(cut.begin)
    start = index.seek_time(effective)
    first = video.ticks_to_us(video.first_pts)
    # Frames are named by their times, those of the file: numbers begin anew where the size of the frames changes, and
    # moved times would be rounded to the time base of the file, which may be a second.
    filters = [
        f"settb=1/{TIMESCALE}",
        f"trim=start={format_seconds(first + index.just_before(effective))}",
        f"setpts=gt(PTS\\,{format_seconds(first + effective + TIME_TOLERANCE_US // 2)}/TB)*(PTS-{format_seconds(first + cut.begin)}/TB)",
        *fit_filters(video, target),
    ]
    command = [tools.ffmpeg, *QUIET_OPTIONS, *_PROGRESS_OPTIONS, *_TOLERANT_OPTIONS, *_decode_from(source, index, start)]
    command += ["-map", f"0:{video.stream_index}", "-vf", ",".join(filters), "-frames:v", str(cut.frames)]
    return [*command, *_encoder_options(tools, target), str(output)]


def _decode_from(source: MediaInfo, index: FrameIndex, start: int) -> list[str]:
    """Return the options that decode a screen file with the times of its own, from the frame that is shown at ``start`` on
    (microseconds from the first frame); 0 = from the begin of the file.

    Frames come as they are coded: how they are turned is our own business, since versions of ffmpeg differ in it.
    """
    video = require_video(source)
    seek = max(0, video.ticks_to_us(video.first_pts) - source.start_us + index.just_before(start)) if start else 0
    return [*_decode_all(source), *(("-ss", format_seconds(seek)) if seek else ()), *input_options(source.path)]


def _decode_all(source: MediaInfo) -> list[str]:
    errors = ("-err_detect", "explode") if source.strict else ()
    # Threads that decode several damaged frames at a time make something else of them each time.
    threads = ("-threads", "1") if source.damaged else ()
    return ["-copyts", "-noautorotate", *errors, *threads]


def scan_command(tools: MediaTools, source: MediaInfo) -> list[str]:
    """Return the command that decodes a screen file whole, and prints a line for each frame: stream, dts, pts and more."""
    video = require_video(source)
    # Frames are handed on as they lie in memory: only their times are looked at.
    times = [*tools.keep_times, "-enc_time_base:v", f"1:{TIMESCALE}", "-c:v", "wrapped_avframe"]
    command = [
        tools.ffmpeg,
        *QUIET_OPTIONS,
        *_TOLERANT_OPTIONS,
        *_decode_all(source),
        *input_options(source.path),
        "-map",
        f"0:{video.stream_index}",
    ]
    return [*command, *times, "-f", "framecrc", "-"]


def fit_filters(video: Video, target: VideoTarget) -> list[str]:
    """Return the filters that bring frames of a source onto the canvas of the result: aspect kept, centred, black around."""
    same = video.orientation == target.orientation
    width, height = (target.width, target.height) if same else target.shown_size
    # As large as fits, in even numbers as 4:2:0 wants it; what is next to a whole number is one.
    sides = (f"{side}=max(2\\,2*trunc(i{side}*min({width}/iw\\,{height}/ih)/2+0.01))" for side in "wh")
    return [
        *_square_pixel_filters(video),
        *(() if same else video.orientation.ffmpeg_filters),
        # Each version of ffmpeg has its own idea of the range when it is not said.
        f"scale={':'.join(sides)}:out_range={'full' if target.pixels == FULL_RANGE_FORMAT else 'limited'}",
        # Before the black around it, whose width is rounded to what the format allows.
        f"format={target.pixels}",
        f"pad={width}:{height}:(ow-iw)/2:(oh-ih)/2",
        "setsar=1",
        *(() if same else target.orientation.inverse.ffmpeg_filters),
    ]


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
        *_PROGRESS_OPTIONS,
        "-noautorotate",
        *input_options(source),
        "-map",
        f"0:{video.stream_index}",
    ]
    return [*command, "-vf", filters, *_encoder_options(tools, target), str(output)]


def trial_command(tools: MediaTools, target: VideoTarget, silence: Path, output: Path) -> list[str]:
    """Return the command that makes an MP4 file of half a second, with all that the other commands use.

    ``silence`` is an MP3 file.
    """
    video = Video({"width": "16", "height": "16", "sample_aspect_ratio": "2:1"}, Packets(), orientation=_QUARTER_TURN)
    filters = [f"settb=1/{TIMESCALE}", "trim=start=0.05", "setpts=gt(PTS\\,0)*(PTS-0.05/TB)"]
    filters += [f"select=between(pts\\,0\\,{TIMESCALE})", *fit_filters(video, target), "hflip", "vflip"]
    filters += _comparison_filters((target.width, target.height))
    command = [tools.ffmpeg, *QUIET_OPTIONS, *_PROGRESS_OPTIONS, *_TOLERANT_OPTIONS, "-copyts", "-noautorotate"]
    command += ["-f", "lavfi", "-i", "color=s=16x16:r=10:d=0.5", *input_options(silence)]
    command += ["-map", "0:v:0", "-map", "1:a:0", "-vf", ",".join(filters)]
    encoder = [word for word in _encoder_options(tools, target) if word != "-an"]
    return [*command, "-c:a", "aac", "-ar", "8000", "-ac", "1", *encoder, str(output)]


def copy_audio_command(tools: MediaTools, audio: Path, output: Path) -> list[str]:
    """Return the command that copies the audio of a call's file into an MP4 file."""
    command = [tools.ffmpeg, *QUIET_OPTIONS, *input_options(audio), "-map", "0:a:0", "-c:a", "copy"]
    # MP3 below 16 kHz and FLAC are refused in MP4 without it; both play in browsers.
    return [*command, "-strict", "-2", *_MP4_OPTIONS, str(output)]


def remux_command(tools: MediaTools, source: Path, video: Video, output: Path) -> list[str]:
    """Return the command that copies one video stream of a file, H.264, alone, into an MP4 file."""
    command = [tools.ffmpeg, *QUIET_OPTIONS, *input_options(source), "-map", f"0:{video.stream_index}", "-c", "copy"]
    # The lengths before pictures then have four bytes, whatever they had.
    return [*command, "-bsf:v", "h264_mp4toannexb", *_MP4_OPTIONS, str(output)]


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


def frame_command(
    tools: MediaTools,
    target: VideoTarget,
    wanted: Sequence[tuple[MediaInfo, FrameIndex, int, Path]],
    size: tuple[int, int],
    *,
    seekable: bool,
) -> list[str]:
    """Return the command that writes single frames of sources, on the canvas of the result and then scaled to a size.

    ``wanted`` are the sources, their frames, when the frame is shown (microseconds from the first one), and where it is
    written, as yuv420p without any header.
    """
    command = [tools.ffmpeg, *QUIET_OPTIONS]
    outputs: list[str] = []
    # Frames that are decoded from the same keyframe on are decoded together.
    inputs: dict[tuple[Path, int], int] = {}
    for source, index, frame, path in wanted:
        video = require_video(source)
        first = video.ticks_to_us(video.first_pts)
        at, near = to_ticks(first + frame), to_ticks(TIME_TOLERANCE_US)
        start = index.seek_time(frame) if seekable else 0
        if (source.path, start) not in inputs:
            inputs[source.path, start] = len(inputs)
            command += _decode_from(source, index, start)
        number = inputs[source.path, start]
        filters = [f"settb=1/{TIMESCALE}", f"select=between(pts\\,{at - near}\\,{at + near})", *fit_filters(video, target)]
        outputs += ["-map", f"{number}:{video.stream_index}", "-vf", ",".join((*filters, *_comparison_filters(size)))]
        outputs += [*tools.keep_times, "-frames:v", "1", "-f", "rawvideo", str(path)]
    return command + outputs


def check_command(
    tools: MediaTools, excerpts: Path, muxed: Path, from_us: int, frames: Sequence[int] = (), size: tuple[int, int] = (2, 2)
) -> list[str]:
    """Return the command that decodes the excerpts of a muxed file whole, and reads the file itself from a moment on.

    ``from_us`` is that moment in microseconds; of the file, the sound is decoded. A line is printed for each frame: stream,
    dts, pts and more. The ``frames`` of the excerpts with these numbers are written beside them in a ``size``, as yuv420p.
    """
    # For a few frames one thread is the quickest. The index that we have written says all that ffmpeg would else decode the
    # first frames for. Where nobody looks at the frames, what only smooths them is left out.
    strict = ["-noautorotate", "-err_detect", "explode", "-threads", "1", "-nofind_stream_info"]
    command = [tools.ffmpeg, *QUIET_OPTIONS, "-xerror", *strict, *(() if frames else ("-skip_loop_filter", "all"))]
    command += [*input_options(excerpts), *strict, "-ss", format_seconds(from_us), *input_options(muxed)]
    # Only the times of the frames are looked at: they are handed on as they lie in memory, and none is kept until the
    # other streams come as far, which would take a hundred of them.
    times = [*tools.keep_times, "-enc_time_base:v", f"1:{TIMESCALE}", "-c:v:0", "wrapped_avframe", "-c:v:1", "copy"]
    command += ["-map", "0:v:0", "-map", "1:v:0", "-map", "1:a:0"]
    command += [*times, "-max_interleave_delta", "1", "-f", "framecrc", "-"]
    if not frames:
        return command
    # By their times: ffmpeg restarts to count where the size, the range or the colours change.
    chosen = "+".join(f"eq(pts\\,{number * EXCERPT_TICKS})" for number in frames)
    filters = (f"settb=1/{TIMESCALE}", f"select={chosen}", *_comparison_filters(size))
    command += ["-map", "0:v:0", "-vf", ",".join(filters), *tools.keep_times]
    return [*command, "-enc_time_base", f"1:{TIMESCALE}", "-f", "rawvideo", str(excerpts.with_suffix(FRAME_FILE_SUFFIX))]


def parse_frame_times(printed: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the stream and the presentation time of each frame in the lines that ffmpeg's ``framecrc`` prints."""
    for line in printed:
        if line[:1].isdigit():
            stream, _, time = line.split(b",", 3)[:3]
            yield int(stream), int(time)


def _comparison_filters(size: tuple[int, int]) -> tuple[str, str]:
    """Return the filters that bring frames to a size in which they are compared."""
    return f"scale={size[0]}:{size[1]}:flags=area:out_range=limited", "format=yuv420p"


_QUARTER_TURN = Orientation(0, 1, -1, 0)
_MP4_OPTIONS = (*WITHOUT_EXTRAS_OPTIONS, "-f", "mp4")
# How many frames cannot be decoded is our own business.
_TOLERANT_OPTIONS = ("-max_error_rate", "1")
# How far an encoder is, on its standard output.
_PROGRESS_OPTIONS = ("-progress", "pipe:1")


def _square_pixel_filters(video: Video) -> list[str]:
    """Return the filter that makes pixels square, if they are not."""
    return [f"scale=iw*{video.pixel_aspect}:ih"] if video.pixel_aspect != 1 else []


def input_options(path: Path) -> list[str]:
    """Return the options that read a file: nothing but a file of a known form is opened."""
    return [*limits.reading_options(), "-i", f"file:{path}"]


def _encoder_options(tools: MediaTools, target: VideoTarget) -> list[str]:
    encoder = [*tools.keep_times, "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-bf", "0"]
    encoder += ["-threads", str(ENCODER_THREADS), "-profile:v", target.profile, "-pix_fmt", target.pixels]
    # An edit list would end with the last frame, and hide it, where an encoder does not say how long that frame lasts.
    encoder += ["-use_editlist", "0"]
    return [*encoder, "-enc_time_base", f"1:{TIMESCALE}", "-video_track_timescale", str(TIMESCALE), *_MP4_OPTIONS]
