"""Conversion of segments to pieces of the result and to ffmpeg commands."""

from __future__ import annotations

from array import array
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muxer.media.analyze.source_commands import copy_audio_command, remux_command
from muxer.media.ffmpeg import MediaTools
from muxer.media.media_info import TIME_TOLERANCE_US, MediaInfo, Packets, Video
from muxer.media.mp4.avc import AvcConfig
from muxer.media.mp4.samples import to_ticks
from muxer.media.plan.commands import check_command, encode_cut_command, padding_command
from muxer.media.plan.cut import FrameIndex
from muxer.media.plan.pieces import (
    choose_video_target,
    count_frames_in,
    find_encode_reasons,
    is_copyable,
    padding_slices,
    plan_pieces,
)
from muxer.media.plan.timeline import Segment
from muxer.media.sample_spans import SampleSpan, build_sample_table

SECOND = 1_000_000
TOOLS = MediaTools("ffmpeg", "ffprobe")


def create_video(
    frames: int = 100,
    gop: int = 20,
    rate: int = 10,
    *,
    size: tuple[int, int] = (640, 480),
    reordered: bool = False,
    **entry: str,
) -> Video:
    """Return a copyable screen file of evenly spaced frames with a keyframe every `gop`; `reordered` adds B-frames."""
    tick = 1000 // rate
    order = list(range(frames))
    if reordered:
        for item in range(1, frames - 1, 2):
            if item % gop and (item + 1) % gop:
                order[item], order[item + 1] = item + 1, item
    packets = Packets(
        pts=array("q", [position * tick for position in order]),
        dts=array("q", [(number - reordered) * tick for number in range(frames)]),
        durations=array("q", [tick] * frames),
        keys=bytearray(one % gop == 0 for one in order),
        sizes=array("I", [1000 + one for one in range(frames)]),
        offsets=array("q", [48 + 2000 * one for one in range(frames)]),
    )
    fields = {
        "codec_name": "h264",
        "profile": "High",
        "pix_fmt": "yuv420p",
        "width": str(size[0]),
        "height": str(size[1]),
        "time_base": "1/1000",
        "r_frame_rate": f"{rate}/1",
    }
    fields |= entry
    return Video(fields, packets, AvcConfig(b"", (fields["profile"].encode(),), fields["profile"], *size, False, True))


# Cuts


def test_a_whole_file_is_copied() -> None:
    (cut,) = FrameIndex(create_video()).copy_cuts(0, 10 * SECOND)
    assert (cut.begin, cut.end, cut.frames, cut.reason, cut.first, cut.last) == (0, 10 * SECOND, 100, None, 0, 100)


def test_a_span_between_keyframes_is_copied() -> None:
    (cut,) = FrameIndex(create_video()).copy_cuts(2 * SECOND, 4 * SECOND)
    assert (cut.begin, cut.frames, cut.reason, cut.first, cut.last) == (2 * SECOND, 20, None, 20, 40)


def test_only_frames_before_the_first_keyframe_are_encoded() -> None:
    head, rest = FrameIndex(create_video()).copy_cuts(1_500_000, 10 * SECOND)
    assert (head.begin, head.end, head.frames) == (1_500_000, 2 * SECOND, 5)
    assert head.reason is not None
    assert (rest.begin, rest.reason, rest.frames) == (2 * SECOND, None, 80)


def test_a_copy_may_end_between_keyframes_without_b_frames() -> None:
    (cut,) = FrameIndex(create_video()).copy_cuts(0, 2_500_000)
    assert (cut.reason, cut.frames) == (None, 25)


def test_with_b_frames_the_end_after_the_last_keyframe_is_encoded() -> None:
    copy, tail = FrameIndex(create_video(reordered=True)).copy_cuts(0, 2_500_000)
    assert (copy.reason, copy.end) == (None, 2 * SECOND)
    assert tail.reason is not None
    assert (tail.begin, tail.end) == (2 * SECOND, 2_500_000)


