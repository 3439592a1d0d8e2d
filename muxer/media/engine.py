"""Makes one muxed file out of an audio file and screen files: read, plan, render, verify."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from threading import BoundedSemaphore

from muxer.errors import MediaError, MetadataError, ToolError
from muxer.gir.models import to_microseconds
from muxer.media import limits, render, timeline, verify
from muxer.media.compose import Run, arrange
from muxer.media.cut import Index
from muxer.media.paddings import Paddings
from muxer.media.plain import Sound, read_screen
from muxer.media.probe import Probed, Video, need_video, sizes
from muxer.media.read import Reader
from muxer.media.render import Piece, Target, Tools
from muxer.media.write import write_movie
from muxer.process import Runner
from muxer.transfer import present

log = logging.getLogger(__name__)

RENDER_SECONDS = 900.0
ENCODE_SECONDS_PER_SECOND = 20
# A padding slice is no longer than any gap of the recording, but at least this, so that slices fit other recordings too.
LEAST_SLICE = 5_000_000
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
    """What was fetched, read; ``clips`` are the screen files that are seen, ``names`` theirs, ``reasons`` why the audio was
    re-encoded."""

    sound: Sound
    start: datetime
    names: Mapping[int, str]
    clips: Mapping[int, Probed]
    segments: tuple[timeline.Segment, ...]
    reasons: frozenset[str]

    @property
    def videos(self) -> dict[int, Video]:
        return {index: need_video(probed) for index, probed in self.clips.items()}


class Engine:
    """The media engine, with the options that concern it. Safe to use from any thread."""

    def __init__(
        self,
        tools: Tools,
        runner: Runner,
        *,
        tolerance: float,
        slice_ms: int,
        audio_codec: str,
        paddings: Paddings | None = None,
    ) -> None:
        """Given the programs, the options ``max_overlap_allowed`` (seconds), ``video_padding_slice_length_ms`` and
        ``audio_codec``, and where padding slices are kept for other recordings (None = nowhere)."""
        self._tools = tools
        self._runner = runner
        self._tolerance = round(tolerance * 1_000_000)
        self._slice = slice_ms * 1_000
        self._paddings = paddings
        # Encoders take the cores; as many run at a time as there is room for, while transfers and copies go on.
        self._encoders = BoundedSemaphore(max(1, (os.cpu_count() or 1) // render.ENCODER_THREADS))
        self._reader = Reader(tools, runner, audio_codec, self._encoders)

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
        self._forget_padding(folder / "padding.mp4")
        try:
            return self._attempt(sources, folder, copying=False)
        except ToolError as error:
            raise MediaError(f"the media cannot be muxed: {error}") from error

    def _sources(self, audio: Input, screens: Sequence[Input], folder: Path) -> _Sources:
        """Read everything and plan the timeline."""
        with named(audio.name):
            sound, reasons = self._reader.sound(audio.path, folder / "sound.mp4")
        warn_if_short(audio, sound.length_us)
        clips: dict[int, Probed] = {}
        for index, screen in enumerate(screens):
            with named(screen.name):
                clips[index] = self._reader.screen(screen.path, folder / f"plain-{index}.mp4")
            warn_if_short(screen, late(screen, clips[index]) + need_video(clips[index]).length_us)
        segments = timeline.plan(
            to_microseconds(audio.start),
            sound.length_us,
            [
                _clip(index, screens[index], probed)
                for index, probed in clips.items()
            ],
            self._tolerance,
        )
        used = {segment.clip for segment in segments if segment.clip is not None}
        for index in clips.keys() - used:
            log.warning("%s shows nothing within the audio's time", screens[index].name)
        if not used:
            raise MetadataError("by their metadata and lengths, no screen file overlaps the audio file")
        seen = {index: clips[index] for index in sorted(used)}
        names = {index: screens[index].name for index in seen}
        limits.check_picture(*sizes(need_video(one) for one in seen.values()))
        return _Sources(sound, audio.start, names, seen, segments, reasons)

    def _attempt(self, sources: _Sources, folder: Path, *, copying: bool) -> Muxed:
        target, copied = render.choose_target(sources.videos)
        why = render.why_encoded(sources.videos, copied if copying else frozenset())
        indices = {index: Index(video) for index, video in sources.videos.items()}
        gap = max((one.length for one in sources.segments if one.clip is None), default=0)
        slice_frames = render.frames_in(min(self._slice, max(gap, LEAST_SLICE)), target.rate)
        parts = render.pieces(sources.segments, indices, why, target.rate, slice_frames)
        runs: list[Run] = []
        for number, part in enumerate(parts):
            if part.clip is None or part.cut is None:
                runs += self._padding_runs(part, target, slice_frames, folder)
            elif part.reason is not None:
                encoded = folder / f"encoded-{number}.mp4"
                command = render.encode_command(
                    self._tools, target, sources.clips[part.clip], part.cut, indices[part.clip], encoded
                )
                with named(sources.names[part.clip]):
                    made = self._make(command, encoded, part.end - part.begin)
                runs.append(Run(made, 0, len(need_video(made).packets.pts), part.begin, part.begin))
            else:
                cut = part.cut
                runs.append(Run(sources.clips[part.clip], cut.first, cut.last, part.begin - cut.begin, part.begin))
        return self._written(sources, target, parts, runs, folder)

    def _written(
        self, sources: _Sources, target: Target, parts: Sequence[Piece], runs: Sequence[Run], folder: Path
    ) -> Muxed:
        """Write the muxed file and check it."""
        shapes = [avc for run in runs if (avc := need_video(run.source).avc) is not None]
        avc = target.avc if target.avc is not None and target.avc in shapes else shapes[0]
        row = arrange(runs, sources.sound.length_us)
        output = folder / "muxed.mp4"
        write_movie(output, row, avc, sources.sound, sources.start)
        made = verify.Made(output, target, avc, parts, row, sources.sound, sources.start)
        verify.check(made, self._tools, self._runner)
        found = [*(part.reason for part in parts), *(clip.reason for clip in sources.clips.values())]
        reasons = {reason for reason in found if reason is not None} | sources.reasons
        return Muxed(output, sources.sound.length_us, timeline.padding(sources.segments), tuple(sorted(reasons)))

    def _padding_runs(self, part: Piece, target: Target, slice_frames: int, folder: Path) -> Iterator[Run]:
        """Yield the slices of a padding, the last one cut to fit."""
        made = self._padding(target, slice_frames, folder / "padding.mp4")
        for begin, end in render.slices(part.end - part.begin, slice_frames, target.rate):
            at = part.begin + begin
            yield Run(made, 0, render.frames_in(end - begin, target.rate), at, at)

    def _padding(self, target: Target, slice_frames: int, path: Path) -> Probed:
        """Return a padding slice: one that is in this folder already, one that is kept, or a new one."""

        def make(path: Path) -> None:
            self._make(render.padding_command(self._tools, target, slice_frames, path), path, self._slice)

        parameters = f"{target.width}x{target.height} {target.pixels} {target.profile} {target.rate} {slice_frames}"
        for _ in range(2):
            if not path.exists() and self._paddings is not None:
                self._paddings.bring(parameters, path, make)
            elif not path.exists():
                make(path)
            found = _whole_slice(path, slice_frames)
            if found is not None:
                return found
            self._forget_padding(path)
        raise ToolError("the padding slice is not what was planned")

    def _forget_padding(self, path: Path) -> None:
        """Let slices be made anew, the one in a job's folder and those that are kept: one of them may be broken."""
        path.unlink(missing_ok=True)
        if self._paddings is not None:
            self._paddings.forget()

    def _make(self, command: Sequence[str], path: Path, length: int) -> Probed:
        """Run an encoder, and return the plain file that it has made."""
        with self._encoders:
            self._runner.run(command, timeout=RENDER_SECONDS + ENCODE_SECONDS_PER_SECOND * length / 1_000_000)
        made = read_screen(path)
        if made is None:
            raise ToolError(f"the encoder has made no plain MP4 file: {path.name}")
        return made


