"""Written files are read back unchanged by the muxer and by ffprobe; sample tables of several files."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.errors import LocalResourceError, MediaError
from muxer.media.analyze.copyable import read_copyable_audio, read_copyable_screen
from muxer.media.media_info import MediaInfo, require_video
from muxer.media.mp4 import writer
from muxer.media.mp4.avc import AvcConfig
from muxer.media.mp4.samples import TIMESCALE, SampleTable, decoding_times, to_ticks
from muxer.media.mp4.tracks import CopyableAudio, Track, read_tracks
from muxer.media.mp4.writer import write_movie
from muxer.media.sample_spans import SampleSpan, build_sample_table
from tests.support import mp4
from tests.support.media_kinds import run_program

pytestmark = pytest.mark.servers

START = datetime(2026, 3, 1, 9, 0, 30, tzinfo=UTC)
SECOND = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("write")


@pytest.fixture(scope="module")
def screens(folder: Path) -> dict[str, MediaInfo]:
    options = {
        "in order": (*mp4.X264, "-bf", "0", "-g", "10"),
        "reordered": mp4.B_FRAMES,
        "other sets": (*mp4.X264, "-bf", "0", "-g", "10", "-x264-params", "cqm=jvt:ref=3"),
    }
    found = {name: read_copyable_screen(mp4.create_video(folder / f"{name}.mp4", *one)) for name, one in options.items()}
    assert all(found.values())
    return {name: one for name, one in found.items() if one is not None}


@pytest.fixture(scope="module")
def audio_source(folder: Path) -> CopyableAudio:
    found = read_copyable_audio(mp4.create_audio(folder / "sound.m4a", "-c:a", "aac", seconds=5))
    assert found is not None
    return found


def whole_segment(source: MediaInfo, begin: int) -> SampleSpan:
    return SampleSpan(source, 0, len(require_video(source).packets.pts), begin, begin)


def avc_of(source: MediaInfo) -> AvcConfig:
    avc = require_video(source).avc
    assert avc is not None
    return avc


def write_file(path: Path, runs: Sequence[SampleSpan], audio: CopyableAudio | None, length: int = 7 * SECOND) -> SampleTable:
    row = build_sample_table(runs, length)
    write_movie(path, row, avc_of(runs[0].source), audio, START)
    return row


def own_bytes(path: Path, track: Track) -> list[bytes]:
    content = path.read_bytes()
    return [content[offset : offset + size] for offset, size in zip(track.offsets, track.sizes, strict=True)]


def expected_bytes(row: SampleTable) -> list[bytes]:
    files = [path.read_bytes() for path in row.files]
    expected = []
    for file, offset, size, before in zip(row.file, row.offsets, row.sizes, row.prefix, strict=True):
        prefix = row.prefixes[before]
        expected.append(prefix + files[file][offset : offset + size - len(prefix)])
    return expected


LAYOUTS = {
    "one file": [("in order", 0)],
    "reordered": [("reordered", 0)],
    "one after the other": [("in order", 0), ("in order", 2 * SECOND)],
    "several parameter sets": [("in order", 0), ("other sets", 2_033_333), ("reordered", 4_100_000)],
}


@pytest.mark.parametrize("wide", [False, True], ids=["offsets of 32 bits", "offsets of 64 bits"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_written_file_is_read_back_unchanged(
    tmp_path: Path,
    screens: dict[str, MediaInfo],
    audio_source: CopyableAudio,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
    wide: bool,
) -> None:
    if wide:
        monkeypatch.setattr(writer, "_MAX_32_BIT_SIZE", 64 << 20)
    path = tmp_path / "written.mp4"
    row = write_file(path, [whole_segment(screens[name], begin) for name, begin in LAYOUTS[layout]], audio_source)
    video, audio = read_tracks(path)
    assert own_bytes(path, video) == expected_bytes(row)
    assert own_bytes(path, audio) == own_bytes(audio_source.path, audio_source.track)
    assert replace(audio, offsets=audio_source.track.offsets, shown=audio_source.track.shown) == audio_source.track
    flags = ["K_" if key else "__" for key in row.sync]
    there = mp4.read_packets(path)
    assert [(item.pts, item.dts, item.size, item.flags) for item in there] == list(
        zip(row.pts, row.dts, row.sizes, flags, strict=True)
    )
    assert [one.pos for one in there] == list(video.offsets)
    before, after = mp4.read_packets(audio_source.path, "a:0"), mp4.read_packets(path, "a:0")
    assert [one[:4] for one in after] == [one[:4] for one in before]
    assert (b"co64" in path.read_bytes()) == wide


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_frames_are_those_of_the_sources(tmp_path: Path, screens: dict[str, MediaInfo], layout: str) -> None:
    path = tmp_path / "written.mp4"
    write_file(path, [whole_segment(screens[name], begin) for name, begin in LAYOUTS[layout]], None, 7 * SECOND)
    assert mp4.frame_checksums(path) == [
        checksum for name, _ in LAYOUTS[layout] for checksum in mp4.frame_checksums(screens[name].path)
    ]


def test_the_index_is_first_and_contains_time_length_and_size(
    tmp_path: Path, screens: dict[str, MediaInfo], audio_source: CopyableAudio
) -> None:
    path = tmp_path / "written.mp4"
    write_file(path, [whole_segment(screens["reordered"], 0)], audio_source, 3 * SECOND)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert run_program(
        "ffprobe", "-v", "error", "-show_entries", "format_tags=creation_time", "-of", "csv=p=0", path
    ).startswith("2026-03-01T09:00:30")
    names = ("width", "height", "sample_aspect_ratio", "duration", "profile")
    assert mp4.stream_fields(path, names) == {
        "profile": "High",
        "width": "320",
        "height": "180",
        "sample_aspect_ratio": "1:1",
        "duration": "3.000000",
    }


def test_video_and_audio_are_interleaved(tmp_path: Path, screens: dict[str, MediaInfo], audio_source: CopyableAudio) -> None:
    path = tmp_path / "written.mp4"
    write_file(
        path,
        [whole_segment(screens["in order"], 0), whole_segment(screens["in order"], 2 * SECOND)],
        audio_source,
        4 * SECOND,
    )
    samples = [(packet.pos, packet.pts / TIMESCALE) for packet in mp4.read_packets(path)]
    samples += [(item.pos, item.pts / audio_source.track.timescale) for item in mp4.read_packets(path, "a:0")]
    times = [time for _, time in sorted(samples)]
    assert all(later > earlier - 1.2 for earlier, later in pairwise(times))
    assert any(later < earlier for earlier, later in pairwise(times))


def test_a_truncated_or_removed_source_is_reported(tmp_path: Path, screens: dict[str, MediaInfo]) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(screens["in order"].path.read_bytes())
    row = build_sample_table([whole_segment(replace(screens["in order"], path=copy), 0)], 2 * SECOND)
    copy.write_bytes(copy.read_bytes()[:5000])
    with pytest.raises(MediaError, match=r"copy\.mp4 was truncated by"):
        write_movie(tmp_path / "written.mp4", row, avc_of(screens["in order"]), None, START)
    copy.unlink()
    with pytest.raises(LocalResourceError, match=r"copy\.mp4 was removed"):
        write_movie(tmp_path / "written.mp4", row, avc_of(screens["in order"]), None, START)


def test_parameter_sets_precede_keyframes_only_where_they_differ(screens: dict[str, MediaInfo]) -> None:
    same = build_sample_table(
        [whole_segment(screens["in order"], 0), whole_segment(screens["in order"], 2 * SECOND)], 4 * SECOND
    )
    assert same.prefixes == (b"",)
    one, other = screens["in order"], screens["other sets"]
    mixed = build_sample_table([whole_segment(one, 0), whole_segment(other, 2 * SECOND)], 4 * SECOND)
    assert mixed.prefixes == (b"", avc_of(one).in_band, avc_of(other).in_band)
    assert list(mixed.prefix) == [1 * key for key in mixed.sync[:20]] + [2 * key for key in mixed.sync[20:]]
    sizes = [*require_video(one).packets.sizes, *require_video(other).packets.sizes]
    added = [len(mixed.prefixes[before]) for before in mixed.prefix]
    assert list(mixed.sizes) == [size + more for size, more in zip(sizes, added, strict=True)]


def test_a_span_starts_at_its_exact_tick_in_every_time_base(screens: dict[str, MediaInfo]) -> None:
    row = build_sample_table([SampleSpan(screens["in order"], 10, 20, 2_333_333 - SECOND, 2_333_333)], 4 * SECOND)
    assert row.pts[0] == to_ticks(2_333_333)
    assert [tick - row.pts[0] for tick in row.pts] == [frame * TIMESCALE // 10 for frame in range(10)]


@given(st.integers(0, 10**12))
def test_ticks_are_the_nearest(microseconds: int) -> None:
    assert abs(to_ticks(microseconds) * 1_000_000 - microseconds * TIMESCALE) <= 500_000


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=60, unique=True))
def test_no_sample_is_shown_before_it_is_decoded_and_offsets_are_minimal(shown: list[int]) -> None:
    decoded = decoding_times(array("q", shown))
    assert all(one < other for one, other in pairwise(decoded))
    delays = [there - here for there, here in zip(shown, decoded, strict=True)]
    assert min(delays) == 0
