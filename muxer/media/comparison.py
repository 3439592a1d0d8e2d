"""Compare two muxed files: one that is stored, and a reference that was just made of the same sources.

Copied samples are the same bytes in both. Encoded ones may come from another build of ffmpeg, so their frames are compared
as they are shown, and encoded audio by its level.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from muxer.errors import MediaError, ToolError
from muxer.media.analyze.audio_decode import decode_audio
from muxer.media.analyze.audio_levels import find_difference
from muxer.media.ffmpeg import QUIET_OPTIONS, MediaTools, input_options
from muxer.media.frame_comparison import is_alike
from muxer.media.mp4 import BoxError, Track, compare_indexes, read_tracks, starts_with_index
from muxer.media.plan.commands import comparison_filters
from muxer.media.verify import presentation_times
from muxer.system import files
from muxer.system.process import Runner

# Times are rounded to ticks; a frame is shown for longer than this.
MAX_TIME_DIFFERENCE_US = 5_000
# Audio is compared in packets of up to a tenth of a second.
MAX_LENGTH_DIFFERENCE_US = 100_000
FRAME_SIZE = (64, 48)
_VIDEO_TIMES = re.compile(r"/trak 1/.*/[sc]tts ")
# Boxes that the muxer writes without a value of a source. The others, such as the description of the codec, are copied or
# calculated: when only one of them differs, the source may have been changed instead.
_WRITTEN = re.compile(r"\b(ftyp|mvhd|hdlr|dref|vmhd|smhd|stsc|stco|co64|trak 1/mdia/mdhd|trak 2/tkhd) of its index")
# An error of ffmpeg is shown up to this length.
MAX_ERROR_LENGTH = 200
DECODE_SECONDS = 4 * 3600.0


@dataclass(frozen=True)
class Comparison:
    """Where a stored file differs from a reference, and what that proves.

    `proves_damage`: the stored file itself is wrong. `is_foreign`: it has hardly any sample of the reference. Otherwise a
    source may have been changed instead.
    """

    differences: tuple[str, ...] = ()
    proves_damage: bool = False
    is_foreign: bool = False


def compare_muxed(stored: Path, reference: Path, folder: Path, tools: MediaTools, runner: Runner) -> Comparison:
    """Return where and by how much `stored` differs from `reference`. `folder` is for work files."""
    video, audio = _read_pair(reference)
    try:
        stored_video, stored_audio = _read_pair(stored)
        is_fast = starts_with_index(stored)
        boxes = compare_indexes(stored, reference)
    except (BoxError, MediaError, ValueError) as error:
        return Comparison((f"it cannot be read as an MP4 file: {error}",), proves_damage=True)
    slow = [] if is_fast else ["its index is behind the media: playback starts only when all of it is loaded"]
    times = [*_compare_lengths(stored_audio, audio), *_compare_times(stored_video, video)]
    if not times:
        # Times that an earlier muxer rounded differently are no difference.
        boxes = [text for text in boxes if not _VIDEO_TIMES.search(text)]
    pairs = ((stored_video, video), (stored_audio, audio))
    samples = [
        text
        for name, (ours, theirs) in zip(("video", "audio"), pairs, strict=True)
        for text in _compare_samples(name, stored, ours, reference, theirs)
    ]
    decoded = list(_compare_decoded(stored, reference, video, folder, tools, runner))
    differences = (*slow, *boxes, *times, *samples, *decoded)
    if not differences:
        return Comparison()
    # Times of a source change several boxes, also those that the muxer writes.
    has_wrong_box = len(boxes) == 1 and _WRITTEN.search(boxes[0]) is not None and not samples
    is_broken = bool(find_decode_errors(stored, tools, runner)) and not find_decode_errors(reference, tools, runner)
    is_foreign = all(_count_shared(stored, ours, reference, theirs) * 2 < len(theirs.sizes) for ours, theirs in pairs)
    return Comparison(differences, is_broken or has_wrong_box or differences == tuple(slow), is_foreign)


def find_decode_errors(path: Path, tools: MediaTools, runner: Runner, *, streams: str = "va") -> str:
    """Return the first error of decoding `streams` (v: video, a: audio) of a file to its end, empty when there is none."""
    if "v" in streams:
        try:
            # Several threads print errors in another order each time.
            _decode_frames(path, Path(os.devnull), tools, runner, strict=True, threads=1)
        except ToolError as error:
            return describe_error(error, path.parent)
    if "a" in streams:
        try:
            errors = decode_audio(tools, runner, path).errors
        except (MediaError, ToolError) as error:
            return describe_error(error, path.parent)
        return f"{errors} parts of its audio cannot be decoded" if errors else ""
    return ""


def describe_error(error: Exception, folder: Path) -> str:
    """Return an error of a program without the folder of this run, shortened."""
    return shorten_text(str(error).replace(f"{folder}{os.sep}", ""))


def shorten_text(text: str) -> str:
    """Return the first line of an error of a program, short and the same in each run: without addresses in memory."""
    line = re.sub(r" @ 0x[0-9a-fA-F]+", "", next(iter(text.splitlines()), ""))
    return line if len(line) <= MAX_ERROR_LENGTH else f"{line[: MAX_ERROR_LENGTH - 1]}…"


def _count_shared(stored: Path, ours: Track, reference: Path, theirs: Track) -> int:
    """Return the number of samples that are the same bytes in both files."""
    rows = zip(ours.offsets, ours.sizes, theirs.offsets, theirs.sizes, strict=False)
    with stored.open("rb") as one, reference.open("rb") as other:
        return sum(
            size == wanted and _read_at(one, offset, size) == _read_at(other, place, wanted)
            for offset, size, place, wanted in rows
        )


def _read_pair(path: Path) -> tuple[Track, Track]:
    tracks = read_tracks(path)
    if len(tracks) != 2:
        raise BoxError(f"it has {len(tracks)} tracks and not one of video and one of audio")
    return tracks[0], tracks[1]


def _microseconds(ticks: int, track: Track) -> int:
    return ticks * 1_000_000 // track.timescale


def _compare_lengths(stored: Track, wanted: Track) -> Iterator[str]:
    ours, theirs = (_microseconds(track.total_ticks - track.skipped, track) for track in (stored, wanted))
    if abs(ours - theirs) > MAX_LENGTH_DIFFERENCE_US:
        yield f"the audio is {ours / 1e6:.3f} s long instead of {theirs / 1e6:.3f} s"


def _compare_times(stored: Track, wanted: Track) -> Iterator[str]:
    """Compare when each frame is shown: this includes the length, and every join."""
    ours, theirs = presentation_times(stored), presentation_times(wanted)
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        at, planned = _microseconds(mine, stored), _microseconds(other, wanted)
        if abs(at - planned) > MAX_TIME_DIFFERENCE_US:
            yield f"frame {number + 1} is shown at {at / 1e6:.3f} s instead of {planned / 1e6:.3f} s"
            return
    if len(ours) != len(theirs):
        yield f"it has {len(ours)} frames instead of {len(theirs)}"
        return
    lengths = [_microseconds(track.total_ticks - track.skipped, track) for track in (stored, wanted)]
    if abs(lengths[0] - lengths[1]) > MAX_LENGTH_DIFFERENCE_US:
        yield f"the video is {lengths[0] / 1e6:.3f} s long instead of {lengths[1] / 1e6:.3f} s"


def _compare_samples(name: str, stored: Path, ours: Track, reference: Path, theirs: Track) -> Iterator[str]:
    """Compare the bytes of samples of equal size: those of another size are encoded, and are compared as decoded."""
    times, count, first = ours.decode_times, 0, 0
    with stored.open("rb") as one, reference.open("rb") as other:
        for number, (size, wanted) in enumerate(zip(ours.sizes, theirs.sizes, strict=False)):
            if size == wanted and _read_at(one, ours.offsets[number], size) != _read_at(other, theirs.offsets[number], size):
                first = first if count else number
                count += 1
    # An encoder of another build gives hardly any sample the same size by chance.
    if count and count <= max(1, _equal_sizes(ours.sizes, theirs.sizes) // 2):
        at = _microseconds(times[first], ours) / 1e6
        yield f"{count} of {len(ours.sizes)} {name} samples have other bytes than their source, the first at {at:.3f} s"


def _equal_sizes(ours: array[int], theirs: array[int]) -> int:
    return sum(1 for size, wanted in zip(ours, theirs, strict=False) if size == wanted)


def _read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _compare_decoded(
    stored: Path, reference: Path, wanted: Track, folder: Path, tools: MediaTools, runner: Runner
) -> Iterator[str]:
    """Decode both files to their ends, and compare every frame and every second of audio."""
    outputs = [folder / "stored.yuv", folder / "reference.yuv"]
    try:
        _decode_frames(reference, outputs[1], tools, runner, strict=True)
        is_strict = True
    except ToolError:
        # A source may be damaged: then its damage is in both.
        _decode_frames(reference, outputs[1], tools, runner, strict=False)
        is_strict = False
    try:
        _decode_frames(stored, outputs[0], tools, runner, strict=is_strict)
    except ToolError as error:
        # Several threads print errors in another order each time.
        text = find_decode_errors(stored, tools, runner, streams="v") or describe_error(error, stored.parent)
        yield f"it cannot be decoded to its end: {text}"
        return
    with outputs[0].open("rb") as ours, outputs[1].open("rb") as theirs:
        yield from _compare_frames(ours, theirs, presentation_times(wanted), wanted)
    for path in outputs:
        files.remove_file(path)
    yield from _compare_audio(stored, reference, tools, runner)


def _decode_frames(path: Path, output: Path, tools: MediaTools, runner: Runner, *, strict: bool, threads: int = 0) -> None:
    """Decode the video of a file to small frames; `threads` 0: as many as ffmpeg chooses."""
    scale, pixels = comparison_filters(FRAME_SIZE)
    command = [tools.ffmpeg, *QUIET_OPTIONS, *(("-xerror",) if strict else ()), "-threads", str(threads), "-noautorotate"]
    command += input_options(path)
    command += ["-map", "0:v:0", "-vf", f"{scale},{pixels}", *tools.keep_times, "-f", "rawvideo", str(output)]
    runner.run(command, timeout=DECODE_SECONDS, complaint="[" if strict else None)


def _compare_frames(ours: BinaryIO, theirs: BinaryIO, times: Sequence[int], track: Track) -> Iterator[str]:
    length = FRAME_SIZE[0] * FRAME_SIZE[1] * 3 // 2
    pairs = zip_longest(_read_frames(ours, length), _read_frames(theirs, length))
    for number, (mine, other) in enumerate(pairs):
        at = _microseconds(times[min(number, len(times) - 1)], track) / 1e6
        if mine is None or other is None:
            yield f"{'fewer' if mine is None else 'more'} frames are decoded than from its sources, from {at:.3f} s on"
            return
        if not is_alike(mine, other, FRAME_SIZE):
            yield f"from {at:.3f} s on it shows other frames than its sources"
            return


def _read_frames(file: BinaryIO, length: int) -> Iterator[bytes]:
    return iter(lambda: file.read(length), b"")


def _compare_audio(stored: Path, reference: Path, tools: MediaTools, runner: Runner) -> Iterator[str]:
    wanted = decode_audio(tools, runner, reference)
    try:
        found = decode_audio(tools, runner, stored)
    except (MediaError, ToolError) as error:
        yield f"its audio cannot be decoded: {describe_error(error, stored.parent)}"
        return
    if found.errors > wanted.errors:
        yield f"its audio has {found.errors - wanted.errors} undecodable parts that its source does not have"
    elif abs(found.decoded_us - wanted.decoded_us) > MAX_LENGTH_DIFFERENCE_US:
        yield f"{found.decoded_us / 1e6:.3f} s of audio are decoded instead of {wanted.decoded_us / 1e6:.3f} s"
    elif (difference := find_difference(wanted.levels, found.levels)) is not None:
        second, level, actual = difference
        yield f"in second {second} its audio has a level of {actual:.0f} dB instead of {level:.0f} dB"
