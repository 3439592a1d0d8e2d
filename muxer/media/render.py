"""Turns a timeline into pieces, and pieces into argument lists of ffmpeg. Pure: nothing is run or read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path

from muxer.media import limits
from muxer.media.avc import Avc
from muxer.media.compose import TIMESCALE
from muxer.media.cut import NEAR, Cut, Index
from muxer.media.probe import USUAL_RATE, Probed, Video, need_video, sizes
from muxer.media.timeline import Segment

# Codecs that browsers play out of an MP4 file; other audio is re-encoded.
PLAYABLE_AUDIO = ("mp3", "aac", "opus", "flac")
PIXELS = ("yuv420p", "yuvj420p")
_X264_PROFILES = {"Constrained Baseline": "baseline", "Baseline": "baseline", "Main": "main", "High": "high"}
QUIET = ("-nostdin", "-hide_banner", "-v", "error", "-y")
# In an MP4 file, ffmpeg makes a track of its own of chapters and of a time code.
WITHOUT_EXTRAS = ("-map_metadata", "-1", "-map_chapters", "-1", "-write_tmcd", "0")
# An encoder uses so many threads; as many encoders run at a time as that leaves room for (our decision).
ENCODER_THREADS = 2
# Every so many frames of padding are a key frame: black costs nothing, and who begins within it has little to decode.
PADDING_KEY_FRAMES = 10


@dataclass(frozen=True)
class Tools:
    """The media programs, and the words by which this ffmpeg is told to keep all frame times."""

    ffmpeg: str
    ffprobe: str
    keep_times: tuple[str, str] = ("-fps_mode", "passthrough")


@dataclass(frozen=True)
class Target:
    """The parameters of the video stream of the result, those of the clips that are copied. ``avc`` is how the clips that
    are copied describe themselves, None when nothing is copied."""

    width: int
    height: int
    pixels: str
    profile: str
    rate: Fraction
    avc: Avc | None = None


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


def choose_target(clips: Mapping[int, Video]) -> tuple[Target, frozenset[int]]:
    """Given the clips by index, return the parameters of the result and the indices of the clips that have them.

    The canvas is the smallest on which every clip fits; the parameters are those of the longest group of equal clips of
    that size.
    """
    size = sizes(clips.values())
    groups: dict[tuple[str, str], list[int]] = {}
    for index, video in clips.items():
        if video.size == size and is_copyable(video):
            groups.setdefault((video.entry["pix_fmt"], video.entry["profile"]), []).append(index)
    if not groups:
        rate = max((video.rate for video in clips.values()), default=USUAL_RATE)
        return Target(*size, "yuv420p", "high", rate), frozenset()
    best = max(groups.values(), key=lambda group: sum(clips[index].length_us for index in group))
    video = clips[best[0]]
    target = Target(*size, video.entry["pix_fmt"], _X264_PROFILES[video.entry["profile"]], video.rate, video.avc)
    return target, frozenset(best)


def is_copyable(video: Video) -> bool:
    """Whether a clip's frames may stand in the result as they are: H.264 that every browser plays, in square pixels."""
    return video.avc is not None


def pieces(
    segments: Sequence[Segment], indices: Mapping[int, Index], why: Mapping[int, str], rate: Fraction, slice_frames: int
) -> tuple[Piece, ...]:
    """Given a timeline, the frames of the clips, why some of them are re-encoded as a whole, and the rate and the number of
    frames of a padding slice, return the pieces of the result in order."""
    made: list[Piece] = []
    for segment in segments:
        if segment.clip is None:
            frames = sum(frames_in(end - begin, rate) for begin, end in slices(segment.length, slice_frames, rate))
            made.append(Piece(segment.begin, segment.end, frames))
            continue
        index, stop = indices[segment.clip], segment.offset + segment.length
        if segment.clip in why:
            cuts = [index.encode(segment.offset, stop, why[segment.clip])]
        else:
            cuts = index.copy(segment.offset, stop)
        shift = segment.begin - segment.offset
        made += [Piece(cut.begin + shift, cut.end + shift, cut.frames, segment.clip, cut) for cut in cuts]
    return tuple(made)


def why_encoded(clips: Mapping[int, Video], copied: frozenset[int]) -> dict[int, str]:
    """Given the clips by index and the indices of those that may be copied, return why each of the others is not."""
    return {index: _why(video, copied) for index, video in clips.items() if index not in copied}


def _why(video: Video, copied: frozenset[int]) -> str:
    if not is_copyable(video):
        return f"{video.codec} {video.entry.get('pix_fmt', '')} cannot be copied"
    return "differs in size or parameters from the others" if copied else "everything is re-encoded"


def frames_in(length: int, rate: Fraction) -> int:
    """Given a length in microseconds and a frame rate, return how many frames begin within it."""
    return max(1, ceil((length - NEAR) * rate / 1_000_000))


def slices(length: int, slice_frames: int, rate: Fraction) -> Iterator[tuple[int, int]]:
    """Given the length of a gap in microseconds and the number of frames in a padding slice, yield where each slice begins
    and ends in the gap; the last one is cut to fit."""
    number = 0
    while (begin := round(number * slice_frames * 1_000_000 / rate)) < length:
        number += 1
        end = round(number * slice_frames * 1_000_000 / rate)
        yield begin, length if length - end <= NEAR else end
        if length - end <= NEAR:
            return


def seconds(microseconds: int) -> str:
    """Given microseconds, return seconds as ffmpeg reads them."""
    return f"{microseconds / 1_000_000:.6f}"