def test_a_span_without_keyframes_is_encoded() -> None:
    (cut,) = FrameIndex(create_video(gop=1000)).copy_cuts(SECOND, 2 * SECOND)
    assert cut.reason == "no keyframe in the span"


@settings(max_examples=300, deadline=None)
@given(
    frames=st.integers(1, 80),
    gop=st.integers(1, 30),
    reordered=st.booleans(),
    begin=st.integers(0, 8_000_000),
    length=st.integers(100_000, 8_000_000),
)
def test_cuts_cover_the_span_and_copies_start_at_keyframes(
    frames: int, gop: int, reordered: bool, begin: int, length: int
) -> None:
    clip = create_video(frames, gop, reordered=reordered)
    begin = min(begin, clip.length_us - 100_000)
    end = min(begin + length, clip.length_us)
    index = FrameIndex(clip)
    cuts = index.copy_cuts(begin, end)
    assert abs(cuts[0].begin - begin) <= TIME_TOLERANCE_US
    assert abs(cuts[-1].end - end) <= TIME_TOLERANCE_US
    assert all(one.end == other.begin for one, other in pairwise(cuts))
    for cut in cuts:
        assert cut.frames >= 1
        if cut.reason is None:
            first = clip.ticks_to_us(clip.packets.pts[cut.first] - clip.first_pts)
            assert first in index.keys
            assert abs(cut.begin - first) <= TIME_TOLERANCE_US
            assert cut.last - cut.first == cut.frames
            assert max(clip.packets.pts[cut.first : cut.last]) < min(clip.packets.pts[cut.last :], default=10**9)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 7_999_999), st.integers(100_000, 4_000_000), st.booleans())
def test_the_cuts_of_a_span_show_each_of_its_frames_once(begin: int, length: int, reordered: bool) -> None:
    index = FrameIndex(create_video(100, 20, reordered=reordered))
    end = begin + length
    shown = sum(cut.frames for cut in index.copy_cuts(begin, end))
    expected = index.count_frames(begin, end) + (index.visible_frame(begin) < begin - TIME_TOLERANCE_US)
    assert shown == expected


def test_frames_close_to_a_cut_are_distinguished() -> None:
    clip = create_video(100, 20)
    # The frames before the cut and before the next keyframe are 0.3 ms earlier.
    times = [number * 100_000 for number in range(100)]
    times[14], times[19] = times[15] - 300, times[20] - 300
    packets = replace(clip.packets, pts=array("q", times))
    index = FrameIndex(Video({**clip.entry, "time_base": "1/1000000"}, packets, clip.avc))
    head, rest = index.copy_cuts(1_500_000, 10 * SECOND)
    assert (head.frames, rest.first, rest.frames) == (5, 20, 80)


def test_decoding_starts_at_the_keyframe_before_a_frame() -> None:
    clip = create_video(100, 20)
    packets = replace(clip.packets, keys=bytearray(number in (0, 20) for number in range(100)))
    index = FrameIndex(replace(clip, packets=packets))
    assert [index.seek_time(frame) for frame in (0, 1_900_000, 2 * SECOND, 5 * SECOND)] == [0, 0, 2 * SECOND, 2 * SECOND]
    assert FrameIndex(clip).seek_time(5_100_000) == 4 * SECOND
    assert FrameIndex(clip, seekable=False).seek_time(5 * SECOND) == 0
    target, _ = choose_video_target({0: clip})
    command = encode_cut_command(
        TOOLS, target, create_source(clip), index.encode_cut(5 * SECOND, 6 * SECOND, "x"), index, Path("/t/o")
    )
    # Both are a millisecond early, because the filter uses the times of the file.
    assert (option_value(command, "-ss"), "trim=start=4.999000" in option_value(command, "-vf")) == ("1.999000", True)


# The target and the copied clips


