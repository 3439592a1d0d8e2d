"""The muxer on Windows with all cases of the lab."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.lab import Lab
from tests.windows.muxer import WindowsMuxer

pytestmark = pytest.mark.long

Make = Callable[..., Lab]


def test_all_cases_are_muxed_until_ctrl_break(make_lab: Make, muxer: WindowsMuxer) -> None:
    lab = make_lab()
    calls = lab.add_cases()
    lab.deliver_late()
    wanted = sum(len(call.plan.call_agents) for call in calls if call.screens and not call.plan.muxed)
    muxer.write_config(lab)
    with muxer.running() as process:
        process.wait_for("recording muxed", wanted)
        process.send_control("break")
        assert process.wait() == 0, process.output
    assert [line for line in muxer.log_lines() if line["level"] in ("ERROR", "CRITICAL", "WARNING")] == []
    assert muxer.log_lines()[-1]["message"] == "stopped"
    assert not list(muxer.temp.glob("muxer-job-*"))
