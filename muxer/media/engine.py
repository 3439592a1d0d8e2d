"""Makes one muxed file out of an audio file and screen files: probe, plan, render, verify."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from muxer.errors import MediaError, MetadataError, ToolError
from muxer.gir.models import to_microseconds
from muxer.media import render, timeline, verify
from muxer.media.cut import Index
from muxer.media.probe import Probed, Video, need_audio, need_video, probe
from muxer.media.render import Piece, Target, Tools
from muxer.process import Runner

log = logging.getLogger(__name__)

A = TypeVar("A")
R = TypeVar("R")

RENDER_SECONDS = 900.0
ENCODE_SECONDS_PER_SECOND = 20
# Metadata come in whole seconds; a file that is shorter by more than this, in microseconds, is told.
SHORT_BY = 2_000_000


@dataclass(frozen=True)
class Input:
    """A fetched media file: its path, its name for messages, when it begins and, by its metadata, ends."""

    path: Path
    name: str
    start: datetime
    stop: datetime | None = None


@dataclass(frozen=True)
class Muxed:
    """A finished muxed file. Lengths are microseconds; ``reasons`` says why something was re-encoded, if anything was."""

    path: Path
    length: int
    padding: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class _Sources:
    """What was fetched, probed."""

    audio: Probed
    start: datetime
    clips: Mapping[int, Probed]
    segments: tuple[timeline.Segment, ...]

    @property
    def videos(self) -> dict[int, Video]:
        return {index: need_video(probed) for index, probed in self.clips.items()}

    @property
    def length(self) -> int:
        return need_audio(self.audio).length_us


class Engine:
    """The media engine, with the options that concern it. Safe to use from any thread."""

    def __init__(self, tools: Tools, runner: Runner, *, tolerance: float, slice_ms: int, audio_codec: str) -> None:
        """Given the programs and the options ``max_overlap_allowed`` (seconds), ``video_padding_slice_length_ms`` and
        ``audio_codec``."""
        self._tools = tools
        self._runner = runner
        self._tolerance = round(tolerance * 1_000_000)
        self._slice = slice_ms * 1_000
        self._audio_codec = audio_codec

    def mux(self, audio: Input, screens: Sequence[Input], folder: Path) -> Muxed:
        """Given the fetched files, make the muxed file in ``folder`` and return it, verified.

        A result that fails its verification is made once more, with everything re-encoded. Raise
        :class:`~muxer.errors.MediaError` or :class:`~muxer.errors.MetadataError` when there is no way.
        """
        sources = self._sources(audio, screens, folder)
        try:
            return self._attempt(sources, folder, copying=True)
        except (MediaError, ToolError) as error:
            log.warning("the muxed file is made again, with everything re-encoded: %s", error)
        try:
            return self._attempt(sources, folder, copying=False)
        except ToolError as error:
            raise MediaError(f"the media cannot be muxed: {error}") from error

    def _sources(self, audio: Input, screens: Sequence[Input], folder: Path) -> _Sources:
        """Probe everything and plan the timeline."""
        sound = self._probe(audio, audio.path)
        warn_if_short(audio, with_name(need_audio, sound, audio.name).length_us)
        clips = {}
        for index, screen in enumerate(screens):
            probed = self._probe(screen, screen.path)
            warn_if_short(screen, with_name(need_video, probed, screen.name).length_us)
            clips[index] = self._alone(screen, probed, folder / f"alone-{index}.mp4")
        segments = timeline.plan(
            to_microseconds(audio.start),
            need_audio(sound).length_us,
            [
                timeline.Clip(index, to_microseconds(screens[index].start), video.length_us, video.frame_us)
                for index, video in ((index, need_video(probed)) for index, probed in clips.items())
            ],
            self._tolerance,
        )
        used = {segment.clip for segment in segments if segment.clip is not None}
        for index in clips.keys() - used:
            log.warning("%s shows nothing within the audio's time", screens[index].name)
        if not used:
            raise MetadataError("by their metadata and lengths, no screen file overlaps the audio file")
        return _Sources(sound, audio.start, {index: clips[index] for index in sorted(used)}, segments)

    def _probe(self, source: Input, path: Path) -> Probed:
        return with_name(lambda file: probe(file, self._tools.ffprobe, self._runner), path, source.name)

    def _alone(self, screen: Input, probed: Probed, path: Path) -> Probed:
        """Return the video stream of a file in an MP4 file without other streams, when that is needed for copying it."""
        video = need_video(probed)
        if not render.is_copyable(video) or (probed.streams == 1 and "mp4" in probed.container):
            return probed
        try:
            self._runner.run(render.remux_command(self._tools, probed.path, path), timeout=RENDER_SECONDS)
        except ToolError as error:
            raise MediaError(f"{screen.name}: its video stream cannot be copied: {error}") from error
        return self._probe(screen, path)

    def _attempt(self, sources: _Sources, folder: Path, *, copying: bool) -> Muxed:
        target, copied = render.choose_target(sources.videos)
        parts = render.pieces(sources.segments, sources.videos, copied if copying else frozenset(), target.rate)
        slice_frames = render.frames_in(self._slice, target.rate)
        files, starts = self._files(sources, parts, target, slice_frames, folder)
        video_list = folder / "video.ffconcat"
        video_list.write_text(render.concat_list(parts, files, starts, slice_frames, target.rate), encoding="utf-8")
        output = folder / "muxed.mp4"
        audio = need_audio(sources.audio)
        codec = render.audio_codec(audio, self._audio_codec)
        command = render.mux_command(
            self._tools, video_list, sources.audio, sources.length, codec, sources.start, output
        )
        self._runner.run(command, timeout=RENDER_SECONDS + sources.length / 1_000_000, cwd=folder)
        made = probe(output, self._tools.ffprobe, self._runner)
        verify.check_plan(made, target, parts, audio, sources.length)
        verify.check_joins(made, parts, self._tools, self._runner)
        reasons = {part.reason for part in parts if part.reason is not None}
        if codec != self._audio_codec:
            reasons.add(f"{audio.codec} audio does not play in browsers")
        return Muxed(output, sources.length, timeline.padding(sources.segments), tuple(sorted(reasons)))

    def _files(
        self, sources: _Sources, parts: Sequence[Piece], target: Target, slice_frames: int, folder: Path
    ) -> tuple[list[str], list[int]]:
        """Make the files that pieces need besides the sources; return the name of each piece's file and its start."""
        files, starts = [], []
        slice_made = False
        for number, part in enumerate(parts):
            if part.clip is None:
                name, start = "padding.mp4", 0
                if not slice_made:
                    command = render.padding_command(self._tools, target, slice_frames, folder / name)
                    self._make(command, self._slice)
                    slice_made = True
            elif part.cut is not None and part.cut.reason is not None:
                name, start = f"encoded-{number}.mp4", 0
                probed = sources.clips[part.clip]
                index = Index(need_video(probed))
                command = render.encode_command(self._tools, target, probed, part.cut, index, folder / name)
                self._make(command, part.end - part.begin)
            else:
                probed = sources.clips[part.clip]
                video = need_video(probed)
                name, start = probed.path.name, video.microseconds(video.first)
            files.append(name)
            starts.append(start)
        return files, starts

    def _make(self, command: Sequence[str], length: int) -> None:
        self._runner.run(command, timeout=RENDER_SECONDS + ENCODE_SECONDS_PER_SECOND * length / 1_000_000)


def warn_if_short(source: Input, length: int) -> None:
    """Given a source and its length in microseconds, warn when it is shorter than its metadata say: the file counts, but
    it may be incomplete."""
    if source.stop is None:
        return
    promised = to_microseconds(source.stop) - to_microseconds(source.start)
    if promised - length > SHORT_BY:
        log.warning(
            "%s lasts %.1f s where its metadata say %.1f s; the file may be incomplete",
            source.name,
            length / 1e6,
            promised / 1e6,
        )


def with_name(function: Callable[[A], R], argument: A, name: str) -> R:
    """Given a function that may raise :class:`MediaError`, call it and put the file's name before the message."""
    try:
        return function(argument)
    except MediaError as error:
        raise MediaError(f"{name}: {error}") from error
