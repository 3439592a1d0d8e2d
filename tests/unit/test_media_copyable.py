"""Which screen files are copyable, and the duration of their audio."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxer.media.analyze.copyable import read_copyable_audio, read_copyable_screen
from muxer.media.analyze.probe import probe_file
from muxer.media.media_info import Video, require_audio, require_video
from muxer.media.mp4.mp3 import read_mp3
from muxer.media.mp4.tracks import read_tracks
from muxer.system.process import Runner
from tests.support import media_kinds, mp4

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain")


def read_video(path: Path) -> Video:
    found = read_copyable_screen(path)
    assert found is not None
    return require_video(found)


@pytest.mark.parametrize("options", [("-bf", "0"), ("-bf", "3", "-b_strategy", "0"), ("-bf", "2", "-use_editlist", "0")])
@pytest.mark.parametrize("rate", [7, 10, 25])
def test_a_copyable_file_is_read_like_ffprobe_does(folder: Path, options: tuple[str, ...], rate: int) -> None:
    path = mp4.create_video(folder / "screen.mp4", *mp4.X264, "-g", "5", *options, rate=rate)
    mine, theirs = read_video(path), require_video(probe_file(path, "ffprobe", Runner()))
    for field in ("pts", "dts", "durations", "keys"):
        assert list(getattr(mine.packets, field)) == list(getattr(theirs.packets, field)), field
    assert (mine.display_size, mine.frame_rate, mine.codec_name, mine.first_pts) == (
        theirs.display_size,
        theirs.frame_rate,
        theirs.codec_name,
        theirs.first_pts,
    )
    assert (mine.length_us, mine.frame_us, mine.time_base) == (theirs.length_us, theirs.frame_us, theirs.time_base)
    names = ("profile", "pix_fmt", "time_base", "width", "height")
    assert {name: mine.entry[name] for name in names} == {name: theirs.entry[name] for name in names}


def test_only_instant_keyframes_count_as_keyframes(folder: Path) -> None:
    options = ("-bf", "3", "-b_strategy", "0", "-g", "5", "-x264-params", "open-gop=1:scenecut=0")
    path = mp4.create_video(folder / "open.mp4", *mp4.X264, *options, seconds=4)
    flagged = [packet.flags for packet in mp4.read_packets(path)].count("K_")
    assert flagged > 1
    assert sum(read_video(path).packets.keys) == 1


COPYABLE = {"x264 with information before the slice": ("-bf", "0"), "delimiters": ("-bf", "0", "-x264-params", "aud=1")}


@pytest.mark.parametrize("name", COPYABLE)
def test_keyframes_are_found_after_other_units(folder: Path, name: str) -> None:
    path = mp4.create_video(folder / "keys.mp4", *mp4.X264, "-g", "5", *COPYABLE[name])
    assert [number for number, key in enumerate(read_video(path).packets.keys) if key] == [0, 5, 10, 15]


NOT_COPYABLE = {
    "H.265": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "fragments": (*mp4.X264, "-movflags", "frag_keyframe+empty_moov"),
    "yuv444": (*mp4.X264, "-pix_fmt", "yuv444p"),
    "interlaced": (*mp4.X264, "-flags", "+ildct+ilme", "-x264-params", "tff=1"),
    "parameter sets in band only": (*mp4.X264, "-tag:v", "avc3"),
}


@pytest.mark.parametrize("name", NOT_COPYABLE)
def test_other_files_are_left_to_ffmpeg(folder: Path, name: str) -> None:
    path = mp4.create_video(folder / "other.mp4", "-pix_fmt", "yuv420p", *NOT_COPYABLE[name], seconds=1)
    assert mp4.read_packets(path)
    assert read_copyable_screen(path) is None


@pytest.mark.parametrize(
    "other_tracks",
    [
        ("-f", "lavfi", "-i", "sine=d=1", "-map", "1", "-map", "0"),
        ("-timecode", "10:00:00:00"),
        ("-f", "ffmetadata", "-i", "-", "-map_chapters", "1"),
    ],
    ids=["sound", "time code", "chapters"],
)
def test_a_screen_with_other_tracks_is_copied(folder: Path, other_tracks: tuple[str, ...]) -> None:
    only, path = mp4.create_video(folder / "only.mp4", *mp4.X264, seconds=1), folder / "other-tracks.mp4"
    chapters = ";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=one\n"
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(only), *other_tracks, "-c:v", "copy", str(path)]
    subprocess.run(command, input=chapters, text=True, check=True)
    assert len(read_tracks(path)) == 2
    alone, found = read_copyable_screen(only), read_copyable_screen(path)
    assert alone is not None and found is not None
    assert require_video(found).packets.pts == require_video(alone).packets.pts


# Audio

SOUNDS = {
    "aac": (("-c:a", "aac"), "aac"),
    "mp3": (("-c:a", "libmp3lame"), "mp3"),
    "opus": (("-c:a", "libopus", "-ar", "48000"), "opus"),
    "flac": (("-c:a", "flac", "-strict", "-2"), "flac"),
    "mp2": (("-c:a", "mp2"), "mp2"),
    "alac": (("-c:a", "alac"), "alac"),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_the_audio_codec_is_read(folder: Path, name: str) -> None:
    options, codec = SOUNDS[name]
    path = mp4.create_audio(folder / f"{name}.mp4", *options, rate=48000)
    found = read_copyable_audio(path)
    assert found is not None
    assert found.codec == codec
    assert abs(found.length_us - 2_000_000) < 30_000
    assert not found.has_gaps


def test_a_file_without_audio_has_no_audio_duration(folder: Path) -> None:
    assert read_copyable_audio(mp4.create_video(folder / "silent.mp4", *mp4.X264, seconds=1)) is None


def test_a_gap_in_the_audio_is_detected(folder: Path) -> None:
    path = mp4.create_audio(folder / "gap.mp4", "-c:a", "aac", *media_kinds.GAP_FILTER, seconds=5)
    found = read_copyable_audio(path)
    assert found is not None
    assert found.has_gaps


@pytest.mark.parametrize("tags", [(), ("-metadata", "title=call " + "x" * 3000)], ids=["bare", "with a long tag"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_the_silence_at_the_end_of_an_mp3_matches_ffprobe(
    folder: Path, rate: int, channels: int, tags: tuple[str, ...]
) -> None:
    path = mp4.create_audio(folder / "sound.mp3", "-c:a", "libmp3lame", *tags, rate=rate, channels=channels)
    discarded = require_audio(probe_file(path, "ffprobe", Runner())).packets.discarded_samples
    assert discarded > 0
    found = read_mp3(path)
    assert found is not None and found.padding == discarded


def test_an_mp3_without_an_info_frame_has_no_known_silence(folder: Path) -> None:
    path = mp4.create_audio(folder / "bare.mp3", "-c:a", "libmp3lame", "-write_xing", "0")
    found = read_mp3(path)
    assert found is not None and found.padding == 0


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"ID3", b"\xff\xfb\x90\xc4", b"\xff\xf3\x40\xc4"]))
def test_any_bytes_have_a_silence_that_is_not_negative(folder: Path, content: bytes, begin: bytes) -> None:
    path = folder / "bytes.mp3"
    path.write_bytes(begin + content)
    found = read_mp3(path)
    assert found is None or 0 <= found.padding < 4096
