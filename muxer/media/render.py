"""Turns a timeline into pieces, and pieces into argument lists of ffmpeg. Pure: nothing is run or read here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from math import ceil
from pathlib import Path

from muxer.media.cut import NEAR, Cut, Index
from muxer.media.probe import USUAL_RATE, Audio, Probed, Video, need_video, sizes
from muxer.media.timeline import Segment

# Codecs that browsers play out of an MP4 file; other audio is re-encoded.
PLAYABLE_AUDIO = ("mp3", "aac", "opus", "flac")
_X264_PROFILES = {"Constrained Baseline": "baseline", "Baseline": "baseline", "Main": "main", "High": "high"}
_PIXELS = ("yuv420p", "yuvj420p")
_TIMESCALE = 90_000


@dataclass(frozen=True)
class Tools:
    """The media programs, and the words by which this ffmpeg is told to keep all frame times."""

    ffmpeg: str
    ffprobe: str
    keep_times: tuple[str, str] = ("-fps_mode", "passthrough")


@dataclass(frozen=True)
class Target:
    """The parameters of the video stream of the result, those of the clips that are copied."""

    width: int
    height: int
    pixels: str
    profile: str
    timescale: int
    rate: Fraction


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
    groups: dict[tuple[str, str, Fraction], list[int]] = {}
    for index, video in clips.items():
        if video.size == size and is_copyable(video):
            groups.setdefault((video.entry["pix_fmt"], video.entry["profile"], video.time_base), []).append(index)
    if not groups:
        rate = max((video.rate for video in clips.values()), default=USUAL_RATE)
        return Target(*size, "yuv420p", "high", _TIMESCALE, rate), frozenset()
    best = max(groups.values(), key=lambda group: sum(clips[index].length_us for index in group))
    video = clips[best[0]]
    profile = _X264_PROFILES[video.entry["profile"]]
    target = Target(*size, video.entry["pix_fmt"], profile, video.time_base.denominator, video.rate)
    return target, frozenset(best)


def is_copyable(video: Video) -> bool:
    """Whether a clip's frames may stand in the result as they are: H.264 that every browser plays, and no hidden frames."""
    square = video.entry.get("sample_aspect_ratio", "1:1") in ("1:1", "N/A", "0:1")
    plain = video.time_base.numerator == 1 and not video.packets.hidden and square
    playable = video.entry.get("pix_fmt") in _PIXELS and video.entry.get("profile") in _X264_PROFILES
    return video.codec == "h264" and playable and plain


def pieces(
    segments: Sequence[Segment], clips: Mapping[int, Video], copied: frozenset[int], rate: Fraction
) -> tuple[Piece, ...]:
    """Given a timeline, the clips, the indices of those that may be copied and the rate of the padding, return the pieces
    of the result in order."""
    indices = {index: Index(video) for index, video in clips.items()}
    made: list[Piece] = []
    for number, segment in enumerate(segments):
        if segment.clip is None:
            made.append(Piece(segment.begin, segment.end, frames_in(segment.length, rate)))
            continue
        index, stop = indices[segment.clip], segment.offset + segment.length
        if segment.clip in copied:
            cuts = index.copy(segment.offset, stop)
        else:
            cuts = [index.encode(segment.offset, stop, _why(clips[segment.clip], copied))]
        if number == len(segments) - 1:
            cuts[-1:] = index.closed(cuts[-1])
        shift = segment.begin - segment.offset
        made += [
            Piece(cut.begin + shift, cut.end + shift, cut.frames + cut.closing, segment.clip, cut) for cut in cuts
        ]
    return tuple(made)


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
    command = [tools.ffmpeg, *_QUIET, "-f", "lavfi", "-i", source, "-frames:v", str(slice_frames)]
    return [*command, *_video_encoder(tools, target), str(output)]