def test_clips_of_equal_parameters_are_all_copied() -> None:
    target, copied = choose_video_target({0: create_video(), 1: create_video(50)})
    assert copied == {0, 1}
    assert (target.width, target.height, target.profile, target.pixels) == (640, 480, "high", "yuv420p")


def test_the_canvas_is_the_largest_size_and_only_clips_of_that_size_are_copied() -> None:
    target, copied = choose_video_target(
        {0: create_video(size=(1920, 1080)), 1: create_video(size=(1280, 1024)), 2: create_video(size=(1920, 1080))}
    )
    assert (target.width, target.height) == (1920, 1080)
    assert copied == {0, 2}


def test_the_canvas_holds_every_clip_and_is_even() -> None:
    target, copied = choose_video_target({0: create_video(size=(641, 300)), 1: create_video(size=(320, 481))})
    assert (target.width, target.height) == (642, 482)
    assert copied == frozenset()


def test_the_longest_group_of_equal_clips_is_copied() -> None:
    _, copied = choose_video_target(
        {0: create_video(100), 1: create_video(60, profile="Main"), 2: create_video(60, profile="Main")}
    )
    assert copied == {1, 2}


def test_clips_that_browsers_do_not_play_are_not_copied() -> None:
    assert is_copyable(create_video())
    assert not is_copyable(replace(create_video(), avc=None))


def test_nothing_is_copied_when_no_clip_can_be() -> None:
    target, copied = choose_video_target({0: replace(create_video(rate=15), avc=None)})
    assert (copied, target.pixels, target.profile, target.rate, target.avc) == (frozenset(), "yuv420p", "high", 15, None)


def test_the_target_parameters_match_the_copied_clips() -> None:
    clips = {0: create_video(100), 1: create_video(60, profile="Main")}
    assert choose_video_target(clips)[0].avc == clips[0].avc


@pytest.mark.parametrize(
    ("copied", "reason"),
    [(frozenset({0}), "differs in size or parameters"), (frozenset(), "everything is re-encoded")],
)
def test_each_clip_that_is_not_copied_has_its_reason(copied: frozenset[int], reason: str) -> None:
    why = find_encode_reasons(
        {0: create_video(), 1: create_video(), 2: replace(create_video(codec_name="hevc"), avc=None)}, copied
    )
    assert set(why) == {0, 1, 2} - copied
    assert why[1].startswith(reason)
    assert why[2] == "hevc yuv420p cannot be copied"


def test_a_clip_that_differs_is_encoded_with_a_reason_and_the_others_are_copied() -> None:
    clips = {0: create_video(), 1: create_video(size=(320, 240))}
    _, copied = choose_video_target(clips)
    segments = [Segment(0, 10 * SECOND, 0), Segment(10 * SECOND, 20 * SECOND, 1)]
    indices = {index: FrameIndex(one) for index, one in clips.items()}
    first, second = plan_pieces(segments, indices, find_encode_reasons(clips, copied), Fraction(10), 50)
    assert first.reason is None
    assert second.reason is not None
    assert "size" in second.reason


def test_pieces_cover_the_result_at_absolute_times() -> None:
    segments = [
        Segment(0, 3 * SECOND, None),
        Segment(3 * SECOND, 9 * SECOND, 0, 1_500_000),
        Segment(9 * SECOND, 12 * SECOND, None),
    ]
    planned = plan_pieces(segments, {0: FrameIndex(create_video())}, {}, Fraction(10), 50)
    assert (planned[0].begin, planned[-1].end) == (0, 12 * SECOND)
    assert all(one.end == other.begin for one, other in pairwise(planned))
    assert [piece.clip for piece in planned] == [None, 0, 0, None]
    assert planned[2].begin == 3_500_000
    assert [piece.frames for piece in planned] == [30, 5, 55, 30]
    assert [piece.reason for piece in planned] == [None, "starts between keyframes", None, None]


