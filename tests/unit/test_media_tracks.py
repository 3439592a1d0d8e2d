"""The tracks of MP4 files, compared with ffprobe, and damaged files."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxer.errors import MediaError
from muxer.media.analyze.copyable import read_copyable_audio, read_copyable_screen
from muxer.media.mp4 import boxes
from muxer.media.mp4.boxes import BoxError
from muxer.media.mp4.tracks import Track, read_tracks
from tests.support import mp4
from tests.support.media_kinds import run_ffmpeg
from tests.support.mp4 import Packet

pytestmark = pytest.mark.servers

COPY = ("-c", "copy")
ENCODINGS: dict[str, tuple[str, ...]] = {
    "as encoded": COPY,
    "index in front": (*COPY, "-movflags", "+faststart"),
    "no edit list": (*COPY, "-use_editlist", "0"),
    "times of milliseconds": (*COPY, "-video_track_timescale", "1000"),
    "of a tick that does not divide the frame": (*COPY, "-video_track_timescale", "90001"),
    "creation time": (*COPY, "-metadata", "creation_time=2024-01-02T03:04:05Z"),
}
MAX_BYTES = 30_000_000
MANY_SAMPLES = 9_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracks")


@pytest.fixture(scope="module")
def reordered(folder: Path) -> Path:
    return mp4.create_video(folder / "reordered.mp4", *mp4.B_FRAMES)


@pytest.fixture(scope="module")
def in_order(folder: Path) -> Path:
    return mp4.create_video(folder / "in-order.mp4", *mp4.X264, "-bf", "0", "-g", "7")


def read_packets(track: Track) -> list[Packet]:
    """Return the packets of a track in the form of ffprobe."""
    shifts = track.shifts or [0] * len(track.sizes)
    sync = set(range(len(track.sizes)) if track.sync is None else track.sync)
    rows = zip(track.decode_times, shifts, track.durations, track.sizes, track.offsets, strict=True)
    origin = track.skipped - track.delay
    return [
        Packet(at - origin + shift, at - origin, duration, size, offset, "K_" if number in sync else "__")
        for number, (at, shift, duration, size, offset) in enumerate(rows)
    ]


@pytest.mark.parametrize("way", ENCODINGS)
@pytest.mark.parametrize("name", ["reordered", "in_order"])
def test_every_packet_matches_ffprobe(folder: Path, request: pytest.FixtureRequest, name: str, way: str) -> None:
    path = folder / "created.mp4"
    run_ffmpeg("-i", request.getfixturevalue(name), *ENCODINGS[way], path)
    [track] = read_tracks(path)
    there = mp4.read_packets(path)
    if "does not divide" in way:  # ffprobe then rounds durations, not times
        there = [one._replace(duration=mine.duration) for one, mine in zip(there, read_packets(track), strict=True)]
    assert read_packets(track) == there
    assert len(track.sizes) == 20
    assert (track.shifts is None) == (name == "in_order")


def test_an_empty_edit_delays_the_track(folder: Path, reordered: Path) -> None:
    path = folder / "late.mp4"
    run_ffmpeg("-itsoffset", "1.5", "-i", reordered, *COPY, path)
    [track] = read_tracks(path)
    assert track.delay == 1.5 * track.timescale
    assert read_packets(track) == mp4.read_packets(path)


def test_an_edit_list_that_hides_frames_skips_them(folder: Path, reordered: Path) -> None:
    path = folder / "hiding.mp4"
    run_ffmpeg("-ss", "0.5", "-i", reordered, *COPY, "-avoid_negative_ts", "disabled", path)
    [track] = read_tracks(path)
    assert [(packet.pts, packet.size, packet.pos) for packet in read_packets(track)] == [
        (item.pts, item.size, item.pos) for item in mp4.read_packets(path)
    ]
    assert min(one.pts for one in read_packets(track)) < 0
    assert read_copyable_screen(path) is None


def test_shifts_may_be_negative(folder: Path, reordered: Path) -> None:
    path = folder / "negative.mp4"
    run_ffmpeg("-i", reordered, *COPY, "-movflags", "+negative_cts_offsets", path)
    [track] = read_tracks(path)
    assert track.shifts is not None
    assert min(track.shifts) < 0
    assert [packet.pts for packet in read_packets(track)] == [item.pts for item in mp4.read_packets(path)]


@pytest.mark.parametrize("codec", [("-c:a", "aac"), ("-c:a", "libmp3lame"), ("-c:a", "libopus", "-ar", "48000")])
def test_audio_packets_match_ffprobe(folder: Path, codec: tuple[str, ...]) -> None:
    path = mp4.create_audio(folder / "sound.mp4", *codec, rate=48000)
    [track] = read_tracks(path)
    there = mp4.read_packets(path, "a:0")
    assert [(packet.pts, packet.size, packet.pos) for packet in read_packets(track)] == [
        (item.pts, item.size, item.pos) for item in there
    ]
    assert track.handler == b"soun"


def test_video_and_audio_are_two_tracks(folder: Path, in_order: Path) -> None:
    path = folder / "both.mp4"
    run_ffmpeg("-i", in_order, "-f", "lavfi", "-i", "sine", "-shortest", "-c:v", "copy", path)
    video, audio = read_tracks(path)
    assert (video.handler, audio.handler) == (b"vide", b"soun")
    assert read_packets(video) == mp4.read_packets(path)
    assert [packet.pos for packet in read_packets(audio)] == [item.pos for item in mp4.read_packets(path, "a:0")]


def test_a_fragmented_file_is_not_copyable(folder: Path, in_order: Path) -> None:
    path = folder / "fragmented.mp4"
    run_ffmpeg("-i", in_order, *COPY, "-movflags", "frag_keyframe+empty_moov", path)
    with pytest.raises(BoxError, match="fragmented"):
        read_tracks(path)
    assert read_copyable_screen(path) is None


@pytest.mark.parametrize("ending", ["mkv", "avi", "ts", "h264"])
def test_another_container_is_not_copyable(folder: Path, in_order: Path, ending: str) -> None:
    path = folder / f"other.{ending}"
    run_ffmpeg("-i", in_order, *COPY, path)
    with pytest.raises(BoxError):
        read_tracks(path)


def read_all_ways(path: Path) -> None:
    """Read a damaged file with every reader; only the expected errors may be raised, and little memory may be used."""
    tracemalloc.start()
    try:
        for reader in (read_tracks, read_copyable_screen, read_copyable_audio):
            expected = (BoxError, MediaError) if reader is read_tracks else MediaError
            try:
                reader(path)
            except expected:
                continue
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("way", ["as encoded", "index in front"])
def test_a_file_truncated_anywhere_is_never_read_as_complete(folder: Path, in_order: Path, way: str) -> None:
    whole, path = folder / "whole.mp4", folder / "truncated.mp4"
    run_ffmpeg("-i", in_order, *ENCODINGS[way], whole)
    content = whole.read_bytes()
    lengths = range(0, len(content), 97)
    for length in lengths:
        path.write_bytes(content[:length])
        with pytest.raises((BoxError, MediaError)):
            read_tracks(path)
    assert len(lengths) > 50


def test_the_number_of_available_frames_is_reported(folder: Path, in_order: Path) -> None:
    whole, path = folder / "front.mp4", folder / "part.mp4"
    run_ffmpeg("-i", in_order, *ENCODINGS["index in front"], whole)
    path.write_bytes(whole.read_bytes()[:-1])
    with pytest.raises(MediaError, match="19 of 20 frames"):
        read_copyable_screen(path)


OFFSETS = st.integers(0, 100_000)
NUMBERS = st.sampled_from([0, 1, 2**16, 2**31 - 1, 2**31, 2**32 - 1]).map(struct.Struct(">I").pack)
BYTES = st.integers(0, 255).map(lambda item: bytes([item]))
CHANGES = st.lists(st.tuples(OFFSETS, BYTES | NUMBERS), min_size=1, max_size=3)


@pytest.fixture(scope="module")
def small(folder: Path, in_order: Path) -> Path:
    """Return the content of a file with video and audio whose index comes first."""
    result = folder / "small.mp4"
    source = ("-i", in_order, "-f", "lavfi", "-i", "sine", "-t", "0.5", "-c:v", "copy", "-movflags", "+faststart")
    run_ffmpeg(*source, result)
    return result


@settings(max_examples=300, deadline=5000)
@given(CHANGES)
def test_a_file_with_changed_bytes_in_its_index_is_read_or_refused(
    folder: Path, small: Path, changes: list[tuple[int, bytes]]
) -> None:
    content = bytearray(small.read_bytes())
    index = content.index(b"mdat") - 4
    for position, value in changes:
        begin = position % (index - len(value))
        content[begin : begin + len(value)] = value
    path = folder / "changed.mp4"
    path.write_bytes(content)
    read_all_ways(path)


def field_offsets(content: bytes, kind: bytes, offset: int) -> Iterator[int]:
    """Return the offsets of a field in all boxes of a kind."""
    position = content.find(kind)
    while position >= 0:
        yield position + 4 + offset
        position = content.find(kind, position + 1)


@pytest.mark.parametrize("count", [2**32 - 1, 2**31, MANY_SAMPLES, 1_000_000, 0])
@pytest.mark.parametrize(
    ("kind", "offset"),
    [(b"stts", 4), (b"stsz", 4), (b"stsz", 8), (b"stsc", 4), (b"stco", 4), (b"stss", 4), (b"stts", 8), (b"stsc", 8),
     (b"stsc", 12), (b"stco", 8), (b"elst", 4), (b"stsd", 4), (b"elst", 8), (b"mvhd", 12), (b"mdhd", 12)],
)  # fmt: skip
def test_a_table_with_too_large_a_count_is_refused_without_using_memory(
    folder: Path, small: Path, kind: bytes, offset: int, count: int
) -> None:
    content = bytearray(small.read_bytes())
    offsets = list(field_offsets(bytes(content), kind, offset))
    assert offsets
    for position in offsets:
        content[position : position + 4] = struct.pack(">I", count)
    path = folder / "claims.mp4"
    path.write_bytes(content)
    read_all_ways(path)


def test_samples_of_one_size_beyond_the_file_are_refused_without_using_memory(folder: Path, small: Path) -> None:
    content = bytearray(small.read_bytes())
    for kind, offset, value in (
        (b"stsz", 4, 1),
        (b"stsz", 8, MANY_SAMPLES),
        (b"stts", 8, MANY_SAMPLES),
        (b"stsc", 12, MANY_SAMPLES),
    ):
        for position in field_offsets(bytes(content), kind, offset):
            content[position : position + 4] = struct.pack(">I", value)
    path = folder / "claims.mp4"
    path.write_bytes(content)
    read_all_ways(path)
    with pytest.raises(BoxError):
        read_tracks(path)


@pytest.mark.parametrize(
    "kind", [b"mvhd", b"mdhd", b"elst", b"stsz", b"stsc", b"stco", b"stts", b"hdlr", b"stsd", b"avcC", b"esds"]
)
def test_an_empty_box_is_refused(folder: Path, small: Path, kind: bytes) -> None:
    path = folder / "empty.mp4"
    path.write_bytes(empty_boxes(small.read_bytes(), kind))
    read_all_ways(path)


def empty_boxes(content: bytes, kind: bytes) -> bytes:
    """Make each box of a kind empty, followed by a free box that fills the space."""
    result = bytearray(content)
    for position in field_offsets(content, kind, 0):
        size = int.from_bytes(content[position - 8 : position - 4], "big")
        result[position - 8 : position] = boxes.build_box(kind)
        if size >= 16:
            result[position : position + 8] = struct.pack(">I4s", size - 8, b"free")
    return bytes(result)


def test_an_offset_beyond_the_valid_range_is_refused(folder: Path, in_order: Path) -> None:
    [track] = read_tracks(in_order)
    content = in_order.read_bytes()
    position = content.index(b"stco")
    count = int.from_bytes(content[position + 8 : position + 12], "big")
    assert count == 1, track
    wide = bytearray(content)
    wide[position : position + 4] = b"co64"
    wide[position - 4 : position] = struct.pack(">I", 24)
    wide[position + 12 : position + 20] = b"\xff" * 8
    path = folder / "wide.mp4"
    path.write_bytes(wide)
    read_all_ways(path)
