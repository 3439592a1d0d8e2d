"""MP3 files are read without a program, exactly as ffmpeg reads them; damage is found and replaced by silence."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxer.errors import MediaError
from muxer.media.analyze.copyable import read_copyable_audio
from muxer.media.mp4.mp3 import Mp3File, read_mp3
from muxer.media.mp4.mp3_tags import MAX_TAGS
from tests.support import mp4
from tests.support.media_kinds import run_ffmpeg

pytestmark = pytest.mark.servers

MP3 = ("-c:a", "libmp3lame")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mp3")


@pytest.fixture(scope="module")
def call(folder: Path) -> Path:
    """Return a call of three seconds at 32 kbit/s, in frames of 288 bytes and 72 ms."""
    return mp4.create_audio(folder / "call.mp3", *MP3, "-ar", "8000", "-b:a", "32k", seconds=3)


def read_existing(path: Path) -> Mp3File:
    mp3_audio = read_mp3(path)
    assert mp3_audio is not None
    return mp3_audio


def frame_bytes(path: Path, offsets: array[int], sizes: array[int]) -> list[bytes]:
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
    path = mp4.create_audio(folder / "form.mp3", *MP3, *FORMS[name])
    run_ffmpeg("-i", path, "-c", "copy", "-strict", "-2", folder / "form.mp4")
    mine, theirs = read_existing(path), read_copyable_audio(folder / "form.mp4")
    assert theirs is not None
    track, other = mine.mp4_track, theirs.track
    assert mine.damaged_ranges == []
    assert frame_bytes(path, track.offsets, track.sizes) == frame_bytes(folder / "form.mp4", other.offsets, other.sizes)
    assert (track.durations, track.skipped, track.timescale) == (other.durations, other.skipped, other.timescale)
    # Compared up to the stream description, which may be written in several ways. The number of channels there is a
    # template: 2, and what the file has since ffmpeg 7.1.
    assert other.description[1][16:18] in (b"\0\2", b"\0\1")
    assert track.description[1][:28] == other.description[1][:16] + b"\0\2" + other.description[1][18:28]


OTHER_FORMATS = ("wav", "mp2", "aac", "ogg", "flac", "m4a", "mka")


@pytest.mark.parametrize("ending", OTHER_FORMATS)
def test_other_audio_is_not_mp3(folder: Path, ending: str) -> None:
    assert read_mp3(mp4.create_audio(folder / f"other.{ending}")) is None


def test_mp3_in_another_container_is_not_read(folder: Path) -> None:
    assert read_mp3(mp4.create_audio(folder / "inside.wav", *MP3)) is None


@pytest.mark.parametrize("options", [("-ar", "16000"), ("-ar", "8000", "-ac", "1"), ("-ar", "44100", "-write_xing", "0")])
def test_frames_with_other_parameters_start_a_span(folder: Path, call: Path, options: tuple[str, ...]) -> None:
    other = mp4.create_audio(folder / "other.mp3", *MP3, *options)
    joined = folder / "joined.mp3"
    joined.write_bytes(call.read_bytes() + other.read_bytes() + call.read_bytes())
    mp3_audio, first, second = read_existing(joined), read_existing(call), read_existing(other)
    assert mp3_audio.changes_form and mp3_audio.damaged_ranges == []
    ends = [len(first.sizes), len(first.sizes) + len(second.sizes)]
    assert [span.first for span in mp3_audio.spans] == [0, *ends]
    assert frame_bytes(joined, mp3_audio.offsets[: ends[0]], mp3_audio.sizes[: ends[0]]) == frame_bytes(
        call, first.offsets, first.sizes
    )
    inner = slice(*ends)
    assert frame_bytes(joined, mp3_audio.offsets[inner], mp3_audio.sizes[inner]) == frame_bytes(
        other, second.offsets, second.sizes
    )
    assert mp3_audio.frames_seconds(len(mp3_audio.sizes)) == pytest.approx(
        2 * first.frames_seconds(ends[0]) + second.frames_seconds(len(second.sizes))
    )


def id3v2_tag(content: bytes) -> bytes:
    size = bytes(len(content) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + size + content


def ape_tag(items: bytes, *, header: bool = True) -> bytes:
    size = (len(items) + 32).to_bytes(4, "little")
    ends = [b"APETAGEX" + (2000).to_bytes(4, "little") + size + bytes(4) + flags.to_bytes(4, "little") + bytes(8)
            for flags in (0xA0000000, 0x80000000 if header else 0)]  # fmt: skip
    return (ends[0] if header else b"") + items + ends[1]


# Data in a tag that look like frames.
DECOY = bytes.fromhex("fff388c4") * 100 + bytes(50)
LYRICS2 = b"LYRICSBEGININD00002" + b"10" + b"LYR00450" + DECOY + b"000480LYRICS200"
TAGS = {
    "ID3v1": b"TAG" + bytes(125),
    "enhanced ID3v1": b"TAG+" + bytes(223) + b"TAG" + bytes(125),
    "ID3v2": id3v2_tag(DECOY),
    "two of ID3v2": id3v2_tag(DECOY) + id3v2_tag(b""),
    "APE with header": ape_tag(DECOY),
    "APE without header": ape_tag(DECOY, header=False),
    "Lyrics3, version 1": b"LYRICSBEGIN" + DECOY + b"LYRICSEND",
    "Lyrics3, version 2": LYRICS2,
    "all at the end": ape_tag(DECOY) + LYRICS2 + b"TAG" + bytes(125),
}


@pytest.mark.parametrize("name", TAGS)
def test_tags_and_descriptions_between_frames_are_neither_audio_nor_damage(folder: Path, call: Path, name: str) -> None:
    joined = folder / "twice.mp3"
    joined.write_bytes(call.read_bytes() + TAGS[name] + call.read_bytes() + TAGS[name])
    mp3_audio, once = read_existing(joined), read_existing(call)
    assert mp3_audio.damaged_ranges == []
    both = 2 * frame_bytes(call, once.offsets, once.sizes)
    assert frame_bytes(joined, mp3_audio.offsets, mp3_audio.sizes) == both
    assert (mp3_audio.delay, mp3_audio.padding) == (once.delay, once.padding)
    mp3_audio.write_span(0, folder / "frames.mp3")
    assert (folder / "frames.mp3").read_bytes() == b"".join(both)


def test_frames_after_the_described_ones_have_no_silence_at_the_end(folder: Path, call: Path) -> None:
    bare = mp4.create_audio(folder / "bare.mp3", *MP3, "-ar", "8000", "-write_xing", "0", "-id3v2_version", "0")
    joined = folder / "joined.mp3"
    joined.write_bytes(call.read_bytes() + bare.read_bytes())
    assert (read_existing(joined).delay, read_existing(joined).padding) == (read_existing(call).delay, 0)


def test_a_tag_larger_than_the_file_hides_no_audio(folder: Path, call: Path) -> None:
    joined = folder / "twice.mp3"
    joined.write_bytes(call.read_bytes() + b"ID3\4\0\0\x7f\x7f\x7f\x7f" + call.read_bytes())
    assert len(read_existing(joined).sizes) == 2 * len(read_existing(call).sizes)


def test_a_chain_of_empty_tags_is_bounded(folder: Path, call: Path) -> None:
    path = folder / "chain.mp3"
    path.write_bytes(call.read_bytes() + id3v2_tag(b"") * (MAX_TAGS + 1) + call.read_bytes())
    with pytest.raises(MediaError, match="more than"):
        read_mp3(path)


def write_free_format(path: Path, call: Path) -> Path:
    """Write the same frames without their bit rate in the header."""
    content = bytearray(call.read_bytes())
    whole = read_existing(call)
    for offset in whole.offsets:
        content[offset + 2] &= 0x0F
    path.write_bytes(content[whole.offsets[0] :])
    return path


def test_free_format_is_refused_by_name(folder: Path, call: Path) -> None:
    with pytest.raises(MediaError, match="the format free-format MP3 is not supported"):
        read_mp3(write_free_format(folder / "free.mp3", call))


@pytest.mark.parametrize("rest", [b"TAG" + bytes(125), bytes(5_000), b"\xff" * 5_000, b"\xff\xf3\x88"])
def test_data_after_the_audio_is_not_damage(folder: Path, call: Path, rest: bytes) -> None:
    path = folder / "rest.mp3"
    path.write_bytes(call.read_bytes() + rest)
    assert read_existing(path).damaged_ranges == []
    assert read_existing(path).sizes == read_existing(call).sizes


@pytest.mark.parametrize("filling", [b"\0", b"\xff", b"\xff\xf3", b"<html>"])
def test_damage_is_filled_with_the_same_number_of_silent_frames(folder: Path, call: Path, filling: bytes) -> None:
    whole = read_existing(call)
    begin, end = whole.offsets[10] + 7, whole.offsets[20] + 5
    content = bytearray(call.read_bytes())
    content[begin:end] = (filling * (end - begin))[: end - begin]
    path, repaired = folder / "damaged.mp3", folder / "repaired.mp3"
    path.write_bytes(content)
    mp3_audio = read_existing(path)
    assert [(item.before, mp3_audio.lost_frames(item)) for item in mp3_audio.damaged_ranges] == [(11, 10)]
    mp3_audio.write_span(0, repaired)
    again = read_existing(repaired)
    assert again.damaged_ranges == []
    assert frame_bytes(repaired, again.offsets[21:], again.sizes[21:]) == frame_bytes(
        call, whole.offsets[21:], whole.sizes[21:]
    )
    assert len(again.sizes) == len(whole.sizes)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"ID3", b"\xff\xfb\x90\xc4", b"\xff\xf3\x40\xc4"]), st.integers(1, 9))
def test_all_frames_are_within_the_file(folder: Path, content: bytes, begin: bytes, times: int) -> None:
    path = folder / "bytes.mp3"
    path.write_bytes((begin + content) * times)
    mp3_audio = read_mp3(path)
    if mp3_audio is not None:
        ends = [offset + size for offset, size in zip(mp3_audio.offsets, mp3_audio.sizes, strict=True)]
        assert ends[-1] <= path.stat().st_size
        assert all(end <= offset for end, offset in zip(ends, mp3_audio.offsets[1:], strict=False))
