"""Checks that video and audio of a muxed file are in sync.

Each frame shows the time at which it was recorded, and each second has a distinct pip."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lab.readers import DecodedFrame, read_frames, read_pips

INSTANT_MODULUS = 2**32
PIPS = 40
PIP_TOLERANCE_SECONDS = 0.06
# Times of a result are whole ticks of 1/90000 s.
SAME_TIME_SECONDS = 0.00002


@dataclass(frozen=True)
class ExpectedScreen:
    """The agent whose screen must be shown from `begin` to `end`, in seconds of the result; elsewhere the video is black."""

    begin: float
    end: float
    agent: int


def file_problems(
    path: Path, start: datetime, seconds: float, shown: Sequence[ExpectedScreen], frame: float = 0.1
) -> list[str]:
    """Return the errors of an unencrypted muxed file.

    `start` and `seconds` are the start and length of the audio, `shown` the screens that must be visible. Tolerated are an
        error of one source frame, of `frame` seconds, and for a pip the accuracy of its detection.
    """
    found = _length_problems(path, seconds, frame)
    decoded_frames = read_frames(path)
    for second in range(int(seconds)):
        time = second + 0.5
        found += _frame_problems(_frame_at(decoded_frames, time), time, start, shown, frame)
    found += [
        problem
        for decoded_frame in decoded_frames
        for problem in _frame_problems(decoded_frame, decoded_frame.pts, start, shown, frame)
    ]
    pips = {round(pip.onset): pip for pip in read_pips(path)}
    for second in range(int(seconds)):
        pip = pips.get(second)
        if pip is None:
            found.append(f"no pip at second {second}")
        elif abs(pip.onset - second) > PIP_TOLERANCE_SECONDS or pip.second != (int(start.timestamp()) + second) % PIPS:
            found.append(f"at second {second} the pip is {pip.second}, at {pip.onset:.3f} s")
    return found


def _frame_at(decoded_frames: Sequence[DecodedFrame], time: float) -> DecodedFrame:
    return max((frame for frame in decoded_frames if frame.pts <= time), key=lambda item: item.pts)


def _frame_problems(
    decoded_frame: DecodedFrame, time: float, start: datetime, shown: Sequence[ExpectedScreen], frame: float
) -> list[str]:
    """Compare a frame with the expected screen at a time; near a border, both sides are accepted."""
    if any(abs(time - border) <= frame for item in shown for border in (item.begin, item.end)):
        return []
    expected = next((one for one in shown if one.begin <= time < one.end), None)
    if expected is None:
        return [] if decoded_frame.black else [f"at {time:.2f} s the frame is not black"]
    if decoded_frame.instant is None:
        return [f"at {time:.2f} s the frame has no readable time"]
    error = (decoded_frame.instant / 1000 - start.timestamp() - time) % (INSTANT_MODULUS / 1000)
    error = min(error, INSTANT_MODULUS / 1000 - error)
    wrong = [] if error <= frame + 0.002 else [f"at {time:.2f} s the frame is {error:.3f} s off"]
    return (
        wrong if decoded_frame.agent == expected.agent else [*wrong, f"at {time:.2f} s agent {decoded_frame.agent} is seen"]
    )


def _length_problems(path: Path, seconds: float, frame: float) -> list[str]:
    return [
        f"the {kind} is {stream.seconds:.3f} s long instead of {seconds:.3f} s"
        for kind, stream in streams(path).items()
        if abs(stream.seconds - seconds) > frame
    ]


@dataclass(frozen=True)
class ExpectedSource:
    """A screen file as it must be shown.

    `agent` is the agent's number, `instants` are the times of its frames in seconds from the start of the audio, `end` is
    the end of the last frame, and `seen` are the visible spans."""

    agent: int
    instants: Sequence[float]
    end: float
    seen: Sequence[tuple[float, float]]


def picture_error(path: Path, start: datetime, seconds: float, sources: Sequence[ExpectedSource]) -> float:
    """Return the longest time, in seconds, for which a frame is shown when the agent did not see it.

    `start` and `seconds` are the start and length of the audio. Every frame is read."""
    decoded_frames = sorted(read_frames(path), key=lambda frame: frame.pts)
    worst = abs(decoded_frames[0].pts)
    for decoded_frame, end in zip(decoded_frames, [*(item.pts for item in decoded_frames[1:]), seconds], strict=True):
        begin, until = _expected_span(decoded_frame, start, sources)
        if decoded_frame.black:
            spans = [span for source in sources for span in source.seen]
            wrong = max(min(end, until) - max(decoded_frame.pts, begin) for begin, until in spans)
        else:
            wrong = max(begin - decoded_frame.pts, end - until)
        worst = max(worst, wrong)
    return worst


def _expected_span(decoded_frame: DecodedFrame, start: datetime, sources: Sequence[ExpectedSource]) -> tuple[float, float]:
    """Return the time span, in seconds of the result, in which a source shows this frame."""
    if decoded_frame.black:
        return 0.0, 0.0
    assert decoded_frame.instant is not None, f"the frame at {decoded_frame.pts:.3f} s has no readable time"
    [source] = [item for item in sources if item.agent == decoded_frame.agent]
    times = [*source.instants, source.end]
    codes = [round((start.timestamp() + instant) * 1000) % INSTANT_MODULUS for instant in source.instants]
    number = min(range(len(codes)), key=lambda one: abs(codes[one] - (decoded_frame.instant or 0)))
    assert abs(codes[number] - decoded_frame.instant) <= 1, (
        f"the frame at {decoded_frame.pts:.3f} s matches no frame of its source file"
    )
    seen = min(
        source.seen, key=lambda span: max(span[0] - SAME_TIME_SECONDS - decoded_frame.pts, decoded_frame.pts - span[1])
    )
    return max(times[number], seen[0]), min(times[number + 1], seen[1])


def sound_error(path: Path, start: datetime, seconds: float, channels: int = 1) -> float:
    """Return the largest distance, in seconds, of a pip from its second; infinity when a pip is missing.

    `start` and `seconds` are the start and length of the audio, `channels` is the number of channels to check."""
    worst = 0.0
    for channel in range(channels):
        pips = read_pips(path, channel)
        for second in range(int(seconds)):
            code = (int(start.timestamp()) + second) % PIPS
            worst = max(worst, min((abs(pip.onset - second) for pip in pips if pip.second == code), default=float("inf")))
    return worst


@dataclass(frozen=True)
class Stream:
    """A stream of a file as ffprobe reports it; `channels` is 0 for video."""

    codec: str
    channels: int
    seconds: float


def streams(path: Path) -> dict[str, Stream]:
    """Return the streams of a file by their types."""
    entries = "stream=codec_type,codec_name,channels,duration"
    command = ["ffprobe", "-v", "error", "-show_entries", entries, "-of", "compact=p=0"]
    lines = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True).stdout.split()
    found = [dict(part.split("=", 1) for part in line.split("|") if "=" in part) for line in lines]
    assert len({one["codec_type"] for one in found}) == len(found)
    return {
        item["codec_type"]: Stream(item["codec_name"], int(item.get("channels", 0)), float(item["duration"]))
        for item in found
    }
