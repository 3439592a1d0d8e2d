"""Read fetched files into a form whose samples can be copied; only files that are not copyable need ffmpeg."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from threading import BoundedSemaphore

from muxer.errors import Code, MediaError, ToolError
from muxer.media import limits
from muxer.media.analyze.audio_reader import AudioReader
from muxer.media.analyze.completeness import MAX_HEADER_BYTES, Structure, container_form, examine_structure
from muxer.media.analyze.copyable import read_copyable_screen
from muxer.media.analyze.decode_scan import hold_to_end, keep_decodable
from muxer.media.analyze.probe import probe_file
from muxer.media.analyze.source_commands import (
    continue_command,
    distinct_times,
    even_times,
    remux_command,
    retime_command,
    salvage_command,
)
from muxer.media.encode import ENCODE_SECONDS_PER_SECOND, run_encoder
from muxer.media.ffmpeg import PIXEL_FORMATS, MediaTools
from muxer.media.media_info import TIME_TOLERANCE_US, MediaInfo, Video, require_video
from muxer.media.mp4 import CopyableAudio, is_increasing, write_movie
from muxer.media.sample_spans import SampleSpan, build_sample_table
from muxer.status import activity
from muxer.system.process import Runner

log = logging.getLogger(__name__)

CONVERT_SECONDS = 900.0
# The start time of an intermediate file, which is not used.
_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


class SourceReader:
    """Reads sources. Safe to use from any thread."""

    def __init__(self, tools: MediaTools, runner: Runner, audio_codec: str, encoders: BoundedSemaphore) -> None:
        self._tools = tools
        self._runner = runner
        self._encoders = encoders
        self._audio = AudioReader(tools, runner, audio_codec, encoders)

    def read_audio(self, path: Path, output: Path) -> tuple[CopyableAudio, frozenset[str]]:
        """Read a call's audio file. Returns also why it was re-encoded. Raises MediaError when there is no audio."""
        return self._audio.read_audio_file(path, output)

    def read_screen(self, path: Path, output: Path) -> MediaInfo:
        """Read a screen file; a converted one may be created at `output`. Raises MediaError when there is no video."""
        if path.stat().st_size == 0:
            raise MediaError("the file is empty", code=Code.EMPTY_FILE)
        screen = self._make_copyable(path, output)
        limits.check_frame_size(*require_video(screen).display_size)
        if screen.lost_us:
            seconds = screen.lost_us / 1e6
            log.warning("the first %.2f s of a screen file cannot be decoded: there is no keyframe before them", seconds)
        return screen

    def salvage_file(self, path: Path) -> Path:
        """Copy the readable part of a truncated file; return its path. Raises MediaError when nothing can be read."""
        with path.open("rb") as file:
            form = container_form(file.read(MAX_HEADER_BYTES))
        output = path.with_name(f"{path.name}-salvaged")
        # MOV supports older codecs of MP4 files; VP9, AV1, Opus and FLAC only MP4 itself.
        for form_written in ("mov", "mp4") if form == "mp4" else (form,):
            try:
                self._runner.run(salvage_command(self._tools, path, form_written, output), timeout=CONVERT_SECONDS)
            except ToolError as error:
                failure = error
            else:
                return output
        problem = f"the file is truncated, and no part of it can be read: {failure}"
        raise MediaError(problem, code=Code.TRUNCATED) from failure

    def _make_copyable(self, path: Path, output: Path) -> MediaInfo:
        copyable = read_copyable_screen(path)
        if copyable is None:
            copyable = self._convert_screen(path, output)
        elif copyable.paused:
            copyable = self._copy_without_edits(copyable, output)
        return self._space_frames(copyable, output) if require_video(copyable).is_crowded else copyable

    def _convert_screen(self, path: Path, output: Path) -> MediaInfo:
        probed = probe_file(path, self._tools.ffprobe, self._runner)
        video = require_video(probed)
        if examine_structure(path) is Structure.TRUNCATED:
            raise MediaError("the file is truncated: its end is missing", code=Code.TRUNCATED)
        if video.starts_over:
            path, probed = self._copy_with_one_clock(path, probed, output)
            video = require_video(probed)
        if video.lacks_times:
            return self._find_frame_times(path, probed, output)
        copied = self._remux_video(path, probed, output) if _may_become_copyable(video) else None
        return copied or keep_decodable(probed, self._tools, self._runner)

    def _copy_with_one_clock(self, path: Path, probed: MediaInfo, output: Path) -> tuple[Path, MediaInfo]:
        """Copy the frames of a file whose clock starts over (joined files) one after the other."""
        copied = output.with_suffix(".mkv")
        try:
            self._runner.run(continue_command(self._tools, path, require_video(probed), copied), timeout=CONVERT_SECONDS)
        except ToolError as error:
            log.info("the clock of a screen file starts over and cannot be corrected: %s", error)
            return path, probed
        again = probe_file(copied, self._tools.ffprobe, self._runner)
        return copied, replace(again, audio_only_us=probed.audio_only_us, lost_us=probed.lost_us)

    def _find_frame_times(self, path: Path, probed: MediaInfo, output: Path) -> MediaInfo:
        """Find the missing times of frames: evenly spaced if those with a time are, else as the decoder returns them."""
        reason = "the file does not say when its frames are shown"
        if (step := require_video(probed).frame_step) is not None:
            retimed = self._encode_evenly_spaced(path, require_video(probed), step, output)
            if retimed is not None:
                return replace(_with_source_facts(retimed, probed), reason=reason)
            reason += ", and not all of them can be decoded"
        decoded = keep_decodable(probed, self._tools, self._runner)
        if not is_increasing(require_video(decoded).packets.pts):
            raise MediaError(reason, code=Code.NO_FRAME_TIMES)
        return decoded

    def _remux_video(self, path: Path, probed: MediaInfo, output: Path) -> MediaInfo | None:
        """Copy the frames into an MP4 file. Returns None when that is not possible."""
        try:
            self._runner.run(remux_command(self._tools, path, require_video(probed), output), timeout=CONVERT_SECONDS)
        except ToolError as error:
            log.info("a screen file cannot be copied into an MP4 file and is re-encoded: %s", error)
            return None
        copyable = read_copyable_screen(output)
        if copyable is None:
            log.info("a screen file is re-encoded: its frames cannot be copied")
            return None
        # A copy that lacks frames, or shows them at other times, is useless.
        if not _has_same_frames(require_video(copyable), require_video(probed)):
            log.info("a screen file is re-encoded: its copy as MP4 does not have the same frames at the same times")
            return None
        return _with_source_facts(copyable, probed)

    def _copy_without_edits(self, source: MediaInfo, output: Path) -> MediaInfo:
        """Copy the frames into an MP4 file with the same times but no edit list: ffmpeg supports only some forms."""
        video = require_video(source)
        table = build_sample_table([SampleSpan(source, 0, len(video.packets.pts), 0, 0)], video.length_us)
        assert video.avc is not None
        write_movie(output, table, video.avc, None, _ANY_TIME)
        copied = read_copyable_screen(output)
        if copied is None:
            raise MediaError("the edit list of the file cannot be resolved")
        return _with_source_facts(copied, source)

    def _encode_evenly_spaced(self, path: Path, video: Video, step: Fraction, output: Path) -> MediaInfo | None:
        """Re-encode the frames of a file `step` seconds apart. Returns None when some of them are lost."""
        frames = len(video.packets.pts) + video.packets.packets_without_time
        log.warning("a screen file is re-encoded as a whole: it contains no frame times")
        command = retime_command(self._tools, path, video, even_times(step), 1 / step, output)
        return self._encode_retimed(command, frames, round(frames * step * 1_000_000), output)

    def _space_frames(self, source: MediaInfo, output: Path) -> MediaInfo:
        """Re-encode a file whose frames are too close to each other: the later of two is shown a little later."""
        reason = "frames of the file are shown at the same time"
        log.warning("a screen file is re-encoded as a whole: %s", reason)
        video, output = require_video(source), output.with_name(f"spaced-{output.name}")
        times = distinct_times(2 * TIME_TOLERANCE_US)
        command = retime_command(self._tools, source.path, video, times, video.frame_rate, output)
        spaced = self._encode_retimed(command, len(video.packets.pts), video.length_us, output)
        if spaced is None:
            return source
        encoded = require_video(spaced)
        hold_to_end(encoded.packets, encoded.ticks_to_us(encoded.first_pts) + video.length_us, encoded)
        return replace(_with_source_facts(spaced, source), reason=reason)

    def _encode_retimed(self, command: Sequence[str], frames: int, length: int, output: Path) -> MediaInfo | None:
        """Re-encode `frames` frames, of `length` microseconds, to `output`. Returns None when some of them are lost."""
        with self._encoders:
            activity.set_expected_amount(length)
            timeout = CONVERT_SECONDS + ENCODE_SECONDS_PER_SECOND * length / 1_000_000
            run_encoder(self._runner, command, length, timeout)
        copyable = read_copyable_screen(output)
        return copyable if copyable is not None and len(require_video(copyable).packets.pts) == frames else None


def _with_source_facts(converted: MediaInfo, source: MediaInfo) -> MediaInfo:
    """Return the `converted` file with what only its source states: when it starts, and its orientation."""
    video = replace(require_video(converted), orientation=require_video(source).orientation)
    return replace(
        converted, video=video, audio_only_us=source.audio_only_us, empty_us=source.empty_us, lost_us=source.lost_us
    )


def _has_same_frames(video: Video, other: Video) -> bool:
    """Return whether two files have the same frames at the same distances."""
    times, others = (array("q", sorted(map(file.ticks_to_us, file.packets.pts))) for file in (video, other))
    if len(times) != len(others):
        return False
    pairs = zip(times, others, strict=True)
    return all(abs(one - times[0] - another + others[0]) <= 2 * TIME_TOLERANCE_US for one, another in pairs)


def _may_become_copyable(video: Video) -> bool:
    fits = video.codec_name == "h264" and video.entry.get("pix_fmt") in PIXEL_FORMATS
    return fits and video.pixel_aspect == 1 and not video.packets.hidden and not video.packets.changes
