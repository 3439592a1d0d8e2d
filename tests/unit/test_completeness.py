"""Detection of truncated files by their structure: real files of every container, complete and truncated at many offsets."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from muxer.media.analyze.completeness import Structure, examine_structure, is_text

pytestmark = pytest.mark.servers

VIDEO_INPUT = ["-f", "lavfi", "-i", "testsrc2=s=160x120:r=10:d=4"]
AUDIO_INPUT = ["-f", "lavfi", "-i", "sine=r=8000:d=4"]
H264 = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-bf", "2"]
BOTH_STREAMS = [*VIDEO_INPUT, *AUDIO_INPUT, *H264, "-c:a", "aac"]
WHOLE, UNPROVEN = Structure.WHOLE, Structure.UNPROVEN

# The recipe of each file, and the expected state of its structure when it is complete. A name that starts with a dash is
# written through a pipe, so that the header is never corrected.
FORMS: dict[str, tuple[list[str], Structure]] = {
    "plain.mp4": ([*VIDEO_INPUT, *H264], WHOLE),
    "front.mp4": ([*BOTH_STREAMS, "-movflags", "faststart"], WHOLE),
    "sound.m4a": ([*AUDIO_INPUT, "-c:a", "aac"], WHOLE),
    "pcm.mov": ([*VIDEO_INPUT, *AUDIO_INPUT, *H264, "-c:a", "pcm_s16le"], WHOLE),
    "time-code.mov": ([*VIDEO_INPUT, *H264, "-timecode", "10:00:00:00"], WHOLE),
    "fragments.mp4": ([*BOTH_STREAMS, "-movflags", "frag_keyframe+empty_moov"], WHOLE),
    "mixed.mp4": ([*VIDEO_INPUT, *H264, "-movflags", "frag_keyframe"], WHOLE),
    "no-trailer.mp4": ([*VIDEO_INPUT, *H264, "-movflags", "frag_keyframe+empty_moov+skip_trailer"], UNPROVEN),
    "segment-index.mp4": ([*VIDEO_INPUT, *H264, "-movflags", "dash+global_sidx+frag_keyframe+skip_trailer"], UNPROVEN),
    "-live.mp4": ([*VIDEO_INPUT, *H264, "-f", "mp4", "-movflags", "frag_keyframe+empty_moov+default_base_moof"], WHOLE),
    "plain.mkv": ([*BOTH_STREAMS], WHOLE),
    "plain.webm": ([*VIDEO_INPUT, "-c:v", "libvpx", "-deadline", "realtime"], WHOLE),
    "-live.mkv": ([*BOTH_STREAMS, "-f", "matroska", "-live", "1"], UNPROVEN),
    "-piped.mkv": ([*BOTH_STREAMS, "-f", "matroska"], UNPROVEN),
    "-live.webm": ([*VIDEO_INPUT, "-c:v", "libvpx", "-deadline", "realtime", "-f", "webm", "-live", "1"], UNPROVEN),
    "plain.avi": ([*VIDEO_INPUT, *AUDIO_INPUT, "-c:v", "mpeg4", "-c:a", "pcm_s16le"], WHOLE),
    "-piped.avi": ([*VIDEO_INPUT, "-c:v", "mpeg4", "-f", "avi"], UNPROVEN),
    "plain.wav": ([*AUDIO_INPUT], WHOLE),
    "alaw.wav": ([*AUDIO_INPUT, "-c:a", "pcm_alaw"], WHOLE),
    "mp3-in.wav": ([*AUDIO_INPUT, "-c:a", "libmp3lame"], WHOLE),
    "rf64.wav": ([*AUDIO_INPUT, "-rf64", "always"], WHOLE),
    "-piped.wav": ([*AUDIO_INPUT, "-f", "wav"], UNPROVEN),
    "plain.mp3": ([*AUDIO_INPUT, "-c:a", "libmp3lame"], UNPROVEN),
    "plain.ts": ([*BOTH_STREAMS], UNPROVEN),
    "plain.ogg": ([*AUDIO_INPUT, "-c:a", "libopus"], UNPROVEN),
    "plain.flac": ([*AUDIO_INPUT], UNPROVEN),
}
# Forms in which every truncation of more than the last bytes is detected.
ALWAYS = [name for name, (_, whole) in FORMS.items() if whole is WHOLE and not name.startswith(("frag", "mixed", "-live"))]
# Forms in which a truncation between two parts cannot be detected.
SOMETIMES = [name for name in FORMS if name not in ALWAYS and name.endswith((".mp4", ".mkv", ".webm"))]


@pytest.fixture(scope="module")
def media_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return a complete file of every form, created by ffmpeg."""
    folder = tmp_path_factory.mktemp("forms")
    contents = {}
    for name, (recipe, _) in FORMS.items():
        piped = name.startswith("-")
        command = ["ffmpeg", "-v", "error", "-y", *recipe, "pipe:1" if piped else str(folder / name)]
        printed = subprocess.run(command, check=True, capture_output=True).stdout
        contents[name] = printed if piped else (folder / name).read_bytes()
    return contents


def examine_content(folder: Path, content: bytes) -> Structure:
    (path := folder / "file").write_bytes(content)
    return examine_structure(path)


