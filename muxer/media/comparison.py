"""Compare two muxed files: one that is stored, and a reference that was just made of the same sources.

Copied samples are the same bytes in both. Encoded ones may come from another build of ffmpeg, so their frames are compared
as they are shown, and encoded audio by its level.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

from muxer.errors import MediaError, ToolError
from muxer.media.analyze.audio_decode import decode_audio
from muxer.media.analyze.audio_levels import find_difference
from muxer.media.ffmpeg import QUIET_OPTIONS, MediaTools, input_options
from muxer.media.frame_comparison import is_alike
from muxer.media.mp4 import BoxError, Track, read_tracks, starts_with_index
from muxer.media.plan.commands import comparison_filters
from muxer.media.verify import presentation_times
from muxer.system import files
from muxer.system.process import Runner

# Times are rounded to ticks; a frame is shown for longer than this.
MAX_TIME_DIFFERENCE_US = 5_000
# Audio is compared in packets of up to a tenth of a second.
MAX_LENGTH_DIFFERENCE_US = 100_000
FRAME_SIZE = (64, 48)
DECODE_SECONDS = 4 * 3600.0


def compare_muxed(stored: Path, reference: Path, folder: Path, tools: MediaTools, runner: Runner) -> list[str]:
    """Return where and by how much `stored` differs from `reference`, empty when it does not. `folder` is for work files."""
    video, audio = _read_pair(reference)
    try:
        stored_video, stored_audio = _read_pair(stored)
        is_fast = starts_with_index(stored)
    except (BoxError, MediaError, ValueError) as error:
        return [f"it cannot be read as an MP4 file: {error}"]
    found = [] if is_fast else ["its index is behind the media: playback starts only when all of it is loaded"]
    found += _compare_lengths(stored_audio, audio)
    found += _compare_times(stored_video, video)
    for name, ours, theirs in (("video", stored_video, video), ("audio", stored_audio, audio)):
        found += _compare_samples(name, stored, ours, reference, theirs)
    return [*found, *_compare_decoded(stored, reference, video, folder, tools, runner)]


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
        yield f"it cannot be decoded to its end: {error}"
        return
    with outputs[0].open("rb") as ours, outputs[1].open("rb") as theirs:
        yield from _compare_frames(ours, theirs, presentation_times(wanted), wanted)
    for path in outputs:
        files.remove_file(path)
    yield from _compare_audio(stored, reference, tools, runner)


def _decode_frames(path: Path, output: Path, tools: MediaTools, runner: Runner, *, strict: bool) -> None:
    scale, pixels = comparison_filters(FRAME_SIZE)
    command = [tools.ffmpeg, *QUIET_OPTIONS, *(("-xerror",) if strict else ()), "-noautorotate", *input_options(path)]
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
        yield f"its audio cannot be decoded: {error}"
        return
    if found.errors > wanted.errors:
        yield f"its audio has {found.errors - wanted.errors} undecodable parts that its source does not have"
    elif abs(found.decoded_us - wanted.decoded_us) > MAX_LENGTH_DIFFERENCE_US:
        yield f"{found.decoded_us / 1e6:.3f} s of audio are decoded instead of {wanted.decoded_us / 1e6:.3f} s"
    elif (difference := find_difference(wanted.levels, found.levels)) is not None:
        second, level, actual = difference
        yield f"in second {second} its audio has a level of {actual:.0f} dB instead of {level:.0f} dB"
