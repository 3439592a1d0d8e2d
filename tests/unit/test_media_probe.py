"""Parsing the output of ffprobe."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from muxer.errors import MediaError
from muxer.media.analyze import probe as prober
from muxer.media.analyze.source_reader import _may_become_copyable
from muxer.media.media_info import MediaInfo, require_audio, require_video


def parse_lines(*lines: str) -> MediaInfo:
    out = io.BytesIO("".join(f"{line}\n" for line in lines).encode())
    return prober._build_media_info(Path("x"), *prober._parse_output(out))


VIDEO = "stream|index=0|codec_name=h264|codec_type=video|width=640|height=480|r_frame_rate=10/1|time_base=1/1000|nb_frames=2"
AUDIO = "stream|index=1|codec_name=mp3|codec_type=audio|sample_rate=8000|channels=2|time_base=1/8000|nb_frames=N/A"
FORMAT = "format|nb_streams=2|format_name=mov,mp4|start_time=0.050000"
PICTURES = [
    "packet|stream_index=0|pts=50|dts=0|duration=100|flags=K__",
    "packet|stream_index=0|pts=150|dts=100|duration=100|flags=___",
]
SOUNDS = [
    "packet|stream_index=1|pts=0|dts=0|duration=800|flags=K__",
    "packet|stream_index=1|pts=800|dts=800|duration=800|flags=K__|discard_padding=80",
]


def test_streams_and_packets_are_read() -> None:
    found = parse_lines(*PICTURES, *SOUNDS, VIDEO, AUDIO, FORMAT)
    clip = require_video(found)
    assert (clip.display_size, clip.frame_rate, clip.frame_us, clip.length_us) == ((640, 480), 10, 100_000, 200_000)
    assert list(clip.packets.keys) == [1, 0]
    assert (found.start_us, found.stream_count, found.container) == (50_000, 2, "mov,mp4")


def test_the_streams_of_a_program_are_counted_once_and_in_their_order() -> None:
    """In a transport stream, ffprobe prints them for the program, the first one on its line, and once more for the file."""
    empty = AUDIO.replace("index=1", "index=2")
    sounds = [one.replace("stream_index=1", "stream_index=3") for one in SOUNDS]
    last = AUDIO.replace("index=1", "index=3")
    found = parse_lines(*PICTURES, *sounds, f"program|{empty}", last, VIDEO, VIDEO, empty, last, FORMAT)
    assert (found.stream_count, found.audio_count, require_audio(found).number) == (3, 1, 1)


def test_the_audio_length_excludes_what_decoders_skip() -> None:
    assert require_audio(parse_lines(*SOUNDS, AUDIO, FORMAT)).length_us == 200_000 - 50_000 - 10_000


def test_a_packet_without_times_is_dropped_and_one_without_pts_is_shown_at_its_dts() -> None:
    lines = ["packet|stream_index=0|pts=N/A|dts=N/A|flags=K__", "packet|stream_index=0|pts=N/A|dts=70|flags=K__"]
    found = parse_lines(*lines, VIDEO.replace("nb_frames=2", "nb_frames=1"), FORMAT)
    assert list(require_video(found).packets.pts) == [70]


def test_a_packet_that_an_edit_list_hides_is_only_counted_and_its_file_is_not_copied() -> None:
    hidden = PICTURES[0].replace("K__", "KD_")
    line = VIDEO + "|pix_fmt=yuv420p"
    clip = require_video(parse_lines(hidden, PICTURES[1], line, FORMAT))
    assert (len(clip.packets.pts), clip.packets.hidden) == (1, 1)
    assert not _may_become_copyable(clip)
    assert _may_become_copyable(require_video(parse_lines(*PICTURES, line, FORMAT)))


def test_empty_chunks_extend_the_last_frame_of_an_avi_file() -> None:
    found = require_video(parse_lines(PICTURES[0], VIDEO + "|duration_ts=20480", FORMAT.replace("mov,mp4", "avi")))
    assert found.length_us == found.ticks_to_us(20480 - 50)


def test_an_mp4_file_may_list_frames_that_its_edit_list_skips() -> None:
    assert len(require_video(parse_lines(PICTURES[0], VIDEO, FORMAT)).packets.pts) == 1


def test_a_file_with_several_sample_descriptions_is_not_copied() -> None:
    changed = PICTURES[1] + "|side_data|side_data_type=New Extradata"
    assert not _may_become_copyable(require_video(parse_lines(PICTURES[0], changed, VIDEO + "|pix_fmt=yuv420p", FORMAT)))


@pytest.mark.parametrize(("ratio", "size"), [("4:3", (853, 480)), ("0:1", (640, 480)), ("1:4000", (640, 480))])
def test_a_size_is_one_in_square_pixels(ratio: str, size: tuple[int, int]) -> None:
    assert require_video(parse_lines(*PICTURES, f"{VIDEO}|sample_aspect_ratio={ratio}", FORMAT)).display_size == size


@pytest.mark.parametrize(("start", "late"), [(-1.0, 1_050_000), (0.0, 0)])
def test_video_has_a_start_offset_when_its_audio_starts_clearly_earlier(start: float, late: int) -> None:
    assert parse_lines(*PICTURES, *SOUNDS, VIDEO, AUDIO, FORMAT.replace("0.050000", str(start))).audio_only_us == late


def test_a_cover_image_is_not_a_video_stream() -> None:
    found = parse_lines(*PICTURES, VIDEO + "|disposition:attached_pic=1", FORMAT)
    with pytest.raises(MediaError, match="no video"):
        require_video(found)


def test_a_stream_without_packets_is_ignored() -> None:
    found = parse_lines(VIDEO.replace("nb_frames=2", "nb_frames=N/A"), AUDIO, FORMAT)
    with pytest.raises(MediaError, match="no video"):
        require_video(found)
    with pytest.raises(MediaError, match="no audio"):
        require_audio(found)


def test_audio_without_length_is_refused() -> None:
    with pytest.raises(MediaError, match="no length"):
        require_audio(parse_lines("packet|stream_index=1|pts=0|dts=0|flags=K__", AUDIO, FORMAT))


@pytest.mark.parametrize(
    ("rates", "rate"),
    [("90000/1|avg_frame_rate=15/1", 15), ("0/0|avg_frame_rate=0/0", 10), ("1000/1|avg_frame_rate=1/9", 10)],
)
def test_a_frame_rate_beyond_reason_is_not_believed(rates: str, rate: int) -> None:
    line = VIDEO.replace("r_frame_rate=10/1", f"r_frame_rate={rates}")
    assert require_video(parse_lines(*PICTURES, line, FORMAT)).frame_rate == rate
