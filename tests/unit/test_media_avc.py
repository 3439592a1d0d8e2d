"""H.264 parameter sets, compared with the output of ffprobe."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxer.media.mp4 import boxes
from muxer.media.mp4.avc import AvcConfig, AvcError, read_config
from muxer.media.mp4.tracks import read_tracks
from tests.support import mp4

pytestmark = pytest.mark.servers

FIELDS = ("profile", "width", "height", "pix_fmt", "sample_aspect_ratio")
VALID_ENCODINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "high": ("320x180", ()),
    "high with B-frames": ("320x180", ("-bf", "3")),
    "main": ("320x180", ("-profile:v", "main", "-bf", "2")),
    "baseline": ("320x180", ("-profile:v", "baseline")),
    "cropped in height": ("1920x1080", ()),
    "cropped in both": ("642x362", ()),
    "nothing cropped": ("640x352", ()),
    "scaling lists": ("320x180", ("-x264-params", "cqm=jvt")),
    "separate scaling lists": ("320x180", ("-x264-params", f"cqm4=17:cqm8={','.join(['21', '22'] * 32)}")),
    "full range": ("320x180", ("-vf", "scale=out_range=full", "-pix_fmt", "yuvj420p")),
    "square pixels, stated": ("320x180", ("-vf", "setsar=1")),
    "wide pixels of the table": ("320x180", ("-vf", "setsar=4/3")),
    "wide pixels of any ratio": ("320x180", ("-vf", "setsar=7/5")),
    "colours": ("320x180", ("-colorspace", "bt709", "-color_trc", "bt709", "-color_primaries", "bt709")),
    "buffer model": ("320x180", ("-x264-params", "nal-hrd=vbr:vbv-maxrate=500:vbv-bufsize=500")),
    "many references": ("320x180", ("-refs", "16", "-bf", "8")),
    "lowest quality": ("320x180", ("-qp", "51", "-level", "6.2")),
    "overscan": ("320x180", ("-x264-params", "overscan=show:videoformat=pal")),
    "8k": ("7680x2160", ("-preset", "ultrafast")),
}
REFUSED_ENCODINGS = {
    "interlaced": (("-flags", "+ildct+ilme", "-x264-params", "tff=1"), "interlaced"),
    "4:4:4": (("-pix_fmt", "yuv444p"), "244"),
    "4:2:2": (("-pix_fmt", "yuv422p"), "122"),
    "10 bit": (("-pix_fmt", "yuv420p10le"), "110"),
    "grey": (("-pix_fmt", "gray"), "8 bit 4:2:0"),
}


def encode_avcc(path: Path, size: str, options: tuple[str, ...]) -> bytes:
    """Encode a frame. Returns the content of its avcC box."""
    mp4.create_video(path, *mp4.X264, "-pix_fmt", "yuv420p", *options, size=size, seconds=0.1)
    [track] = read_tracks(path)
    return bytes(boxes.require_child(memoryview(track.description[1])[78:], b"avcC"))


@pytest.mark.parametrize("name", VALID_ENCODINGS)
def test_parameter_sets_match_ffprobe(tmp_path: Path, name: str) -> None:
    path = tmp_path / "frame.mp4"
    found = read_config(encode_avcc(path, *VALID_ENCODINGS[name]))
    reported = mp4.stream_fields(path, FIELDS)
    assert (found.profile, found.width, found.height) == (
        reported["profile"],
        int(reported["width"]),
        int(reported["height"]),
    )
    assert found.full_range == (reported["pix_fmt"] == "yuvj420p")
    assert found.square == (reported["sample_aspect_ratio"] in ("1:1", "N/A"))


@pytest.mark.parametrize("name", REFUSED_ENCODINGS)
def test_video_that_cannot_be_copied_is_refused(tmp_path: Path, name: str) -> None:
    options, message = REFUSED_ENCODINGS[name]
    with pytest.raises(AvcError, match=message):
        read_config(encode_avcc(tmp_path / "frame.mp4", "320x180", options))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return encode_avcc(tmp_path_factory.mktemp("avc") / "frame.mp4", *VALID_ENCODINGS["separate scaling lists"])


def test_in_band_parameter_sets_match_the_box_with_length_prefixes(config: bytes) -> None:
    band = read_config(config).in_band
    units = []
    while band:
        size = int.from_bytes(band[:4], "big")
        units.append(band[4 : 4 + size])
        band = band[4 + size :]
    assert [unit[0] & 31 for unit in units] == [7, 8]
    assert all(unit in config for unit in units)


def test_shorter_lengths_than_four_bytes_are_refused(config: bytes) -> None:
    with pytest.raises(AvcError, match="four bytes"):
        read_config(config[:4] + b"\xfd" + config[5:])


def test_a_box_without_sets_is_refused(config: bytes) -> None:
    with pytest.raises(AvcError, match="no parameter sets"):
        read_config(config[:5] + b"\xe0\0")


def test_a_box_truncated_anywhere_is_refused(config: bytes) -> None:
    end = len(config)
    for size in range(end - 4):
        with pytest.raises(AvcError):
            read_config(config[:size])


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4))
def test_broken_sets_are_read_or_refused(config: bytes, changes: list[tuple[int, int]]) -> None:
    content = bytearray(config)
    for position, value in changes:
        content[position % len(content)] = value
    try:
        assert isinstance(read_config(bytes(content)), AvcConfig)
    except AvcError:
        return


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80))
def test_bytes_of_any_kind_are_read_or_refused(content: bytes) -> None:
    try:
        read_config(content)
    except AvcError:
        return
