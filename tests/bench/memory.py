"""The memory of the muxer and the programs that it starts, for encrypted recordings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tests.bench import inputs
from tests.bench.lab import BenchLab, migration_query, running_lab
from tests.bench.measure import BenchSetting, Figure
from tests.bench.processes import watch_memory
from tests.support.daemon import MuxerProcess

# An hour and a half of screen is one gigabyte: the highest bit rate for this image.
QUALITY = replace(inputs.USUAL, kilobits=2250)
RUN_SECONDS = 4 * 3600.0


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure a screen file of a gigabyte, and one of a quarter of it."""
    peaks = {}
    with running_lab(setting.folder / "lab") as lab:
        for length in setting.pick_size((1350, 5400), (1, 2)):
            call = inputs.create_call(setting.folder, length, quality=QUALITY)
            size = call.screens[0].path.stat().st_size / 1e6
            peaks[size] = measure_peak(lab, [call])
    (small, least), (large, most) = peaks.items()
    yield Figure(f"peak for an encrypted screen file of {large:.0f} MB", most, "MB", at_most=200.0)
    yield Figure(f"peak for an encrypted screen file of {small:.0f} MB", least, "MB")
    # Only the index grows: about a hundred bytes a frame, in the muxer and in ffmpeg. A measurement varies by two megabytes.
    yield Figure("peak of the large one / peak of the small one", most / least, "x", at_most=1.1)
    yield Figure("more memory for 100 MB more of screen file", 100 * (most - least) / (large - small), "MB")


def measure_peak(lab: BenchLab, calls: Sequence[inputs.Call]) -> float:
    """Return the peak memory, in megabytes, of a run over encrypted recordings."""
    query = migration_query(lab.add_calls(calls, encrypted=True))
    with MuxerProcess(lab.write_config(advanced__call_recording_query_string=query)) as muxer:
        with watch_memory(muxer.process.pid) as seen:
            code = muxer.wait(RUN_SECONDS)
        if code or f" {len(calls)} files muxed" not in muxer.out:
            raise RuntimeError(f"the muxer did not mux all recordings: {muxer.out}{muxer.err}")
    return seen.megabytes
