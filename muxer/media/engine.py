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

from muxer.errors import Code, MediaError, MetadataError, ToolError
from muxer.gir.models import to_microseconds
from muxer.media import limits, verify
from muxer.media.arrival import Arrival, check_arrival
from muxer.media.compose import SampleSpan, build_sample_table
from muxer.media.decode_scan import keep_decodable
from muxer.media.encode import run_encoder
from muxer.media.mp4.reader import SourceReader
from muxer.media.mp4.writer import write_movie
from muxer.media.paddings import PaddingCache
from muxer.media.plain import read_copyable_screen
from muxer.media.plan import pieces, timeline
from muxer.media.plan.pieces import MediaTools, Piece
from muxer.media.plan.screen_plan import (
    MIN_SLICE_US,
    MUXED,
    PADDING,
    SOUND,
    AnalyzedSources,
    MuxTimeline,
    Plan,
    build_plan,
    encoded_file_name,
)
from muxer.media.probe import MediaInfo, canvas_size, require_video
from muxer.status import activity
from muxer.system import files
from muxer.system.files import file_present
from muxer.system.process import Runner, record_commands

__all__ = ["MIN_SLICE_US", "Arrival", "MediaEngine", "MediaInput", "MuxTimeline", "MuxedFile", "Plan"]

log = logging.getLogger(__name__)

RENDER_SECONDS = 900.0
ENCODE_SECONDS_PER_SECOND = 20
# A gap shorter than a frame, and than this in microseconds, is filled by a longer frame; as short a part is left out.
MAX_FILLED_US = 100_000


@dataclass(frozen=True)
class MediaInput:
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
class MuxedFile:
    """A finished muxed file. Lengths are microseconds, also ``shift``, how far a picture is from its true
    moment at worst; ``reasons`` says why something was re-encoded, if anything was. `missing` are the sources that were
    used as far as they go, each with what it lacks, in words. `paused` is for how long the picture is blank because the
    recording was paused."""

    path: Path
    length: int
    padding: int
    shift: int
    reasons: tuple[str, ...]
    timeline: MuxTimeline
    missing: tuple[str, ...] = ()
    paused: int = 0


