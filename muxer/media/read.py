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

from muxer import activity
from muxer.errors import Code, MediaError, ToolError
from muxer.media import limits, render
from muxer.media.audio import AudioReader
from muxer.media.completeness import MAX_HEADER_BYTES, Structure, examine, form_of
from muxer.media.compose import Run, arrange
from muxer.media.cut import NEAR
from muxer.media.decode_scan import keep_decodable
from muxer.media.encode import encode
from muxer.media.ordering import rises
from muxer.media.plain import Sound, read_screen
from muxer.media.probe import Probed, Video, need_video, probe
from muxer.media.render import Tools
from muxer.media.write import write_movie
from muxer.process import Runner

log = logging.getLogger(__name__)

MAKE_SECONDS = 900.0
# When an intermediate file began: nobody looks at it.
_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)


class Reader:
    """Reads sources. Safe to use from any thread."""

    def __init__(self, tools: Tools, runner: Runner, audio_codec: str, encoders: BoundedSemaphore) -> None:
        """Given the programs, the option ``audio_codec``, and what limits the number of encoders."""
        self._tools = tools
        self._runner = runner
        self._encoders = encoders
        self._audio = AudioReader(tools, runner, audio_codec, encoders)

    def sound(self, path: Path, made: Path) -> tuple[Sound, frozenset[str]]:
        """Given a call's audio file and where an MP4 file may be made of it, return its sound as it stands in the result,
        and why it was re-encoded although it was to be copied. Raise :class:`MediaError` when there is nothing to hear."""
        return self._audio.read(path, made)

    def screen(self, path: Path, made: Path) -> Probed:
        """Given a screen file and where a plain one may be made of it, return its frames. Raise :class:`MediaError` when
        there is nothing to see."""
        if path.stat().st_size == 0:
            raise MediaError("the file is empty", code=Code.EMPTY_FILE)
        found = self._screen(path, made)
        limits.check_picture(*need_video(found).size)
        if found.lost_us:
            lost = found.lost_us / 1e6
            log.warning("the first %.2f s of a screen file cannot be decoded: no keyframe comes before them", lost)
        return found

    def salvage(self, path: Path) -> Path:
        """Copy what is there of the file at `path`, which breaks off, and return the path of the copy.

        The copy is a whole file of the same form; a frame that is not there as a whole is dropped. Raises MediaError when
        nothing can be read.
        """
        with path.open("rb") as file:
            form = form_of(file.read(MAX_HEADER_BYTES))
        made = path.with_name(f"{path.name}-salvaged")
        try:
            self._runner.run(render.salvage_command(self._tools, path, form, made), timeout=MAKE_SECONDS)
        except ToolError as error:
            what = f"the file is truncated, and nothing of it can be read: {error}"
            raise MediaError(what, code=Code.TRUNCATED) from error
        return made

    def _screen(self, path: Path, made: Path) -> Probed:
        plain = read_screen(path)
        if plain is not None:
            return self._without_pauses(plain, made) if plain.paused else plain
        found = probe(path, self._tools.ffprobe, self._runner)
        video = need_video(found)
        if examine(path) is Structure.TRUNCATED:
            raise MediaError("the file is truncated: it breaks off before its end", code=Code.TRUNCATED)
        if video.starts_over:
            path, found = self._continued(path, found, made)
            video = need_video(found)
        if video.lacks_times:
            return self._timed(path, found, made)
        copied = self._remuxed(path, found, made) if _may_become_plain(video) else None
        return copied or keep_decodable(found, self._tools, self._runner)

    def _continued(self, path: Path, found: Probed, made: Path) -> tuple[Path, Probed]:
        """Copy the frames of a file whose clock starts over, as that of joined files does, one after the other."""
        copied = made.with_suffix(".mkv")
        try:
            self._runner.run(render.continue_command(self._tools, path, need_video(found), copied), timeout=MAKE_SECONDS)
        except ToolError as error:
            log.info("the clock of a screen file starts over, and cannot be continued: %s", error)
            return path, found
        again = probe(copied, self._tools.ffprobe, self._runner)
        return copied, replace(again, late_us=found.late_us, lost_us=found.lost_us)

    def _timed(self, path: Path, found: Probed, made: Path) -> Probed:
        """Find out when the frames are shown of which the file does not say so: evenly spaced, where those are that do have
        a time, or when the decoder returns them."""
        what = "the file does not say when its frames are shown"
        if (step := need_video(found).step) is not None:
            retimed = self._retimed(path, need_video(found), step, made)
            if retimed is not None:
                return replace(_moved(retimed, found), reason=what)
            what += ", and not all of them can be decoded"
        decoded = keep_decodable(found, self._tools, self._runner)
        if not rises(need_video(decoded).packets.pts):
            raise MediaError(what, code=Code.NO_FRAME_TIMES)
        return decoded

    def _remuxed(self, path: Path, found: Probed, made: Path) -> Probed | None:
        """Copy the frames into an MP4 file; return None when that is not possible."""
        try:
            self._runner.run(render.remux_command(self._tools, path, need_video(found), made), timeout=MAKE_SECONDS)
        except ToolError as error:
            log.info("a screen file cannot be copied into an MP4 file and is re-encoded: %s", error)
            return None
        plain = read_screen(made)
        if plain is None:
            log.info("a screen file is re-encoded: its frames are of a form that is not copied")
            return None
        # A copy that lacks frames, or shows them at other times, is none.
        if not _is_same(need_video(plain), need_video(found)):
            log.info("a screen file is re-encoded: its copy as MP4 does not have the same frames at the same times")
            return None
        return _moved(plain, found)

    def _without_pauses(self, source: Probed, made: Path) -> Probed:
        """Copy the frames into an MP4 file that shows them at the same times without an edit list: ffmpeg does not know all
        of its forms."""
        video = need_video(source)
        row = arrange([Run(source, 0, len(video.packets.pts), 0, 0)], video.length_us)
        assert video.avc is not None
        write_movie(made, row, video.avc, None, _ANY_TIME)
        copied = read_screen(made)
        if copied is None:
            raise MediaError("its edit list cannot be resolved")
        return _moved(copied, source)

    def _retimed(self, path: Path, video: Video, step: Fraction, made: Path) -> Probed | None:
        """Re-encode the frames of a file evenly spaced, ``step`` seconds apart; return None when some of them are lost."""
        frames = len(video.packets.pts) + video.packets.timeless
        log.warning("a screen file is re-encoded as a whole: it does not say when its frames are shown")
        with self._encoders:
            length = round(frames * step * 1_000_000)
            activity.expect(length)
            encode(self._runner, render.retime_command(self._tools, path, video, step, made), length, MAKE_SECONDS)
        plain = read_screen(made)
        return plain if plain is not None and len(need_video(plain).packets.pts) == frames else None


def _moved(made: Probed, source: Probed) -> Probed:
    """Return a file that was made of a source, with what only the source says: when it begins, and how it is turned."""
    video = replace(need_video(made), orientation=need_video(source).orientation)
    return replace(made, video=video, late_us=source.late_us, empty_us=source.empty_us, lost_us=source.lost_us)


def _is_same(video: Video, other: Video) -> bool:
    """Whether two files have the same frames at the same distances."""
    times, others = (array("q", sorted(map(one.microseconds, one.packets.pts))) for one in (video, other))
    if len(times) != len(others):
        return False
    return all(abs(one - times[0] - another + others[0]) <= 2 * NEAR for one, another in zip(times, others, strict=True))


def _may_become_plain(video: Video) -> bool:
    fits = video.codec == "h264" and video.entry.get("pix_fmt") in render.PIXELS
    return fits and not video.packets.hidden and not video.packets.changes