def test_a_clip_with_a_reason_is_one_piece() -> None:
    segments = [Segment(0, 6 * SECOND, 0, 1_500_000)]
    (planned,) = plan_pieces(segments, {0: FrameIndex(create_video())}, {0: "another size"}, Fraction(10), 50)
    assert (planned.begin, planned.end, planned.frames, planned.reason) == (0, 6 * SECOND, 60, "another size")


@pytest.mark.parametrize(
    ("length", "rate", "frames"),
    [(SECOND, 10, 10), (SECOND + 50_000, 10, 11), (1, 10, 1), (100_000, 10, 1), (5 * SECOND, 30, 150)],
)
def test_the_number_of_frames_that_start_in_a_length(length: int, rate: int, frames: int) -> None:
    assert count_frames_in(length, Fraction(rate)) == frames


# Padding slices and consecutive segments


@pytest.mark.parametrize(
    ("length", "expected"), [(12, [5, 5, 2]), (5, [5]), (0.4, [0.4]), (10, [5, 5]), (10.1, [5, 5, 0.1])]
)
def test_padding_is_slices_and_the_last_one_is_cut_to_fit(length: float, expected: list[float]) -> None:
    planned = [(end - begin) / SECOND for begin, end in padding_slices(round(length * SECOND), 50, Fraction(10))]
    assert planned == pytest.approx(expected)


RATES = st.sampled_from([Fraction(10), Fraction(15), Fraction(30), Fraction(30_000, 1001)])


@given(st.integers(1, 30_000_000), st.integers(1, 200), RATES)
@settings(deadline=None, max_examples=200)
def test_slices_cover_their_gap_and_never_need_more_frames_than_there_are(length: int, frames: int, rate: Fraction) -> None:
    planned = list(padding_slices(length, frames, rate))
    assert planned[0][0] == 0
    assert planned[-1][1] == length
    assert all(one[1] == other[0] for one, other in pairwise(planned))
    assert all(1 <= count_frames_in(end - begin, rate) <= frames for begin, end in planned)


@pytest.mark.parametrize("rest", [1, 100, 400, 499, 500, 501, 1500])
def test_a_last_slice_counts_however_short_it_is(rest: int) -> None:
    assert list(padding_slices(5 * SECOND + rest, 50, Fraction(10)))[-1][1] == 5 * SECOND + rest


def create_source(clip: Video, name: str = "screen") -> MediaInfo:
    return MediaInfo(Path("/t") / name, "mp4", 0, 1, clip, None)


@given(st.lists(st.integers(100_000, 3_000_000), min_size=1, max_size=5), st.integers(5, 50), RATES)
@settings(deadline=None, max_examples=60)
def test_every_slice_starts_at_its_absolute_time(lengths: list[int], frames: int, rate: Fraction) -> None:
    bounds = [sum(lengths[:number]) for number in range(len(lengths) + 1)]
    padding = create_source(create_video(frames, rate=10))
    begins = [at + begin for at, one in pairwise(bounds) for begin, _ in padding_slices(one - at, frames, rate)]
    row = build_sample_table([SampleSpan(padding, 0, 1, at, at) for at in begins], bounds[-1])
    assert list(row.pts) == [to_ticks(at) for at in begins]
    assert row.length == to_ticks(bounds[-1])


def test_a_copy_starts_at_its_keyframe_and_ends_before_the_next() -> None:
    clip = create_video(reordered=True)
    (cut,) = FrameIndex(clip).copy_cuts(2 * SECOND, 4 * SECOND)
    row = build_sample_table(
        [SampleSpan(create_source(clip), cut.first, cut.last, 5 * SECOND - cut.begin, 5 * SECOND)], 7 * SECOND
    )
    assert sorted(row.pts) == [to_ticks(5 * SECOND + frame * 100_000) for frame in range(20)]
    assert list(row.offsets) == list(clip.packets.offsets[20:40])
    assert list(row.sizes) == list(clip.packets.sizes[20:40])
    assert [number for number, key in enumerate(row.sync) if key] == [0]


# Commands


def option_value(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]


