"""Whether picture and sound of a muxed file fit: each frame tells the instant at which it was recorded, each second has
a pip of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from muxer.lab.readers import Picture, read_pictures, read_pips

INSTANTS = 2**32
PIPS = 40
PIP_TOLERANCE = 0.06


@dataclass(frozen=True)
class Shown:
    """What must be on the screen from ``begin`` to ``end``, in seconds of the result; elsewhere it is black."""

    begin: float
    end: float
    agent: int


def problems(path: Path, start: datetime, seconds: float, shown: Sequence[Shown], frame: float = 0.1) -> list[str]:
    """Given a clear muxed file, the audio's start and length, and where screens must be seen, return what is wrong.

    A picture may be wrong by one source frame, a pip by the accuracy of its detection.
    """
    found = _length_problems(path, seconds, frame)
    pictures = read_pictures(path)
    for second in range(int(seconds)):
        moment = second + 0.5
        found += _picture_problems(_at(pictures, moment), moment, start, shown, frame)
    found += [one for picture in pictures for one in _picture_problems(picture, picture.pts, start, shown, frame)]
    pips = {round(pip.onset): pip for pip in read_pips(path)}
    for second in range(int(seconds)):
        pip = pips.get(second)
        if pip is None:
            found.append(f"no pip at second {second}")
        elif abs(pip.onset - second) > PIP_TOLERANCE or pip.second != (int(start.timestamp()) + second) % PIPS:
            found.append(f"at second {second} the pip {pip.second} sounds, at {pip.onset:.3f} s")
    return found


def _at(pictures: Sequence[Picture], moment: float) -> Picture:
    return max((one for one in pictures if one.pts <= moment), key=lambda one: one.pts)


def _picture_problems(picture: Picture, moment: float, start: datetime, shown: Sequence[Shown], frame: float) -> list[str]:
    """Compare a picture with what must be seen at a moment; close to a border either side will do."""
    if any(abs(moment - border) <= frame for one in shown for border in (one.begin, one.end)):
        return []
    expected = next((one for one in shown if one.begin <= moment < one.end), None)
    if expected is None:
        return [] if picture.black else [f"at {moment:.2f} s the picture is not black"]
    if picture.instant is None:
        return [f"at {moment:.2f} s the picture has no readable time"]
    error = (picture.instant / 1000 - start.timestamp() - moment) % (INSTANTS / 1000)
    error = min(error, INSTANTS / 1000 - error)
    wrong = [] if error <= frame + 0.002 else [f"at {moment:.2f} s the picture is {error:.3f} s off"]
    return wrong if picture.agent == expected.agent else [*wrong, f"at {moment:.2f} s agent {picture.agent} is seen"]


def _length_problems(path: Path, seconds: float, frame: float) -> list[str]:
    command = ["ffprobe", "-v", "error", "-show_entries", "stream=codec_type,duration", "-of", "csv=p=0", str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    lengths = {kind: float(length) for kind, length in reversed([line.split(",") for line in lines])}
    return [
        f"the {kind} is {lengths[kind]:.3f} s long and not {seconds:.3f} s"
        for kind in ("video", "audio")
        if abs(lengths[kind] - seconds) > frame
    ]