def padding_command(tools: Tools, target: Target, slice_frames: int, output: Path) -> list[str]:
    """Given the number of frames in a padding slice, return the command that makes it: black, in the target's parameters,
    beginning with a key frame, without reordering."""
    source = f"color=c=black:s={target.width}x{target.height}:r={target.rate}"
    command = [tools.ffmpeg, *QUIET, "-f", "lavfi", "-i", source, "-frames:v", str(slice_frames)]
    return [*command, *_video_encoder(tools, target), "-g", str(PADDING_KEY_FRAMES), str(output)]


def encode_command(tools: Tools, target: Target, source: Probed, cut: Cut, index: Index, output: Path) -> list[str]:
    """Given a cut that is re-encoded, return the command for it. Its first frame, the one in effect where the cut begins,
    is shown from zero on; the others keep their distance."""
    video = need_video(source)
    effective = index.in_effect(cut.begin)
    start = index.decodable(effective)
    origin = video.microseconds(video.first) - source.start_us
    seek = max(0, origin + index.just_before(start)) if start else 0
    skipped = origin + index.just_before(effective) - seek
    # Frames are told by their times: numbers begin anew where the size of the pictures changes.
    filters = [
        *([f"trim=start={seconds(skipped)}"] if start < effective else ()),
        f"setpts=max(0\\,PTS-{seconds(origin + cut.begin - seek)}/TB)",
        *_squared(video),
        f"scale={target.width}:{target.height}:force_original_aspect_ratio=decrease:force_divisible_by=2",
        f"pad={target.width}:{target.height}:(ow-iw)/2:(oh-ih)/2",
        "setsar=1",
        f"format={target.pixels}",
    ]
    command = [tools.ffmpeg, *QUIET, *_TOLD, *(("-ss", seconds(seek)) if seek else ()), *_from_file(source.path)]
    command += ["-map", "0:v:0", "-vf", ",".join(filters), "-frames:v", str(cut.frames), *_video_encoder(tools, target)]
    return [*command, str(output)]


def retime_command(tools: Tools, source: Path, video: Video, step: Fraction, output: Path) -> list[str]:
    """Given a screen file that does not say when its frames are shown, and the time from one to the next in seconds, return
    the command that re-encodes them all, evenly spaced."""
    width, height = sizes([video])
    target = Target(width, height, "yuv420p", "high", 1 / step)
    ticks = step * TIMESCALE
    times = f"settb=1/{TIMESCALE},setpts=round(N*{ticks.numerator}/{ticks.denominator})"
    filters = ",".join((times, *_squared(video), f"pad={width}:{height}", "setsar=1", f"format={target.pixels}"))
    command = [tools.ffmpeg, *QUIET, *_TOLD, *_from_file(source), "-map", "0:v:0", "-vf", filters]
    return [*command, *_video_encoder(tools, target), str(output)]


def sound_command(tools: Tools, audio: Path, output: Path) -> list[str]:
    """Return the command that copies the audio of a call's file into an MP4 file."""
    command = [tools.ffmpeg, *QUIET, *_from_file(audio), "-map", "0:a:0", "-c:a", "copy"]
    # MP3 below 16 kHz and FLAC are refused in MP4 without it; both play in browsers.
    return [*command, "-strict", "-2", *WITHOUT_EXTRAS, "-f", "mp4", str(output)]


def remux_command(tools: Tools, source: Path, output: Path) -> list[str]:
    """Return the command that copies the first video stream of a file, H.264, alone, into an MP4 file."""
    command = [tools.ffmpeg, *QUIET, *_from_file(source), "-map", "0:v:0", "-c", "copy"]
    # The lengths before pictures then have four bytes, whatever they had.
    return [*command, "-bsf:v", "h264_mp4toannexb", "-f", "mp4", str(output)]


def check_command(tools: Tools, excerpts: Path, muxed: Path, from_us: int) -> list[str]:
    """Given the excerpts around the joins of a muxed file, and the file itself, return the command that decodes the excerpts
    whole and the file from a moment on (microseconds), and prints a line for each frame: stream, dts, pts and more."""
    # Nobody looks at the pictures, so that what only smooths them is left out; for a few frames one thread is the quickest.
    # The index that we have written says all that ffmpeg would else decode the first pictures for.
    strict = ["-err_detect", "explode", "-skip_loop_filter", "all", "-threads", "1", "-nofind_stream_info"]
    command = [tools.ffmpeg, *QUIET, "-xerror", *strict, *_from_file(excerpts)]
    command += [*strict, "-ss", seconds(from_us), *_from_file(muxed), "-map", "0:v:0", "-map", "1:v:0", "-map", "1:a:0"]
    # Only the times of the pictures are looked at: they are handed on as they lie in memory, and none is kept until the
    # other streams come as far, which would take a hundred of them.
    times = [*tools.keep_times, "-enc_time_base:v", f"1:{TIMESCALE}", "-c:v", "wrapped_avframe"]
    return [*command, *times, "-max_interleave_delta", "1", "-f", "framecrc", "-"]


# How far an encoder is, on its standard output.
_TOLD = ("-progress", "pipe:1")


def _squared(video: Video) -> list[str]:
    """Return the filter that makes pixels square, if they are not."""
    return [f"scale=iw*{video.aspect}:ih"] if video.aspect != 1 else []


def _from_file(path: Path) -> list[str]:
    return [*limits.reading(), "-i", f"file:{path}"]


def _video_encoder(tools: Tools, target: Target) -> list[str]:
    encoder = [*tools.keep_times, "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-bf", "0"]
    encoder += ["-threads", str(ENCODER_THREADS), "-profile:v", target.profile, "-pix_fmt", target.pixels]
    return [*encoder, "-enc_time_base", f"1:{TIMESCALE}", "-video_track_timescale", str(TIMESCALE), "-f", "mp4"]
