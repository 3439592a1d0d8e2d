"""Decide how sources are muxed: the plan of one muxed file. Pure: nothing is run or read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from muxer.media.ffmpeg import MediaTools, VideoTarget
from muxer.media.media_info import TIME_TOLERANCE_US, MediaInfo, Video, require_video
from muxer.media.mp4 import CopyableAudio
from muxer.media.plan import pieces, timeline
from muxer.media.plan.commands import check_command, encode_cut_command, padding_command
from muxer.media.plan.cut import FrameIndex
from muxer.media.plan.frame_checks import FrameCheck, comparison_size, plan_frame_checks, source_frame_commands
from muxer.media.plan.pieces import Piece

# A padding slice is not longer than the longest gap of the recording, but at least this: other recordings reuse it.
MIN_SLICE_US = 5_000_000
# File names in a job's folder.
SOUND, PADDING, EXCERPTS, MUXED = "sound.mp4", "padding.mp4", "excerpts.mp4", "muxed.mp4"


@dataclass(frozen=True)
class MuxTimeline:
    """The composition of a muxed file, in microseconds from the audio's start."""

    length: int
    screens: tuple[tuple[str, int, int], ...]
    pieces: tuple[Piece, ...]
    paused: tuple[timeline.Span, ...] = ()

    def journal_facts(self) -> dict[str, Any]:
        """Return it in seconds, for the journal. `screen` None is padding, `reason` None a copy."""
        return {
            "length": self.length / 1e6,
            "screens": [
                {"name": name, "start": start / 1e6, "length": length / 1e6} for name, start, length in self.screens
            ],
            "pieces": [
                {
                    "begin": piece.begin / 1e6,
                    "end": piece.end / 1e6,
                    "screen": piece.clip,
                    "offset": max(0, piece.cut.begin) / 1e6 if piece.cut else 0.0,
                    "reason": piece.reason,
                }
                for piece in self.pieces
            ],
            "paused": [{"begin": begin / 1e6, "end": end / 1e6} for begin, end in self.paused],
        }


@dataclass(frozen=True)
class AnalyzedSources:
    """The analyzed sources and their timeline; `unpaused` are the segments without regard to `paused`.

    `reasons` are why the audio was re-encoded; `commands` have read the sources; `missing` is what they lack.
    """

    audio: CopyableAudio
    start: datetime
    names: tuple[str, ...]
    screens: tuple[MediaInfo, ...]
    clips: tuple[timeline.Clip, ...]
    segments: tuple[timeline.Segment, ...]
    overlaps: tuple[timeline.Overlap, ...]
    reasons: frozenset[str]
    commands: tuple[tuple[str, ...], ...]
    missing: tuple[str, ...] = ()
    paused: tuple[timeline.Span, ...] = ()
    unpaused: tuple[timeline.Segment, ...] = ()

    @property
    def visible_screens(self) -> tuple[int, ...]:
        """The numbers of the screen files that are visible, or would be without pauses, which do not change the canvas."""
        return tuple(sorted({segment.clip for segment in self.unpaused if segment.clip is not None}))

    @cached_property
    def visible_videos(self) -> dict[int, Video]:
        """The video streams of the visible screen files."""
        return {number: require_video(self.screens[number]) for number in self.visible_screens}

    @cached_property
    def frame_indices(self) -> dict[int, FrameIndex]:
        """The frames of the visible screen files."""
        # ffmpeg reads the colour palette of a file once: a decoder that starts in the middle lacks it, and shows black.
        return {
            number: FrameIndex(video, seekable=video.entry.get("pix_fmt") != "pal8")
            for number, video in self.visible_videos.items()
        }


