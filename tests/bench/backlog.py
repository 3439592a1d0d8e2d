"""The memory of the muxer and its programs for a backlog of real recordings, and for a tenth of it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.bench import inputs
from tests.bench.lab import running_lab
from tests.bench.measure import BenchSetting, Figure
from tests.bench.memory import measure_peak

CALL_SECONDS = 10


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure five thousand short recordings against five hundred: all steps, including encryption."""
    few, many = setting.pick_size((500, 5000), (1, 2))
    call = inputs.create_call(setting.folder, setting.pick_size(CALL_SECONDS, 1))
    with running_lab(setting.folder / "lab") as lab:
        least, most = (measure_peak(lab, [call] * count) for count in (few, many))
    yield Figure(f"peak for a backlog of {many} recordings", most, "MB")
    yield Figure(f"the same / of {few} recordings", most / least, "x", at_most=1.3)
