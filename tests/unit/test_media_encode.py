"""What is read from the output of ffmpeg: the progress of an encoder, the times of frames."""

from __future__ import annotations

import pytest

from muxer.media.encode import _report_progress
from muxer.media.ffmpeg import parse_frame_times
from muxer.status.activity import Activity


@pytest.mark.parametrize(
    "printed",
    [
        [b"frame=1\n", b"out_time_us=400\n", b"progress=continue\n", b"out_time_us=900\n", b"progress=end\n"],
        [b"out_time_us=N/A\n", b"out_time_us=700\n", b"out_time_us=300\n"],
        [b"out_time_us=99999\n"],
        [b"out_time_us=" + b"9" * 5000 + b"\n", b"out_time_us=-5\n", b"out_time_us=\n", b"\xff\n"],
        [],
    ],
)
def test_progress_ends_at_exactly_the_total(printed: list[bytes]) -> None:
    activity = Activity()
    seen = []

    def progress_lines() -> object:
        for line in printed:
            yield line
            seen.append(activity.take_snapshot().running[0].done)

    with activity.track_target("call", "alice", "x.mp4"):
        _report_progress(1000, progress_lines())
        [running] = activity.take_snapshot().running
    assert running.done == 1000
    assert seen == sorted(seen) and all(0 <= item <= 1000 for item in seen)


def test_progress_is_reported() -> None:
    activity = Activity()
    with activity.track_target("call", "alice", "x.mp4"):
        lines = iter([b"out_time_us=400\n", b"out_time_us=900\n"])
        seen: list[int] = []
        _report_progress(1000, (seen.append(activity.take_snapshot().running[0].done) or line for line in lines))
    assert seen == [0, 400]


def test_frame_times_are_read_in_the_time_base_of_their_stream() -> None:
    printed = [
        b"#software: Lavf",
        b"#tb 0: 1/90000",
        b"#tb 1: 1/8000",
        b"0, -90, 180, 9000, 472, 0xc7",
        b"1, 576, 576, 9, 4, 0x1",
    ]
    assert list(parse_frame_times(printed)) == [(0, 180), (1, 6480)]