@dataclass(frozen=True)
class Plan:
    """The plan of a muxed file.

    `indices` are the frames of the clips, `encoders` the commands by piece number. `frame_commands` write the frames of
    sources for `frame_checks`. `check_command` reads the end of the result from `check_from` microseconds on.
    """

    sources: AnalyzedSources
    target: VideoTarget
    indices: Mapping[int, FrameIndex]
    parts: tuple[Piece, ...]
    slice_frames: int
    padding_command: tuple[str, ...]
    encoders: Mapping[int, tuple[str, ...]]
    frame_checks: tuple[FrameCheck, ...]
    frame_commands: tuple[tuple[str, ...], ...]
    check_from: int
    check_command: tuple[str, ...]

    @property
    def encode_reasons(self) -> tuple[str, ...]:
        """Why something is re-encoded; empty when nothing is."""
        clips = (self.sources.screens[number] for number in self.sources.visible_screens)
        reasons = {*(part.reason for part in self.parts), *(clip.reason for clip in clips)}
        return tuple(sorted({reason for reason in reasons if reason is not None} | self.sources.reasons))

    @property
    def padding_us(self) -> int:
        """How many microseconds of the result are padding."""
        return timeline.total_padding(self.sources.segments)

    @property
    def paused_us(self) -> int:
        """How many microseconds of the result are blank because the recording was paused."""
        return sum(end - begin for begin, end in self.sources.paused)

    @property
    def max_shift_us(self) -> int:
        """The largest distance of a frame from its true time, in microseconds."""
        return timeline.max_time_shift(self.sources.segments, self.sources.clips)

    @property
    def mux_timeline(self) -> MuxTimeline:
        """The composition of the result."""
        sources = self.sources
        screens = tuple((sources.names[clip.index], clip.start, clip.length) for clip in sources.clips)
        return MuxTimeline(sources.audio.length_us, screens, self.parts, sources.paused)

    @property
    def all_commands(self) -> tuple[tuple[str, ...], ...]:
        """All commands in order: those that have read the sources, then those that encode and verify the result."""
        padded = next((number for number, part in enumerate(self.parts) if part.clip is None), None)
        encoders = {**self.encoders, **({padded: self.padding_command} if padded is not None else {})}
        encoding = (encoders[number] for number in sorted(encoders))
        return (*self.sources.commands, *encoding, self.check_command, *self.frame_commands)

    @property
    def work_us(self) -> int:
        """The amount of work in microseconds of media: what is encoded, and the result, which is written."""
        encoded = sum(self.parts[number].end - self.parts[number].begin for number in self.encoders)
        return encoded + self.sources.audio.length_us


def build_plan(sources: AnalyzedSources, tools: MediaTools, folder: Path, *, longest_slice: int, copying: bool) -> Plan:
    """Return the plan for `sources`; `longest_slice` in microseconds; not `copying`: all is re-encoded."""
    videos, indices = sources.visible_videos, sources.frame_indices
    if not copying:
        # A decoder that started in the middle of a file has produced a wrong cut: now it starts at the beginning.
        indices = {number: FrameIndex(video, seekable=False) for number, video in videos.items()}
    target, copied = pieces.choose_video_target(videos)
    reasons = pieces.find_encode_reasons(videos, copied if copying else frozenset())
    gap = max((segment.length for segment in sources.segments if segment.clip is None), default=0)
    slice_frames = pieces.count_frames_in(min(longest_slice, max(gap, MIN_SLICE_US)), target.rate)
    parts = pieces.plan_pieces(sources.segments, indices, reasons, target.rate, slice_frames)
    encoders = {
        number: tuple(
            encode_cut_command(
                tools, target, sources.screens[part.clip], part.cut, indices[part.clip], folder / encoded_file_name(number)
            )
        )
        for number, part in enumerate(parts)
        if part.clip is not None and part.cut is not None and part.reason is not None
    }
    padding = tuple(padding_command(tools, target, slice_frames, folder / PADDING))
    # ffmpeg finds a packet by its decoding time: with B-frames that of the last frame is earlier.
    early = max(index.reordering_us for index in indices.values()) + TIME_TOLERANCE_US
    end_us = max(0, _last_frame_us(parts, indices, target, slice_frames) - early)
    checks = plan_frame_checks(parts, indices)
    numbers, size = [frame.number for frame in checks], comparison_size(target)
    check = tuple(check_command(tools, folder / EXCERPTS, folder / MUXED, end_us, numbers, size))
    views = source_frame_commands(checks, sources.screens, indices, target, tools, folder, seekable=copying)
    frame_commands = tuple(map(tuple, views))
    return Plan(sources, target, indices, parts, slice_frames, padding, encoders, checks, frame_commands, end_us, check)


def encoded_file_name(number: int) -> str:
    """Return the file name of the re-encoded piece with this `number`."""
    return f"encoded-{number}.mp4"


def _last_frame_us(parts: Sequence[Piece], indices: Mapping[int, FrameIndex], target: VideoTarget, slice_frames: int) -> int:
    part = parts[-1]
    if part.clip is None or part.cut is None:
        begin, end = list(pieces.padding_slices(part.end - part.begin, slice_frames, target.rate))[-1]
        return part.begin + begin + round((pieces.count_frames_in(end - begin, target.rate) - 1) * 1_000_000 / target.rate)
    shown = indices[part.clip].visible_frame(part.cut.end - 2 * TIME_TOLERANCE_US)
    return part.begin + max(0, shown - part.cut.begin)
