"""MP3 files are read without any program, exactly as ffmpeg reads them; what is damaged is found and filled."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import mp4
from support.kinds import ffmpeg

from muxer.media.mp3 import Mp3, read_mp3
from muxer.media.plain import read_sound

MP3 = ("-c:a", "libmp3lame")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mp3")


@pytest.fixture(scope="module")
def call(folder: Path) -> Path:
    """Three seconds of 32 kbit/s, each frame of 288 bytes and 72 ms."""
    return mp4.sound(folder / "call.mp3", *MP3, "-ar", "8000", "-b:a", "32k", seconds=3)


def found(path: Path) -> Mp3:
    made = read_mp3(path)
    assert made is not None
    return made


def frames(path: Path, offsets: array[int], sizes: array[int]) -> list[bytes]:
    content = path.read_bytes()
    return [content[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]


FORMS = {
    "8 kHz": ("-ar", "8000"),
    "16 kHz, one channel": ("-ar", "16000", "-ac", "1"),
    "22.05 kHz": ("-ar", "22050", "-ac", "2"),
    "44.1 kHz, two channels": ("-ar", "44100", "-ac", "2"),
    "variable bit rate": ("-ar", "48000", "-q:a", "5"),
    "without LAME's frame and tags": ("-ar", "44100", "-write_xing", "0", "-id3v2_version", "0"),
    "tags at both ends": ("-ar", "8000", "-metadata", "title=x", "-write_id3v1", "1"),
}


@pytest.mark.parametrize("name", FORMS)
def test_an_mp3_file_is_read_as_ffmpeg_brings_it_into_an_mp4_file(folder: Path, name: str) -> None:
    path = mp4.sound(folder / "form.mp3", *MP3, *FORMS[name])
    ffmpeg("-i", path, "-c", "copy", "-strict", "-2", folder / "form.mp4")
    mine, theirs = found(path), read_sound(folder / "form.mp4")
    assert theirs is not None
    track, other = mine.track, theirs.track
    assert mine.holes == []
    assert frames(path, track.offsets, track.sizes) == frames(folder / "form.mp4", other.offsets, other.sizes)
    assert (track.durations, track.skipped, track.timescale) == (other.durations, other.skipped, other.timescale)
    # Up to the description of the stream, whose form leaves a choice.
    assert track.description[1][:28] == other.description[1][:28]


OTHERS = ("wav", "mp2", "aac", "ogg", "flac", "m4a", "mka")


@pytest.mark.parametrize("ending", OTHERS)
def test_other_sound_is_none(folder: Path, ending: str) -> None:
    assert read_mp3(mp4.sound(folder / f"other.{ending}")) is None


def test_mp3_in_another_container_is_none(folder: Path) -> None:
    assert read_mp3(mp4.sound(folder / "inside.wav", *MP3)) is None


def test_frames_of_another_kind_are_left_to_ffmpeg(folder: Path, call: Path) -> None:
    other = mp4.sound(folder / "fast.mp3", *MP3, "-ar", "16000")
    joined = folder / "joined.mp3"
    joined.write_bytes(call.read_bytes() + other.read_bytes())
    assert read_mp3(joined) is None


def test_tags_between_frames_are_no_damage(folder: Path, call: Path) -> None:
    joined = folder / "twice.mp3"
    joined.write_bytes(call.read_bytes() * 2)
    made = found(joined)
    assert made.holes == []
    # With the frame of the second file that tells of the encoder.
    assert len(made.sizes) == 2 * len(found(call).sizes) + 1


@pytest.mark.parametrize("rest", [b"TAG" + bytes(125), bytes(5_000), b"\xff" * 5_000, b"\xff\xf3\x88"])
def test_what_stands_behind_the_sound_is_no_damage(folder: Path, call: Path, rest: bytes) -> None:
    path = folder / "rest.mp3"
    path.write_bytes(call.read_bytes() + rest)
    assert found(path).holes == []
    assert found(path).sizes == found(call).sizes


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\xff\xf3", b"<html>"])
def test_damage_is_found_and_filled_with_as_many_silent_frames(folder: Path, call: Path, filling: bytes) -> None:
    whole = found(call)
    begin, end = whole.offsets[10] + 7, whole.offsets[20] + 5
    content = bytearray(call.read_bytes())
    content[begin:end] = (filling * (end - begin))[: end - begin]
    path, repaired = folder / "damaged.mp3", folder / "repaired.mp3"
    path.write_bytes(content)
    made = found(path)
    assert [(one.before, made.lost(one)) for one in made.holes] == [(11, 10)]
    made.repair(repaired)
    again = found(repaired)
    assert again.holes == []
    assert frames(repaired, again.offsets[21:], again.sizes[21:]) == frames(call, whole.offsets[21:], whole.sizes[21:])
    assert (again.delay, again.padding, len(again.sizes)) == (whole.delay, whole.padding, len(whole.sizes))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"ID3", b"\xff\xfb\x90\xc4", b"\xff\xf3\x40\xc4"]), st.integers(1, 9))
def test_whatever_is_read_lies_within_the_file(folder: Path, content: bytes, begin: bytes, times: int) -> None:
    path = folder / "bytes.mp3"
    path.write_bytes((begin + content) * times)
    made = read_mp3(path)
    if made is not None:
        ends = [offset + size for offset, size in zip(made.offsets, made.sizes, strict=True)]
        assert ends[-1] <= path.stat().st_size
        assert all(end <= offset for end, offset in zip(ends, made.offsets[1:], strict=False))