def _clip(index: int, screen: Input, probed: Probed) -> timeline.Clip:
    """Return where a screen file's pictures lie."""
    video = need_video(probed)
    start = to_microseconds(screen.start) + late(screen, probed)
    return timeline.Clip(index, start, video.length_us, video.frame_us)


def late(screen: Input, probed: Probed) -> int:
    """Given a screen file and what it holds, return how much later than the file its pictures begin, in microseconds.

    Where an MP4 file says that there is nothing at first, that is a pause of the recorder, or what is left of the clock of
    a longer recording from which the file was cut. It counts when the file's metadata leave room for it.
    """
    if screen.stop is None or not probed.empty_us:
        return probed.late_us
    room = to_microseconds(screen.stop) - to_microseconds(screen.start) - need_video(probed).length_us
    return probed.empty_us if 2 * room > probed.empty_us else 0


def _whole_slice(path: Path, frames: int) -> Probed | None:
    """Return a padding slice when it has so many frames."""
    with contextlib.suppress(MediaError):
        found = read_screen(path)
        if found is not None and len(need_video(found).packets.pts) == frames:
            return found
    return None


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


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put a file's name before the message of a :class:`MediaError` or :class:`ToolError` that comes out of this block; it
    is a :class:`MediaError` then. That the file is gone is a :class:`~muxer.errors.LocalResourceError`."""
    try:
        with present(name):
            yield
    except (MediaError, ToolError) as error:
        raise MediaError(f"{name}: {error}") from error