def encode_command(tools: Tools, target: Target, source: Probed, cut: Cut, index: Index, output: Path) -> list[str]:
    """Given a cut that is re-encoded, return the command for it. Its first frame, the one in effect where the cut begins,
    is shown from zero on; the others keep their distance."""
    video = need_video(source)
    effective = index.in_effect(cut.begin)
    earlier = index.shown[max(index.shown.index(effective) - 1, 0)]
    origin = video.microseconds(video.first) - source.start_us
    seek = max(0, origin + effective - min(NEAR, (effective - earlier) // 2)) if effective else 0
    shift = origin + cut.begin - seek
    filters = [
        f"trim=end_frame={cut.frames}",
        f"setpts=max(0\\,PTS-{seconds(shift)}/TB)",
        f"scale={target.width}:{target.height}:force_original_aspect_ratio=decrease:force_divisible_by=2",
        f"pad={target.width}:{target.height}:(ow-iw)/2:(oh-ih)/2",
        "setsar=1",
        f"format={target.pixels}",
    ]
    if cut.closing:
        last = max(0, cut.end - cut.begin - video.frame_us)
        filters += ["tpad=stop=1:stop_mode=clone", f"setpts=if(eq(N\\,{cut.frames})\\,{seconds(last)}/TB\\,PTS)"]
    command = [tools.ffmpeg, *_QUIET, *(("-ss", seconds(seek)) if seek else ()), *_from_file(source.path)]
    command += ["-map", "0:v:0", "-vf", ",".join(filters), *_video_encoder(tools, target)]
    return [*command, str(output)]


def concat_list(
    parts: Sequence[Piece], files: Sequence[str], starts: Sequence[int], slice_frames: int, rate: Fraction
) -> str:
    """Given the pieces, the file of each, the time of each file's first frame (microseconds), the number of frames in a
    padding slice and their rate, return the list that the concat demuxer reads. Every piece begins at its absolute time."""
    lines = ["ffconcat version 1.0"]
    for piece, file, start in zip(parts, files, starts, strict=True):
        length = piece.end - piece.begin
        if piece.clip is None:
            for begin, end in slices(length, slice_frames, rate):
                rest = end - begin
                lines += [f"file {file}", f"outpoint {seconds(start + rest - NEAR)}", f"duration {seconds(rest)}"]
            continue
        lines.append(f"file {file}")
        cut = piece.cut
        if cut is not None and cut.reason is None:
            # The demuxer begins at the last key frame at or before inpoint, and ends where a frame is decoded at outpoint.
            lines += [] if cut.key is None else [f"inpoint {seconds(start + cut.key + 1)}"]
            lines += [] if cut.out is None else [f"outpoint {seconds(start + cut.out - NEAR // 2)}"]
        lines.append(f"duration {seconds(length)}")
    return "\n".join([*lines, ""])


def mux_command(
    tools: Tools, video_list: Path, audio: Probed, length: int, codec: str, start: datetime, output: Path
) -> list[str]:
    """Given the concat list, the audio file, the length of the result in microseconds, the audio codec (``copy`` or
    ``aac``) and the audio's start in UTC, return the command that makes the muxed file."""
    command = [tools.ffmpeg, *_QUIET, "-f", "concat", "-protocol_whitelist", "file", "-i", str(video_list)]
    command += [*_from_file(audio.path), "-map", "0:v:0", "-map", "1:a:0", "-c:v", "copy", "-c:a", codec]
    # MP3 below 16 kHz and FLAC are refused in MP4 without it; both play in browsers.
    command += ["-strict", "-2", "-t", seconds(length), "-map_metadata", "-1", "-map_chapters", "-1"]
    command += ["-metadata", f"creation_time={start:%Y-%m-%dT%H:%M:%S}.{start.microsecond:06d}Z"]
    return [*command, "-movflags", "+faststart", "-f", "mp4", str(output)]


def remux_command(tools: Tools, source: Path, output: Path) -> list[str]:
    """Return the command that copies the first video stream of a file, alone, into an MP4 file."""
    return [tools.ffmpeg, *_QUIET, *_from_file(source), "-map", "0:v:0", "-c", "copy", "-f", "mp4", str(output)]


def decode_command(tools: Tools, path: Path, moments: Sequence[int]) -> list[str]:
    """Given moments of a muxed file in microseconds, return the command that decodes the pictures around each."""
    command = [tools.ffmpeg, *_QUIET, "-xerror", "-err_detect", "explode"]
    for moment in moments:
        command += ["-ss", seconds(max(0, moment - 300_000)), "-t", "0.6", *_from_file(path)]
    for number in range(len(moments)):
        command += ["-map", f"{number}:v:0"]
    return [*command, *tools.keep_times, "-enc_time_base", f"1:{_TIMESCALE}", "-f", "null", "-"]


def audio_codec(audio: Audio, wanted: str) -> str:
    """Given the audio stream and the option ``audio_codec``, return what ffmpeg is to use: ``copy`` or ``aac``."""
    return wanted if audio.codec in PLAYABLE_AUDIO else "aac"


_QUIET = ("-nostdin", "-hide_banner", "-v", "error", "-y")


def _from_file(path: Path) -> list[str]:
    return ["-protocol_whitelist", "file", "-i", f"file:{path}"]


def _video_encoder(tools: Tools, target: Target) -> list[str]:
    encoder = [*tools.keep_times, "-an", "-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-bf", "0"]
    encoder += ["-profile:v", target.profile, "-pix_fmt", target.pixels, "-enc_time_base", f"1:{target.timescale}"]
    return [*encoder, "-video_track_timescale", str(target.timescale), "-f", "mp4"]
