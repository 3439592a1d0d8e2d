"""The media engine against a bare copy of the same inputs, and a re-encode by a filter graph against the engine."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, TypeVar

from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine, MuxedFile
from muxer.media.padding_cache import PaddingCache
from muxer.system.process import Runner
from tests.bench import inputs
from tests.bench.inputs import QUIET, SIZE, START, Call
from tests.bench.measure import BenchSetting, Figure, ratio_figure, run_alternately, seconds_figure, time_action
from tests.support.tools import tested_tools

T = TypeVar("T")

# ffmpeg refuses MP3 of 8 kHz in MP4 without it.
STRICT = ("-strict", "-1")
PROBE, CHECK, MAKE = "probe", "check", "make"


@dataclass
class MeteredRunner(Runner):
    """A runner that records the purpose and the duration of each program."""

    runs: list[tuple[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def run_streaming(self, command: Sequence[str | Path], consume: Callable[[IO[bytes]], T], **options: Any) -> T:
        started = time.monotonic()
        try:
            return super().run_streaming(command, consume, **options)
        finally:
            self.runs.append((program_kind(command), time.monotonic() - started))


def program_kind(command: Sequence[str | Path]) -> str:
    """Return the purpose of a program that the engine starts."""
    if "ffprobe" in Path(command[0]).name:
        return PROBE
    return CHECK if "framecrc" in command else MAKE


def rendering_seconds(whole: float, runs: Sequence[tuple[str, float]]) -> float:
    """Return the seconds of rendering in a mux step of `whole` seconds: all but the programs in `runs` that only
    read. Reading the sources' tables and planning are included."""
    return whole - sum(taken for what, taken in runs if what != MAKE)


def run_bare_copy(audio: Path, screens: Sequence[Path], output: Path) -> None:
    """Copy the inputs into one file with one ffmpeg, one screen file after the other, without gaps and checks."""
    video: list[str | Path] = ["-i", screens[0]]
    if len(screens) > 1:
        listed = output.with_suffix(".ffconcat")
        listed.write_text("".join(f"file '{screen}'\n" for screen in screens))
        video = ["-f", "concat", "-safe", "0", "-i", listed]
    streams = ["-map", "0:v", "-map", "1:a", "-c", "copy", *STRICT, "-movflags", "+faststart"]
    inputs.run_command([*QUIET, *video, "-i", audio, *streams, output])


class EngineBench:
    """One call, muxed in three ways; each method returns its duration in seconds."""

    def __init__(self, call: Call, folder: Path) -> None:
        self._call = call
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._runner = MeteredRunner()
        paddings = folder / "padding"
        paddings.mkdir(exist_ok=True)
        self._engine = MediaEngine(
            tested_tools(), self._runner, tolerance=2.0, slice_ms=5000, audio_codec="copy", paddings=PaddingCache(paddings)
        )
        self.renderings: list[float] = []
        self.programs: Counter[str] = Counter()
        self.method = ""

    def mux_product(self) -> float:
        """Run the mux step of the product, in a folder like that of a job."""
        job = self._folder / "job"
        shutil.rmtree(job, ignore_errors=True)
        job.mkdir()
        audio = self._link_input(self._call.audio, job / "audio", 0, self._call.seconds)
        screens = [
            self._link_input(one.path, job / f"screen-{number}", one.offset, one.seconds)
            for number, one in enumerate(self._call.screens)
        ]
        self._runner.runs.clear()
        results: list[MuxedFile] = []
        taken = time_action(lambda: results.append(self._engine.mux(audio, screens, job)))
        self.renderings.append(rendering_seconds(taken, self._runner.runs))
        self.programs = Counter(what for what, _ in self._runner.runs)
        self.method = "; ".join(results[0].reasons) or "copy"
        return taken

    def mux_bare_copy(self) -> float:
        """Copy the same inputs one after the other, without gaps and checks."""
        screens = [screen.path for screen in self._call.screens]
        return time_action(lambda: run_bare_copy(self._call.audio, screens, self._folder / "bare.mp4"))

    def mux_filter_graph(self) -> float:
        """Mux with a filter graph, as is usual by hand: each screen over black, everything encoded."""
        width, height = SIZE
        black = f"color=black:s={width}x{height}:r={self._call.quality.fps}:d={self._call.seconds}"
        command: list[str | Path] = [*QUIET, "-f", "lavfi", "-i", black]
        graph, below = [], "0:v"
        for number, one in enumerate(self._call.screens, 1):
            command += ["-i", one.path]
            graph.append(f"[{number}:v]setpts=PTS-STARTPTS+{one.offset}/TB[s{number}]")
            graph.append(f"[{below}][s{number}]overlay=eof_action=pass[v{number}]")
            below = f"v{number}"
        streams = ["-map", f"[{below}]", "-map", f"{len(self._call.screens) + 1}:a", "-c:v", "libx264", "-c:a", "aac"]
        command += ["-i", self._call.audio, "-filter_complex", ";".join(graph), *streams, "-movflags", "+faststart"]
        return time_action(lambda: inputs.run_command([*command, self._folder / "graph.mp4"]))

    def _link_input(self, source: Path, path: Path, offset: int, length: int) -> MediaInput:
        os.link(source, path)
        begin = START + timedelta(seconds=offset)
        return MediaInput(path, path.name, begin, begin + timedelta(seconds=length))


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure calls of each keyframe distance, with one screen file over the whole call, and with three and gaps."""
    for name, call in inputs.vary_calls(setting):
        rounds, bench = setting.pick_size(7, 1), EngineBench(call, setting.folder / "engine")
        taken = run_alternately(rounds, bare=bench.mux_bare_copy, step=bench.mux_product)
        taken |= run_alternately(1, graph=bench.mux_filter_graph)
        yield seconds_figure(f"{name}: bare copy", taken["bare"])
        yield ratio_figure(f"{name}: rendering / bare copy", bench.renderings, taken["bare"], at_most=1.3)
        yield ratio_figure(f"{name}: mux step / bare copy", taken["step"], taken["bare"], at_most=2.0)
        yield ratio_figure(f"{name}: filter graph / mux step", taken["graph"] * rounds, taken["step"], at_least=25.0)
        programs = ", ".join(f"{count} {what}" for what, count in sorted(bench.programs.items()))
        yield Figure(f"{name}: programs started ({programs}; {bench.method})", sum(bench.programs.values()))
