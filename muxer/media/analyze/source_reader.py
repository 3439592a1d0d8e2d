"""Reads fetched files into a form whose samples can be copied.

Plain files are read at once, without any program; whatever else comes is looked at by ffprobe and made plain by ffmpeg,
where that is possible.
"""

from __future__ import annotations

import logging
from array import array
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
from muxer.media.analyze.decode_scan import keep_decodable
from muxer.media.analyze.probe import probe_file
from muxer.media.analyze.source_commands import continue_command, remux_command, retime_command, salvage_command
from muxer.media.encode import run_encoder
from muxer.media.ffmpeg import PIXEL_FORMATS, MediaTools
from muxer.media.media_info import TIME_TOLERANCE_US, MediaInfo, Video, require_video
from muxer.media.mp4 import CopyableAudio, is_increasing, write_movie
from muxer.media.sample_spans import SampleSpan, build_sample_table
from muxer.status import activity
from muxer.system.process import Runner

log = logging.getLogger(__name__)

CONVERT_SECONDS = 900.0
# When an intermediate file began: nobody looks at it.
_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


class SourceReader:
    """Reads sources. Safe to use from any thread."""

    def __init__(self, tools: MediaTools, runner: Runner, audio_codec: str, encoders: BoundedSemaphore) -> None:
        """Given the programs, the option ``audio_codec``, and what limits the number of encoders."""
        self._tools = tools
        self._runner = runner
        self._encoders = encoders
        self._audio = AudioReader(tools, runner, audio_codec, encoders)

    def read_audio(self, path: Path, made: Path) -> tuple[CopyableAudio, frozenset[str]]:
        """Given a call's audio file and where an MP4 file may be made of it, return its sound as it stands in the result,
        and why it was re-encoded although it was to be copied. Raise :class:`MediaError` when there is nothing to hear."""
        return self._audio.read_audio_file(path, made)

    def read_screen(self, path: Path, made: Path) -> MediaInfo:
        """Given a screen file and where a plain one may be made of it, return its frames. Raise :class:`MediaError` when
        there is nothing to see."""
        if path.stat().st_size == 0:
            raise MediaError("the file is empty", code=Code.EMPTY_FILE)
        found = self._make_copyable(path, made)
        limits.check_frame_size(*require_video(found).display_size)
        if found.lost_us:
            lost = found.lost_us / 1e6
            log.warning("the first %.2f s of a screen file cannot be decoded: no keyframe comes before them", lost)
        return found

    def salvage_file(self, path: Path) -> Path:
        """Copy what is there of the file at `path`, which breaks off, and return the path of the copy.

        The copy is a whole file of the same form; a frame that is not there as a whole is dropped. Raises MediaError when
        nothing can be read.
        """
        with path.open("rb") as file:
            form = container_form(file.read(MAX_HEADER_BYTES))
        made = path.with_name(f"{path.name}-salvaged")
        try:
            self._runner.run(salvage_command(self._tools, path, form, made), timeout=CONVERT_SECONDS)
        except ToolError as error:
            what = f"the file is truncated, and nothing of it can be read: {error}"
            raise MediaError(what, code=Code.TRUNCATED) from error
        return made

    def _make_copyable(self, path: Path, made: Path) -> MediaInfo:
        plain = read_copyable_screen(path)
        if plain is not None:
            return self._copy_without_edits(plain, made) if plain.paused else plain
        found = probe_file(path, self._tools.ffprobe, self._runner)
        video = require_video(found)
        if examine_structure(path) is Structure.TRUNCATED:
            raise MediaError("the file is truncated: it breaks off before its end", code=Code.TRUNCATED)
        if video.starts_over:
            path, found = self._copy_with_one_clock(path, found, made)
            video = require_video(found)
        if video.lacks_times:
            return self._find_frame_times(path, found, made)
        copied = self._remux_video(path, found, made) if _may_become_copyable(video) else None
        return copied or keep_decodable(found, self._tools, self._runner)

    def _copy_with_one_clock(self, path: Path, found: MediaInfo, made: Path) -> tuple[Path, MediaInfo]:
        """Copy the frames of a file whose clock starts over, as that of joined files does, one after the other."""
        copied = made.with_suffix(".mkv")
        try:
            self._runner.run(continue_command(self._tools, path, require_video(found), copied), timeout=CONVERT_SECONDS)
        except ToolError as error:
            log.info("the clock of a screen file starts over, and cannot be continued: %s", error)
            return path, found
        again = probe_file(copied, self._tools.ffprobe, self._runner)
        return copied, replace(again, audio_only_us=found.audio_only_us, lost_us=found.lost_us)

    def _find_frame_times(self, path: Path, found: MediaInfo, made: Path) -> MediaInfo:
        """Find out when the frames are shown of which the file does not say so: evenly spaced, where those are that do have
        a time, or when the decoder returns them."""
        what = "the file does not say when its frames are shown"
        if (step := require_video(found).frame_step) is not None:
            retimed = self._encode_evenly_spaced(path, require_video(found), step, made)
            if retimed is not None:
                return replace(_with_source_facts(retimed, found), reason=what)
            what += ", and not all of them can be decoded"
        decoded = keep_decodable(found, self._tools, self._runner)
        if not is_increasing(require_video(decoded).packets.pts):
            raise MediaError(what, code=Code.NO_FRAME_TIMES)
        return decoded

    def _remux_video(self, path: Path, found: MediaInfo, made: Path) -> MediaInfo | None:
        """Copy the frames into an MP4 file; return None when that is not possible."""
        try:
            self._runner.run(remux_command(self._tools, path, require_video(found), made), timeout=CONVERT_SECONDS)
        except ToolError as error:
            log.info("a screen file cannot be copied into an MP4 file and is re-encoded: %s", error)
            return None
        plain = read_copyable_screen(made)
        if plain is None:
            log.info("a screen file is re-encoded: its frames are of a form that is not copied")
            return None
        # A copy that lacks frames, or shows them at other times, is none.
        if not _has_same_frames(require_video(plain), require_video(found)):
            log.info("a screen file is re-encoded: its copy as MP4 does not have the same frames at the same times")
            return None
        return _with_source_facts(plain, found)

    def _copy_without_edits(self, source: MediaInfo, made: Path) -> MediaInfo:
        """Copy the frames into an MP4 file that shows them at the same times without an edit list: ffmpeg does not know all
        of its forms."""
        video = require_video(source)
        row = build_sample_table([SampleSpan(source, 0, len(video.packets.pts), 0, 0)], video.length_us)
        assert video.avc is not None
        write_movie(made, row, video.avc, None, _ANY_TIME)
        copied = read_copyable_screen(made)
        if copied is None:
            raise MediaError("its edit list cannot be resolved")
        return _with_source_facts(copied, source)

    def _encode_evenly_spaced(self, path: Path, video: Video, step: Fraction, made: Path) -> MediaInfo | None:
        """Re-encode the frames of a file evenly spaced, ``step`` seconds apart; return None when some of them are lost."""
        frames = len(video.packets.pts) + video.packets.packets_without_time
        log.warning("a screen file is re-encoded as a whole: it does not say when its frames are shown")
        with self._encoders:
            length = round(frames * step * 1_000_000)
            activity.set_expected_amount(length)
            run_encoder(self._runner, retime_command(self._tools, path, video, step, made), length, CONVERT_SECONDS)
        plain = read_copyable_screen(made)
        return plain if plain is not None and len(require_video(plain).packets.pts) == frames else None


def _with_source_facts(made: MediaInfo, source: MediaInfo) -> MediaInfo:
    """Return a file that was made of a source, with what only the source says: when it begins, and how it is turned."""
    video = replace(require_video(made), orientation=require_video(source).orientation)
    return replace(made, video=video, audio_only_us=source.audio_only_us, empty_us=source.empty_us, lost_us=source.lost_us)


def _has_same_frames(video: Video, other: Video) -> bool:
    """Whether two files have the same frames at the same distances."""
    times, others = (array("q", sorted(map(one.ticks_to_us, one.packets.pts))) for one in (video, other))
    if len(times) != len(others):
        return False
    return all(
        abs(one - times[0] - another + others[0]) <= 2 * TIME_TOLERANCE_US
        for one, another in zip(times, others, strict=True)
    )


def _may_become_copyable(video: Video) -> bool:
    fits = video.codec_name == "h264" and video.entry.get("pix_fmt") in PIXEL_FORMATS
    return fits and not video.packets.hidden and not video.packets.changes
