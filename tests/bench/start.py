"""From the start of the process to the first request to RWS."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench.lab import BenchLab, running_lab
from tests.bench.measure import Figure, Setting, clocked, ratio, seconds, side_by_side
from tests.support.daemon import PYTHON, Muxer, wait_until


def measure(setting: Setting) -> Iterator[Figure]:
    """Against a bare Python that imports an HTTP client."""
    with TemporaryDirectory(dir=setting.folder) as place, running_lab(Path(place)) as lab:
        # As on a real site, where the bundle of authorities is read at the start.
        bundle = lab.folder / "keys" / "recipient-1.crt.pem"
        config = lab.config(htcc__trusted_ca=bundle, rcs__trusted_ca=bundle, webdav__trusted_ca=bundle)
        _start(lab, config)
        taken = side_by_side(setting.pick(11, 1), bare=_bare, muxer=lambda: _start(lab, config))
        yield seconds("from process start to the first RWS request", taken["muxer"], at_most=0.5)
        yield ratio("start / bare Python that imports requests", taken["muxer"], taken["bare"])


def _bare() -> float:
    return clocked(lambda: subprocess.run([PYTHON, "-c", "import requests"], check=True))


def _start(lab: BenchLab, config: Path) -> float:
    lab.forget_requests()
    started = time.time()
    with Muxer(config) as muxer:
        wait_until(lab.requests, 60.0, "the first request", lab.log)
        muxer.stop()
    return lab.requests()[0].moment - started