@pytest.mark.parametrize("name", FORMS)
def test_a_complete_file_is_never_reported_as_truncated(media_files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    assert examine_content(tmp_path, media_files[name]) is FORMS[name][1]


@pytest.mark.parametrize("name", FORMS)
def test_bytes_after_the_end_of_a_file_are_not_truncation(media_files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    for tail in (bytes(1000), b"\xff" * 1000, bytes(3)):
        if FORMS[name][1] is WHOLE or tail != bytes(3):
            assert examine_content(tmp_path, media_files[name] + tail) is not Structure.TRUNCATED


@pytest.mark.parametrize("name", ALWAYS)
def test_a_truncated_file_is_detected_at_every_truncation_point(
    media_files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    whole = media_files[name]
    # Data after the media: the end of an index at the end of the file contains only the name of the program.
    min_missing = 12 if name in ("front.mp4", "plain.mkv", "plain.webm", "plain.avi") else 120
    offsets = {*range(40), *(len(whole) * part // 200 for part in range(200))}
    for offset in sorted(item for item in offsets if item < len(whole) - min_missing):
        assert examine_content(tmp_path, whole[:offset]) is Structure.TRUNCATED, offset


@pytest.mark.parametrize("name", SOMETIMES)
def test_a_truncated_live_file_is_detected_unless_it_ends_between_two_parts(
    media_files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    whole, generator = media_files[name], random.Random(7)
    offsets = [generator.randrange(40, len(whole) - 12) for _ in range(200)]
    found = [examine_content(tmp_path, whole[:offset]) for offset in offsets]
    assert Structure.WHOLE not in found
    assert found.count(Structure.TRUNCATED) >= 190


def test_a_segment_index_shows_what_is_missing_between_two_fragments(media_files: dict[str, bytes], tmp_path: Path) -> None:
    whole = media_files["segment-index.mp4"]
    last = whole.rindex(b"moof") - 4
    assert examine_content(tmp_path, whole[:last]) is Structure.TRUNCATED
    unmarked = media_files["no-trailer.mp4"]
    assert examine_content(tmp_path, unmarked[: unmarked.rindex(b"moof") - 4]) is UNPROVEN


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_size_unknown_to_the_recorder_proves_nothing(media_files: dict[str, bytes], tmp_path: Path, size: int) -> None:
    for name in ("plain.avi", "plain.wav"):
        content = bytearray(media_files[name])
        content[4:8] = size.to_bytes(4, "little")
        offset = content.index(b"data" if name.endswith("wav") else b"LIST") + 4
        content[offset : offset + 4] = size.to_bytes(4, "little")
        assert examine_content(tmp_path, bytes(content[: len(content) // 2])) is UNPROVEN


def test_truncation_is_detected_in_each_part_of_an_avi_file(media_files: dict[str, bytes], tmp_path: Path) -> None:
    first = media_files["plain.avi"]
    inner = b"LIST" + (5004).to_bytes(4, "little") + b"movi" + bytes(5000)
    further = b"RIFF" + (4 + len(inner)).to_bytes(4, "little") + b"AVIX" + inner
    assert examine_content(tmp_path, first + further) is WHOLE
    assert examine_content(tmp_path, first + further[:3000]) is Structure.TRUNCATED
    assert examine_content(tmp_path, first + further + further[:-100]) is Structure.TRUNCATED


def test_a_file_whose_last_box_is_too_long_is_complete_when_all_samples_exist(
    media_files: dict[str, bytes], tmp_path: Path
) -> None:
    content = bytearray(media_files["front.mp4"])
    offset = content.index(b"mdat") - 4
    content[offset : offset + 4] = (len(content) * 2).to_bytes(4, "big")
    assert examine_content(tmp_path, bytes(content)) is WHOLE


@pytest.mark.parametrize(
    "content",
    [b"<html><body>404</body></html>" * 99, b"rubbish", b"no media", random.Random(7).randbytes(50_000), bytes(50_000)],
    ids=["HTML", "text", "two words", "the wrong key", "zeros"],
)
def test_a_file_without_media_is_unproven(tmp_path: Path, content: bytes) -> None:
    assert examine_content(tmp_path, content) is UNPROVEN
    assert is_text(tmp_path / "file") is (content[0] in b"<rn")


@pytest.mark.parametrize("name", FORMS)
def test_media_is_never_taken_for_text(media_files: dict[str, bytes], tmp_path: Path, name: str) -> None:
    for length in (1, 4, 7, 12, 16, 100, 1000):
        (path := tmp_path / "file").write_bytes(media_files[name][:length])
        assert not is_text(path)


def test_damaged_files_neither_raise_an_error_nor_take_long(media_files: dict[str, bytes], tmp_path: Path) -> None:
    generator = random.Random(7)
    for name in ("front.mp4", "segment-index.mp4", "-live.mkv", "plain.avi", "rf64.wav"):
        for _ in range(60):
            content = bytearray(media_files[name])
            for _ in range(20):
                content[generator.randrange(min(3000, len(content)))] = generator.randrange(256)
            assert examine_content(tmp_path, bytes(content)) in Structure
