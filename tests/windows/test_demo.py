"""``python -m lab demo`` on Windows: the lab and the muxer run there."""

from __future__ import annotations

import re

import pytest

from tests.windows.machine import windows_path
from tests.windows.muxer import WindowsMuxer

pytestmark = pytest.mark.long


# Wine would take TMPDIR for a path of this machine.
RUN_DEMO = "import os, runpy, sys; os.environ['TMPDIR'] = sys.argv.pop(); runpy.run_module('lab', run_name='__main__')"


def test_demo_muxes_every_recording_and_leaves_a_file_to_play(muxer: WindowsMuxer) -> None:
    (folder := muxer.folder / "Öffentlich").mkdir()
    done = muxer.run_python("-c", RUN_DEMO, "demo", windows_path(folder), PYTHONPATH=windows_path(muxer.folder))
    assert done.code == 0, done.err
    assert "7/7" in done.out and done.out.count("screenRecording") == 7
    (playable,) = folder.glob("recording-muxer-demo-*/muxed/gaps*")
    assert playable.name in done.out and playable.stat().st_size > 0
    assert re.search(r"encrypted .* yes ", done.out)
