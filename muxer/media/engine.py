"""Make one muxed file of an audio file and screen files: analyze, plan, encode, write, verify."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import BoundedSemaphore

from muxer.errors import Code, MediaError, MetadataError, ToolError
from muxer.gir.models import to_microseconds
from muxer.media import limits, verify
from muxer.media.analyze.arrival import Arrival, MediaInput, check_arrival
from muxer.media.analyze.copyable import read_copyable_screen
from muxer.media.analyze.decode_scan import keep_decodable
from muxer.media.analyze.source_reader import SourceReader
from muxer.media.comparison import Comparison, compare_muxed, find_decode_errors
from muxer.media.encode import ENCODE_SECONDS_PER_SECOND, run_encoder
from muxer.media.ffmpeg import ENCODER_THREADS, MediaTools
from muxer.media.media_info import MediaInfo, canvas_size, require_video
from muxer.media.mp4 import write_movie
from muxer.media.padding_cache import PaddingCache
from muxer.media.plan import pieces, timeline
from muxer.media.plan.mux_plan import (
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
from muxer.media.plan.pieces import Piece
from muxer.media.sample_spans import SampleSpan, build_sample_table
from muxer.status import activity
from muxer.system import files
from muxer.system.files import file_present
from muxer.system.process import Runner, record_commands

__all__ = ["MIN_SLICE_US", "Arrival", "MediaEngine", "MediaInput", "MuxTimeline", "MuxedFile", "Plan"]

log = logging.getLogger(__name__)

RENDER_SECONDS = 900.0
# A gap shorter than a frame, and than this, is filled by a longer frame; a part that short is dropped.
MAX_FILLED_US = 100_000


@dataclass(frozen=True)
class MuxedFile:
    """A finished muxed file. Durations are microseconds, also `shift`, a frame's largest distance from its true time.

    `reasons`: why something was re-encoded. `missing`: what sources lack. `paused`: how long the video is blank.
    """

    path: Path
    length: int
    padding: int
    shift: int
    reasons: tuple[str, ...]
    timeline: MuxTimeline
    missing: tuple[str, ...] = ()
    paused: int = 0


class MediaEngine:
    """Muxes recordings. Safe to use from any thread."""

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
        """The options max_overlap_allowed (seconds), slice length and audio_codec; `paddings` None keeps none."""
        self._tools = tools
        self._runner = runner
        self._tolerance = round(tolerance * 1_000_000)
        self._slice = slice_ms * 1_000
        self._paddings = paddings
        # Encoders use the cores: only as many as fit run at a time. Transfers and copies are not limited.
        self._encoders = BoundedSemaphore(max(1, (os.cpu_count() or 1) // ENCODER_THREADS))
        self._reader = SourceReader(tools, runner, audio_codec, self._encoders)

    def mux(self, audio: MediaInput, screens: Sequence[MediaInput], folder: Path) -> MuxedFile:
        """Mux files in `folder`; a result that fails is re-encoded once. Raises MediaError or MetadataError."""
        plan = self.plan_mux(audio, screens, folder)
        try:
            return self.execute_plan(plan, folder)
        except (MediaError, ToolError) as error:
            log.warning("muxing again with everything re-encoded: %s", error)
        self._forget_padding(folder / PADDING)
        sources = self._keep_decodable(plan.sources, screens)
        try:
            return self.execute_plan(self._decide_plan(sources, folder, copying=False), folder)
        except ToolError as error:
            raise MediaError(f"the media cannot be muxed: {error}", code=error.code) from error

    def plan_mux(self, audio: MediaInput, screens: Sequence[MediaInput], folder: Path) -> Plan:
        """Read the fetched files and plan the muxed file in `folder`. Raises the errors of mux."""
        return self._decide_plan(self._read_sources(audio, screens, folder), folder, copying=True)

    def execute_plan(self, plan: Plan, folder: Path) -> MuxedFile:
        """Create and verify the muxed file of a plan. Raises MediaError or ToolError when it is not as planned."""
        activity.set_expected_amount(plan.work_us)
        spans: list[SampleSpan] = []
        for number, part in enumerate(plan.parts):
            if part.clip is None or part.cut is None:
                spans += self._padding_spans(plan, part, folder)
            elif number in plan.encoders:
                source = plan.sources.screens[part.clip]
                # In a file that was not scanned, no decoder error is accepted.
                complaint = None if source.scanned else "["
                path, length = folder / encoded_file_name(number), part.end - part.begin
                with name_in_errors(plan.sources.names[part.clip]):
                    encoded = self._run_encoder(plan.encoders[number], path, length, complaint)
                spans.append(SampleSpan(encoded, 0, len(require_video(encoded).packets.pts), part.begin, part.begin))
            else:
                cut = part.cut
                spans.append(
                    SampleSpan(plan.sources.screens[part.clip], cut.first, cut.last, part.begin - cut.begin, part.begin)
                )
        return self._write_muxed(plan, spans, folder)

    def compare_files(self, stored: Path, reference: Path, folder: Path) -> Comparison:
        """Compare a muxed file with one just made of the same sources: where they differ, and what that proves."""
        return compare_muxed(stored, reference, folder, self._tools, self._runner)

    def find_decode_errors(self, path: Path, *, streams: str) -> str:
        """Return the first error of decoding `streams` (v, a) of a source to its end, empty when there is none."""
        return find_decode_errors(path, self._tools, self._runner, streams=streams)

    def _decide_plan(self, sources: AnalyzedSources, folder: Path, *, copying: bool) -> Plan:
        return build_plan(sources, self._tools, folder, longest_slice=self._slice, copying=copying)

    def _read_sources(self, audio: MediaInput, screens: Sequence[MediaInput], folder: Path) -> AnalyzedSources:
        missing: list[str] = []
        with record_commands() as commands:
            with name_in_errors(audio.name), check_arrival(audio, self._reader.salvage_file, missing) as check:
                audio_track, reasons = self._reader.read_audio(check.path, folder / SOUND)
                check.check_length(audio_track.length_us)
            read = [self._read_screen(screen, folder / f"plain-{n}.mp4", missing) for n, screen in enumerate(screens)]
        names = tuple(screen.name for screen in screens)
        sources = AnalyzedSources(
            *(audio_track, audio.start, names, tuple(read), (), (), (), reasons, tuple(commands)),
            missing=tuple(missing),
            paused=timeline.clamp_spans(audio.paused, audio_track.length_us),
        )
        sources = self._place_sources(sources, screens)
        limits.check_frame_size(*canvas_size(sources.visible_videos.values()))
        return sources

    def _place_sources(self, sources: AnalyzedSources, screens: Sequence[MediaInput]) -> AnalyzedSources:
        begin, length = to_microseconds(sources.start), sources.audio.length_us
        placed = tuple(_place_clip(n, screens[n], screen, begin) for n, screen in enumerate(sources.screens))
        unpaused = timeline.plan_segments(0, length, placed, self._tolerance)
        paused = timeline.plan_segments(0, length, placed, self._tolerance, sources.paused) if sources.paused else unpaused
        overlaps = timeline.find_overlaps(length, placed, self._tolerance)
        sources = replace(sources, clips=placed, segments=paused, unpaused=unpaused, overlaps=overlaps)
        for number in sorted(set(range(len(placed))) - set(sources.visible_screens)):
            log.warning("%s is not visible: it lies outside the audio", sources.names[number])
        if not sources.visible_screens:
            raise MetadataError(
                "by their metadata and lengths, no screen file overlaps the audio file", code=Code.NO_OVERLAP
            )
        return sources

    def _keep_decodable(self, sources: AnalyzedSources, screens: Sequence[MediaInput]) -> AnalyzedSources:
        read = list(sources.screens)
        for number in sources.visible_screens:
            if require_video(read[number]).avc is not None:
                with name_in_errors(sources.names[number]):
                    read[number] = keep_decodable(read[number], self._tools, self._runner)
        return self._place_sources(replace(sources, screens=tuple(read)), screens)

    def _read_screen(self, screen: MediaInput, output: Path, missing: list[str]) -> MediaInfo:
        with name_in_errors(screen.name), check_arrival(screen, self._reader.salvage_file, missing) as check:
            probed = self._reader.read_screen(check.path, output)
            check.check_length(video_start_us(screen, probed) + require_video(probed).length_us)
        return probed

    def _write_muxed(self, plan: Plan, spans: Sequence[SampleSpan], folder: Path) -> MuxedFile:
        audio, start, target = plan.sources.audio, plan.sources.start, plan.target
        configs = [avc for run in spans if (avc := require_video(run.source).avc) is not None]
        avc = target.avc if target.avc is not None and target.avc in configs else configs[0]
        table = replace(build_sample_table(spans, audio.length_us), orientation=target.orientation)
        output = folder / MUXED
        checksums = write_movie(output, table, avc, audio, start, activity.add_progress)
        verify.verify_result(verify.Expected(output, plan, table, avc, checksums), self._tools, self._runner)
        return MuxedFile(
            output,
            audio.length_us,
            padding=plan.padding_us,
            shift=plan.max_shift_us,
            reasons=plan.encode_reasons,
            timeline=plan.mux_timeline,
            missing=plan.sources.missing,
            paused=plan.paused_us,
        )

    def _padding_spans(self, plan: Plan, part: Piece, folder: Path) -> Iterator[SampleSpan]:
        """Yield the slices of a padding, the last one cut to fit."""
        slice_info = self._padding_slice(plan, folder / PADDING)
        for begin, end in pieces.padding_slices(part.end - part.begin, plan.slice_frames, plan.target.rate):
            at = part.begin + begin
            yield SampleSpan(slice_info, 0, pieces.count_frames_in(end - begin, plan.target.rate), at, at)

    def _padding_slice(self, plan: Plan, path: Path) -> MediaInfo:
        """Return a padding slice: one that is in this folder already, a kept one, or a new one."""
        target, slice_frames = plan.target, plan.slice_frames

        def encode_slice(path: Path) -> None:
            self._run_encoder(plan.padding_command, path, 0)

        parameters = f"{target.width}x{target.height} {target.pixels} {target.profile} {target.rate} {slice_frames}"
        for _ in range(2):
            if not path.exists() and self._paddings is not None:
                self._paddings.get_or_create(parameters, path, encode_slice)
            elif not path.exists():
                encode_slice(path)
            slice_info = _whole_slice(path, slice_frames)
            if slice_info is not None:
                return slice_info
            self._forget_padding(path)
        raise ToolError("the padding slice does not have the planned number of frames")

    def _forget_padding(self, path: Path) -> None:
        """Remove the padding slices of the job and all kept ones: one of them may be broken."""
        files.remove_file(path)
        if self._paddings is not None:
            self._paddings.remove_slices()

    def _run_encoder(self, command: Sequence[str], path: Path, length: int, complaint: str | None = None) -> MediaInfo:
        """Run an encoder whose output lasts `length` microseconds; return the file. `complaint` is that of Runner.run."""
        timeout = RENDER_SECONDS + ENCODE_SECONDS_PER_SECOND * length / 1_000_000
        with self._encoders:
            run_encoder(self._runner, command, length, timeout, complaint)
        encoded = read_copyable_screen(path)
        if encoded is None:
            raise ToolError(f"the encoder has not created a copyable MP4 file: {path.name}")
        return encoded


def _place_clip(index: int, screen: MediaInput, probed: MediaInfo, begin: int) -> timeline.Clip:
    """Return where a screen file is on the axis of an audio file that starts at `begin`."""
    video = require_video(probed)
    start = to_microseconds(screen.start) + video_start_us(screen, probed) - begin
    return timeline.Clip(index, start, video.length_us, min(video.frame_us, MAX_FILLED_US))


def video_start_us(screen: MediaInput, probed: MediaInfo) -> int:
    """Return how much later than the file its video starts, in microseconds.

    An empty beginning may be the clock of a longer recording: it counts when the metadata leave room for it.
    """
    if screen.stop is None or not probed.empty_us:
        return probed.audio_only_us + probed.lost_us
    shown = require_video(probed).length_us + probed.lost_us
    room = to_microseconds(screen.stop) - to_microseconds(screen.start) - shown
    return probed.lost_us + (probed.empty_us if 2 * room > probed.empty_us else 0)


def _whole_slice(path: Path, frames: int) -> MediaInfo | None:
    with contextlib.suppress(MediaError):
        slice_info = read_copyable_screen(path)
        if slice_info is not None and len(require_video(slice_info).packets.pts) == frames:
            return slice_info
    return None


@contextmanager
def name_in_errors(name: str) -> Iterator[None]:
    """Name the file in a MediaError or ToolError of this block. A removed file raises LocalResourceError."""
    try:
        with file_present(name):
            yield
    except (MediaError, ToolError) as error:
        named = MediaError(f"{name}: {error}", code=error.code if isinstance(error, MediaError) else None)
        named.source = name
        raise named from error
