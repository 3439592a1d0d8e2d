"""Makes one muxed file out of an audio file and screen files: read, plan, render, verify."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from threading import BoundedSemaphore

from muxer import activity, files
from muxer.errors import Code, MediaError, MetadataError, ToolError
from muxer.gir.models import to_microseconds
from muxer.media import limits, render, timeline, verify
from muxer.media.arrival import Arrival, checked
from muxer.media.compose import Run, arrange
from muxer.media.decode_scan import keep_decodable
from muxer.media.encode import encode
from muxer.media.paddings import Paddings
from muxer.media.plain import read_screen
from muxer.media.plan import LEAST_SLICE, MUXED, PADDING, SOUND, Plan, Sources, Timeline, decide, encoded_name
from muxer.media.probe import Probed, need_video, sizes
from muxer.media.read import Reader
from muxer.media.render import Piece, Tools
from muxer.media.write import write_movie
from muxer.process import Runner, noted
from muxer.transfer import present

__all__ = ["LEAST_SLICE", "Arrival", "Engine", "Input", "Muxed", "Plan", "Timeline"]

log = logging.getLogger(__name__)

RENDER_SECONDS = 900.0
ENCODE_SECONDS_PER_SECOND = 20
# A gap shorter than a frame, and than this in microseconds, is filled by a longer frame; as short a part is left out.
MAX_FILLED = 100_000


@dataclass(frozen=True)
class Input:
    """A fetched media file: its path, its name for messages, when it begins and, by its metadata, ends.

    `arrival` states whether it may still be on its way. `shortfall` is what it lacks by its size, in words. `paused` are the
    spans of an audio file in which nothing may be shown, in microseconds from its start; an end of None is the end of the
    file.
    """

    path: Path
    name: str
    start: datetime
    stop: datetime | None = None
    arrival: Arrival = Arrival.UNKNOWN
    shortfall: str = ""
    paused: tuple[tuple[int, int | None], ...] = ()


@dataclass(frozen=True)
class Muxed:
    """A finished muxed file. Lengths are microseconds, also ``shift``, how far a picture is from its true
    moment at worst; ``reasons`` says why something was re-encoded, if anything was. `missing` are the sources that were
    used as far as they go, each with what it lacks, in words. `paused` is for how long the picture is blank because the
    recording was paused."""

    path: Path
    length: int
    padding: int
    shift: int
    reasons: tuple[str, ...]
    timeline: Timeline
    missing: tuple[str, ...] = ()
    paused: int = 0


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
        plan = self.plan(audio, screens, folder)
        try:
            return self.execute(plan, folder)
        except (MediaError, ToolError) as error:
            log.warning("the muxed file is made again, with everything re-encoded: %s", error)
        self._forget_padding(folder / PADDING)
        sources = self._decodable(plan.sources, screens)
        try:
            return self.execute(self._decided(sources, folder, copying=False), folder)
        except ToolError as error:
            raise MediaError(f"the media cannot be muxed: {error}", code=error.code) from error

    def plan(self, audio: Input, screens: Sequence[Input], folder: Path) -> Plan:
        """Given the fetched files, read them and return what is to be made of them in ``folder``. Raise as :meth:`mux`."""
        return self._decided(self._sources(audio, screens, folder), folder, copying=True)

    def execute(self, plan: Plan, folder: Path) -> Muxed:
        """Given a plan for this ``folder``, make the muxed file and return it, verified. Raise
        :class:`~muxer.errors.MediaError` or :class:`~muxer.errors.ToolError` when it is not as planned."""
        activity.expect(plan.work)
        runs: list[Run] = []
        for number, part in enumerate(plan.parts):
            if part.clip is None or part.cut is None:
                runs += self._padding_runs(plan, part, folder)
            elif number in plan.encoders:
                source = plan.sources.read[part.clip]
                # Of a file of which that is not known already, the decoder must not complain.
                complaint = None if source.scanned else "["
                path, length = folder / encoded_name(number), part.end - part.begin
                with named(plan.sources.names[part.clip]):
                    made = self._make(plan.encoders[number], path, length, complaint)
                runs.append(Run(made, 0, len(need_video(made).packets.pts), part.begin, part.begin))
            else:
                cut = part.cut
                runs.append(Run(plan.sources.read[part.clip], cut.first, cut.last, part.begin - cut.begin, part.begin))
        return self._written(plan, runs, folder)

    def _decided(self, sources: Sources, folder: Path, *, copying: bool) -> Plan:
        return decide(sources, self._tools, folder, longest_slice=self._slice, copying=copying)

    def _sources(self, audio: Input, screens: Sequence[Input], folder: Path) -> Sources:
        """Read everything and plan the timeline."""
        missing: list[str] = []
        with noted() as commands:
            with named(audio.name), checked(audio, self._reader.salvage, missing) as check:
                sound, reasons = self._reader.sound(check.path, folder / SOUND)
                check.check_length(sound.length_us)
            read = [self._read(screen, folder / f"plain-{number}.mp4", missing) for number, screen in enumerate(screens)]
        names = tuple(screen.name for screen in screens)
        sources = Sources(
            *(sound, audio.start, names, tuple(read), (), (), (), reasons, tuple(commands)),
            missing=tuple(missing),
            paused=timeline.clamp_spans(audio.paused, sound.length_us),
        )
        sources = self._placed(sources, screens)
        limits.check_picture(*sizes(sources.videos.values()))
        return sources

    def _placed(self, sources: Sources, screens: Sequence[Input]) -> Sources:
        """Plan the timeline of sources that were read."""
        begin, length = to_microseconds(sources.start), sources.sound.length_us
        placed = tuple(_clip(number, screens[number], one, begin) for number, one in enumerate(sources.read))
        unpaused = timeline.plan(0, length, placed, self._tolerance)
        paused = timeline.plan(0, length, placed, self._tolerance, sources.paused) if sources.paused else unpaused
        overlaps = timeline.overlaps(length, placed, self._tolerance)
        sources = replace(sources, placed=placed, segments=paused, unpaused=unpaused, overlaps=overlaps)
        for number in sorted(set(range(len(placed))) - set(sources.seen)):
            log.warning("%s shows nothing within the audio's time", sources.names[number])
        if not sources.seen:
            raise MetadataError(
                "by their metadata and lengths, no screen file overlaps the audio file", code=Code.NO_OVERLAP
            )
        return sources

    def _decodable(self, sources: Sources, screens: Sequence[Input]) -> Sources:
        """Return the sources with only those frames that can be decoded."""
        read = list(sources.read)
        for number in sources.seen:
            if need_video(read[number]).avc is not None:
                with named(sources.names[number]):
                    read[number] = keep_decodable(read[number], self._tools, self._runner)
        return self._placed(replace(sources, read=tuple(read)), screens)

    def _read(self, screen: Input, plain: Path, missing: list[str]) -> Probed:
        with named(screen.name), checked(screen, self._reader.salvage, missing) as check:
            found = self._reader.screen(check.path, plain)
            check.check_length(late(screen, found) + need_video(found).length_us)
        return found

    def _written(self, plan: Plan, runs: Sequence[Run], folder: Path) -> Muxed:
        """Write the muxed file and check it."""
        sound, start, target = plan.sources.sound, plan.sources.start, plan.target
        shapes = [avc for run in runs if (avc := need_video(run.source).avc) is not None]
        avc = target.avc if target.avc is not None and target.avc in shapes else shapes[0]
        row = replace(arrange(runs, sound.length_us), orientation=target.orientation)
        output = folder / MUXED
        checksums = write_movie(output, row, avc, sound, start, activity.advance)
        verify.check(verify.Made(output, plan, row, avc, checksums), self._tools, self._runner)
        kept = (plan.padding, plan.shift, plan.reasons, plan.timeline, plan.sources.missing, plan.paused)
        return Muxed(output, sound.length_us, *kept)

    def _padding_runs(self, plan: Plan, part: Piece, folder: Path) -> Iterator[Run]:
        """Yield the slices of a padding, the last one cut to fit."""
        made = self._padding(plan, folder / PADDING)
        for begin, end in render.slices(part.end - part.begin, plan.slice_frames, plan.target.rate):
            at = part.begin + begin
            yield Run(made, 0, render.frames_in(end - begin, plan.target.rate), at, at)

    def _padding(self, plan: Plan, path: Path) -> Probed:
        """Return a padding slice: one that is in this folder already, one that is kept, or a new one."""
        target, slice_frames = plan.target, plan.slice_frames

        def make(path: Path) -> None:
            self._make(plan.padding_command, path, 0)

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
        files.remove(path)
        if self._paddings is not None:
            self._paddings.forget()

    def _make(self, command: Sequence[str], path: Path, length: int, complaint: str | None = None) -> Probed:
        """Run an encoder that makes so many microseconds, and return the plain file that it has made.

        ``complaint`` is that of :meth:`Runner.run`.
        """
        timeout = RENDER_SECONDS + ENCODE_SECONDS_PER_SECOND * length / 1_000_000
        with self._encoders:
            encode(self._runner, command, length, timeout, complaint)
        made = read_screen(path)
        if made is None:
            raise ToolError(f"the encoder has made no plain MP4 file: {path.name}")
        return made


def _clip(index: int, screen: Input, probed: Probed, begin: int) -> timeline.Clip:
    """Return where a screen file's pictures lie on the axis of an audio file that begins at ``begin``."""
    video = need_video(probed)
    start = to_microseconds(screen.start) + late(screen, probed) - begin
    return timeline.Clip(index, start, video.length_us, min(video.frame_us, MAX_FILLED))