@pytest.mark.posix
def test_the_audio_is_copied_into_an_mp4_file_with_all_its_channels() -> None:
    command = copy_audio_command(TOOLS, Path("/t/audio"), Path("/t/out"))
    assert (option_value(command, "-i"), option_value(command, "-map"), option_value(command, "-c:a")) == (
        "file:/t/audio",
        "0:a:0",
        "copy",
    )
    assert command[-3:] == ["-f", "mp4", "/t/out"]
    assert "-ac" not in command
    assert "-af" not in command


@pytest.mark.posix
def test_a_screen_becomes_copyable_by_copying_only_its_video() -> None:
    command = remux_command(TOOLS, Path("/t/in"), create_video(), Path("/t/out"))
    assert (option_value(command, "-i"), option_value(command, "-map"), option_value(command, "-c")) == (
        "file:/t/in",
        "0:0",
        "copy",
    )
    assert command[-3:] == ["-f", "mp4", "/t/out"]


@pytest.mark.posix
def test_the_check_decodes_the_excerpts_and_the_end_of_the_file_and_stops_at_the_first_error() -> None:
    command = check_command(TOOLS, Path("/t/excerpts"), Path("/t/muxed"), 61_500_000)
    assert [command[at + 1] for at, word in enumerate(command) if word == "-i"] == ["file:/t/excerpts", "file:/t/muxed"]
    assert [command[at + 1] for at, word in enumerate(command) if word == "-map"] == ["0:v:0", "1:v:0", "1:a:0"]
    assert (option_value(command, "-ss"), option_value(command, "-err_detect")) == ("61.500000", "explode")
    assert command.index("-ss") > command.index("file:/t/excerpts")
    assert "-xerror" in command
    # Only compared frames are decoded or kept.
    assert command.count("-nofind_stream_info") == 2
    assert [option_value(command, f"-c:v:{number}") for number in (0, 1)] == ["wrapped_avframe", "copy"]
    assert option_value(command, "-max_interleave_delta") == "1"
    assert "rawvideo" not in command


@pytest.mark.posix
def test_the_check_writes_the_frames_that_are_compared() -> None:
    command = check_command(TOOLS, Path("/t/excerpts.mp4"), Path("/t/muxed"), 0, [3, 17], (320, 180))
    wanted = "select=eq(pts\\,27000)+eq(pts\\,153000),scale=320:180:flags=area:out_range=limited,format=yuv420p"
    assert f"settb=1/90000,{wanted}" in command
    assert command[-3:] == ["-f", "rawvideo", "/t/excerpts.yuv"]
    # Compared frames are decoded completely.
    assert "-skip_loop_filter" not in command


def test_padding_is_black_in_the_parameters_of_its_neighbour() -> None:
    target, _ = choose_video_target({0: create_video(size=(1280, 720), rate=15, profile="Main")})
    command = padding_command(TOOLS, target, 75, Path("/t/padding.mp4"))
    colour = option_value(command, "-i")
    assert "c=black" in colour
    assert "s=1280x720" in colour
    assert "r=15" in colour
    expected = {"-frames:v": "75", "-profile:v": "main", "-pix_fmt": "yuv420p", "-g": "10"}
    assert {flag: option_value(command, flag) for flag in expected} == expected
    assert option_value(command, "-video_track_timescale") == "90000"


def test_encoding_keeps_the_aspect_on_the_canvas() -> None:
    clip = create_video(size=(320, 240))
    target, _ = choose_video_target({0: create_video(size=(1280, 720)), 1: clip})
    index = FrameIndex(clip)
    command = encode_cut_command(
        TOOLS, target, create_source(clip), index.encode_cut(SECOND, 2 * SECOND, "x"), index, Path("/t/o")
    )
    filters = option_value(command, "-vf")
    assert "min(1280/iw\\,720/ih)" in filters
    assert "pad=w=1280:h=720" in filters
    assert option_value(command, "-frames:v") == "10"
