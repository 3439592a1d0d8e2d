"""From the start of the process to the first request to RWS."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.lab import BenchLab, running_lab
from tests.bench.measure import BenchSetting, Figure, ratio_figure, run_alternately, seconds_figure, time_action
from tests.support.daemon import PYTHON, MuxerProcess, wait_until


def measure(setting: BenchSetting) -> Iterator[Figure]:
    """Measure against a bare Python that imports an HTTP client."""
    with TemporaryDirectory(dir=setting.folder) as place, running_lab(Path(place)) as lab:
        # As on a real site, where the CA bundle is read at the start.
        bundle = lab.folder / "keys" / "recipient-1.crt.pem"
        config = lab.write_config(htcc__trusted_ca=bundle, rcs__trusted_ca=bundle, webdav__trusted_ca=bundle)
        _start_muxer(lab, config)
        taken = run_alternately(setting.pick_size(11, 1), bare=_start_bare_python, muxer=lambda: _start_muxer(lab, config))
        yield seconds_figure("from process start to the first RWS request", taken["muxer"], at_most=0.5)
        yield ratio_figure("start / bare Python that imports requests", taken["muxer"], taken["bare"])


def _start_bare_python() -> float:
    return time_action(lambda: subprocess.run([PYTHON, "-c", "import requests"], check=True))


def _start_muxer(lab: BenchLab, config: Path) -> float:
    lab.forget_requests()
    started = time.time()
    with MuxerProcess(config) as muxer:
        wait_until(lab.fetch_requests, 60.0, "the first request", lab.log_path)
        muxer.stop()
    return lab.fetch_requests()[0].time - started