def late(screen: Input, probed: Probed) -> int:
    """Given a screen file and what it holds, return how much later than the file its pictures begin, in microseconds.

    Where an MP4 file says that there is nothing at first, that is a pause of the recorder, or what is left of the clock of
    a longer recording from which the file was cut. It counts when the file's metadata leave room for it.
    """
    if screen.stop is None or not probed.empty_us:
        return probed.late_us + probed.lost_us
    shown = need_video(probed).length_us + probed.lost_us
    room = to_microseconds(screen.stop) - to_microseconds(screen.start) - shown
    return probed.lost_us + (probed.empty_us if 2 * room > probed.empty_us else 0)


def _whole_slice(path: Path, frames: int) -> Probed | None:
    """Return a padding slice when it has so many frames."""
    with contextlib.suppress(MediaError):
        found = read_screen(path)
        if found is not None and len(need_video(found).packets.pts) == frames:
            return found
    return None


@contextmanager
def named(name: str) -> Iterator[None]:
    """Put a file's name before the message of a :class:`MediaError` or :class:`ToolError` that comes out of this block; it
    is a :class:`MediaError` then. That the file is gone is a :class:`~muxer.errors.LocalResourceError`."""
    try:
        with present(name):
            yield
    except (MediaError, ToolError) as error:
        found = MediaError(f"{name}: {error}", code=error.code if isinstance(error, MediaError) else None)
        found.source = name
        raise found from error