class MediaEngine:
    """The media engine, with the options that concern it. Safe to use from any thread."""

    def __init__(
        self,
        tools: MediaTools,
        runner: Runner,
        *,
        tolerance: float,
        slice_ms: int,
        audio_codec: str,
        paddings: PaddingCache | None = None,
    ) -> None:
        """Given the programs, the options ``max_overlap_allowed`` (seconds), ``video_padding_slice_length_ms`` and
        ``audio_codec``, and where padding slices are kept for other recordings (None = nowhere)."""
        self._tools = tools
        self._runner = runner
        self._tolerance = round(tolerance * 1_000_000)
        self._slice = slice_ms * 1_000
        self._paddings = paddings
        # Encoders take the cores; as many run at a time as there is room for, while transfers and copies go on.
        self._encoders = BoundedSemaphore(max(1, (os.cpu_count() or 1) // pieces.ENCODER_THREADS))
        self._reader = SourceReader(tools, runner, audio_codec, self._encoders)

    def mux(self, audio: MediaInput, screens: Sequence[MediaInput], folder: Path) -> MuxedFile:
        """Given the fetched files, make the muxed file in ``folder`` and return it, verified.

        A result that fails its verification is made once more, with everything re-encoded. Raise
        :class:`~muxer.errors.MediaError` or :class:`~muxer.errors.MetadataError` when there is no way.
        """
        plan = self.plan_mux(audio, screens, folder)
        try:
            return self.execute_plan(plan, folder)
        except (MediaError, ToolError) as error:
            log.warning("the muxed file is made again, with everything re-encoded: %s", error)
        self._forget_padding(folder / PADDING)
        sources = self._keep_decodable(plan.sources, screens)
        try:
            return self.execute_plan(self._decide_plan(sources, folder, copying=False), folder)
        except ToolError as error:
            raise MediaError(f"the media cannot be muxed: {error}", code=error.code) from error

    def plan_mux(self, audio: MediaInput, screens: Sequence[MediaInput], folder: Path) -> Plan:
        """Given the fetched files, read them and return what is to be made of them in ``folder``. Raise as :meth:`mux`."""
        return self._decide_plan(self._read_sources(audio, screens, folder), folder, copying=True)

    def execute_plan(self, plan: Plan, folder: Path) -> MuxedFile:
        """Given a plan for this ``folder``, make the muxed file and return it, verified. Raise
        :class:`~muxer.errors.MediaError` or :class:`~muxer.errors.ToolError` when it is not as planned."""
        activity.set_expected_amount(plan.work_us)
        runs: list[SampleSpan] = []
        for number, part in enumerate(plan.parts):
            if part.clip is None or part.cut is None:
                runs += self._padding_spans(plan, part, folder)
            elif number in plan.encoders:
                source = plan.sources.screens[part.clip]
                # Of a file of which that is not known already, the decoder must not complain.
                complaint = None if source.scanned else "["
                path, length = folder / encoded_file_name(number), part.end - part.begin
                with name_in_errors(plan.sources.names[part.clip]):
                    made = self._run_encoder(plan.encoders[number], path, length, complaint)
                runs.append(SampleSpan(made, 0, len(require_video(made).packets.pts), part.begin, part.begin))
            else:
                cut = part.cut
                runs.append(
                    SampleSpan(plan.sources.screens[part.clip], cut.first, cut.last, part.begin - cut.begin, part.begin)
                )
        return self._write_muxed(plan, runs, folder)

    def _decide_plan(self, sources: AnalyzedSources, folder: Path, *, copying: bool) -> Plan:
        return build_plan(sources, self._tools, folder, longest_slice=self._slice, copying=copying)

    def _read_sources(self, audio: MediaInput, screens: Sequence[MediaInput], folder: Path) -> AnalyzedSources:
        """Read everything and plan the timeline."""
        missing: list[str] = []
        with record_commands() as commands:
            with name_in_errors(audio.name), check_arrival(audio, self._reader.salvage_file, missing) as check:
                sound, reasons = self._reader.read_audio(check.path, folder / SOUND)
                check.check_length(sound.length_us)
            read = [
                self._read_screen(screen, folder / f"plain-{number}.mp4", missing) for number, screen in enumerate(screens)
            ]
        names = tuple(screen.name for screen in screens)
        sources = AnalyzedSources(
            *(sound, audio.start, names, tuple(read), (), (), (), reasons, tuple(commands)),
            missing=tuple(missing),
            paused=timeline.clamp_spans(audio.paused, sound.length_us),
        )
        sources = self._place_sources(sources, screens)
        limits.check_frame_size(*canvas_size(sources.visible_videos.values()))
        return sources

    def _place_sources(self, sources: AnalyzedSources, screens: Sequence[MediaInput]) -> AnalyzedSources:
        """Plan the timeline of sources that were read."""
        begin, length = to_microseconds(sources.start), sources.audio.length_us
        placed = tuple(_place_clip(number, screens[number], one, begin) for number, one in enumerate(sources.screens))
        unpaused = timeline.plan_segments(0, length, placed, self._tolerance)
        paused = timeline.plan_segments(0, length, placed, self._tolerance, sources.paused) if sources.paused else unpaused
        overlaps = timeline.find_overlaps(length, placed, self._tolerance)
        sources = replace(sources, clips=placed, segments=paused, unpaused=unpaused, overlaps=overlaps)
        for number in sorted(set(range(len(placed))) - set(sources.visible_screens)):
            log.warning("%s shows nothing within the audio's time", sources.names[number])
        if not sources.visible_screens:
            raise MetadataError(
                "by their metadata and lengths, no screen file overlaps the audio file", code=Code.NO_OVERLAP
            )
        return sources

    def _keep_decodable(self, sources: AnalyzedSources, screens: Sequence[MediaInput]) -> AnalyzedSources:
        """Return the sources with only those frames that can be decoded."""
        read = list(sources.screens)
        for number in sources.visible_screens:
            if require_video(read[number]).avc is not None:
                with name_in_errors(sources.names[number]):
                    read[number] = keep_decodable(read[number], self._tools, self._runner)
        return self._place_sources(replace(sources, screens=tuple(read)), screens)

    def _read_screen(self, screen: MediaInput, plain: Path, missing: list[str]) -> MediaInfo:
        with name_in_errors(screen.name), check_arrival(screen, self._reader.salvage_file, missing) as check:
            found = self._reader.read_screen(check.path, plain)
            check.check_length(video_start_us(screen, found) + require_video(found).length_us)
        return found

    def _write_muxed(self, plan: Plan, runs: Sequence[SampleSpan], folder: Path) -> MuxedFile:
        """Write the muxed file and check it."""
        sound, start, target = plan.sources.audio, plan.sources.start, plan.target
        shapes = [avc for run in runs if (avc := require_video(run.source).avc) is not None]
        avc = target.avc if target.avc is not None and target.avc in shapes else shapes[0]
        row = replace(build_sample_table(runs, sound.length_us), orientation=target.orientation)
        output = folder / MUXED
        checksums = write_movie(output, row, avc, sound, start, activity.add_progress)
        verify.verify_result(verify.Expected(output, plan, row, avc, checksums), self._tools, self._runner)
        kept = (
            plan.padding_us,
            plan.max_shift_us,
            plan.encode_reasons,
            plan.mux_timeline,
            plan.sources.missing,
            plan.paused_us,
        )
        return MuxedFile(output, sound.length_us, *kept)

    def _padding_spans(self, plan: Plan, part: Piece, folder: Path) -> Iterator[SampleSpan]:
        """Yield the slices of a padding, the last one cut to fit."""
        made = self._padding_slice(plan, folder / PADDING)
        for begin, end in pieces.padding_slices(part.end - part.begin, plan.slice_frames, plan.target.rate):
            at = part.begin + begin
            yield SampleSpan(made, 0, pieces.count_frames_in(end - begin, plan.target.rate), at, at)

    def _padding_slice(self, plan: Plan, path: Path) -> MediaInfo:
        """Return a padding slice: one that is in this folder already, one that is kept, or a new one."""
        target, slice_frames = plan.target, plan.slice_frames

        def encode_slice(path: Path) -> None:
            self._run_encoder(plan.padding_command, path, 0)

        parameters = f"{target.width}x{target.height} {target.pixels} {target.profile} {target.rate} {slice_frames}"
        for _ in range(2):
            if not path.exists() and self._paddings is not None:
                self._paddings.get_or_create(parameters, path, encode_slice)
            elif not path.exists():
                encode_slice(path)
            found = _whole_slice(path, slice_frames)
            if found is not None:
                return found
            self._forget_padding(path)
        raise ToolError("the padding slice is not what was planned")

    def _forget_padding(self, path: Path) -> None:
        """Let slices be made anew, the one in a job's folder and those that are kept: one of them may be broken."""
        files.remove_file(path)
        if self._paddings is not None:
            self._paddings.remove_slices()

    def _run_encoder(self, command: Sequence[str], path: Path, length: int, complaint: str | None = None) -> MediaInfo:
        """Run an encoder that makes so many microseconds, and return the plain file that it has made.

        ``complaint`` is that of :meth:`Runner.run`.
        """
        timeout = RENDER_SECONDS + ENCODE_SECONDS_PER_SECOND * length / 1_000_000
        with self._encoders:
            run_encoder(self._runner, command, length, timeout, complaint)
        made = read_copyable_screen(path)
        if made is None:
            raise ToolError(f"the encoder has made no plain MP4 file: {path.name}")
        return made


def _place_clip(index: int, screen: MediaInput, probed: MediaInfo, begin: int) -> timeline.Clip:
    """Return where a screen file's pictures lie on the axis of an audio file that begins at ``begin``."""
    video = require_video(probed)
    start = to_microseconds(screen.start) + video_start_us(screen, probed) - begin
    return timeline.Clip(index, start, video.length_us, min(video.frame_us, MAX_FILLED_US))


def video_start_us(screen: MediaInput, probed: MediaInfo) -> int:
    """Given a screen file and what it holds, return how much later than the file its pictures begin, in microseconds.

    Where an MP4 file says that there is nothing at first, that is a pause of the recorder, or what is left of the clock of
    a longer recording from which the file was cut. It counts when the file's metadata leave room for it.
    """
    if screen.stop is None or not probed.empty_us:
        return probed.audio_only_us + probed.lost_us
    shown = require_video(probed).length_us + probed.lost_us
    room = to_microseconds(screen.stop) - to_microseconds(screen.start) - shown
    return probed.lost_us + (probed.empty_us if 2 * room > probed.empty_us else 0)


def _whole_slice(path: Path, frames: int) -> MediaInfo | None:
    """Return a padding slice when it has so many frames."""
    with contextlib.suppress(MediaError):
        found = read_copyable_screen(path)
        if found is not None and len(require_video(found).packets.pts) == frames:
            return found
    return None


@contextmanager
def name_in_errors(name: str) -> Iterator[None]:
    """Put a file's name before the message of a :class:`MediaError` or :class:`ToolError` that comes out of this block; it
    is a :class:`MediaError` then. That the file is gone is a :class:`~muxer.errors.LocalResourceError`."""
    try:
        with file_present(name):
            yield
    except (MediaError, ToolError) as error:
        found = MediaError(f"{name}: {error}", code=error.code if isinstance(error, MediaError) else None)
        found.source = name
        raise found from error
