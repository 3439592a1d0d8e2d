"""The engine executes its plan, and reports its progress."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from lab.media import make_screen
from muxer.errors import MediaError
from muxer.media import engine as engine_module
from muxer.media.analyze.arrival import MediaInput
from muxer.media.engine import MediaEngine
from muxer.media.plan.mux_plan import Plan
from muxer.media.plan.timeline import Overlap
from muxer.status.activity import Activity
from muxer.system.process import Runner, record_commands
from tests.support.media_kinds import CALL_SECONDS, SIZE, T0, make_audio
from tests.support.tools import tested_tools


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[MediaInput, list[MediaInput]]:
    """Return screen files that overlap by two seconds and leave a gap at the end; one starts before the call."""
    folder = tmp_path_factory.mktemp("sources")
    make_audio(folder / "call.mp3", T0, CALL_SECONDS)
    make_screen(folder / "first.mp4", T0 - timedelta(seconds=1), 4, size=SIZE)
    make_screen(folder / "second.mp4", T0 + timedelta(seconds=1), 3, size=SIZE)
    screens = [
        MediaInput(folder / "first.mp4", "first", T0 - timedelta(seconds=1)),
        MediaInput(folder / "second.mp4", "second", T0 + timedelta(seconds=1)),
    ]
    return MediaInput(folder / "call.mp3", "call", T0), screens


@pytest.fixture
def engine() -> MediaEngine:
    return MediaEngine(tested_tools(), Runner(), tolerance=1.0, slice_ms=5000, audio_codec="copy")


def plan_sources(engine: MediaEngine, sources: tuple[MediaInput, list[MediaInput]], folder: Path) -> Plan:
    folder.mkdir(exist_ok=True)
    return engine.plan_mux(*sources, folder)


def without_moment(command: tuple[str, ...]) -> list[str]:
    """Return a command without the time of the last frame, which the plan rounds."""
    kept = list(command)
    if "framecrc" in kept:
        at = kept.index("-ss") + 1
        kept[at] = f"{float(kept[at]):.4f}"
    return kept


def test_planned_commands_are_executed(
    engine: MediaEngine, sources: tuple[MediaInput, list[MediaInput]], tmp_path: Path
) -> None:
    plan = plan_sources(engine, sources, tmp_path)
    with record_commands() as ran:
        muxed = engine.execute_plan(plan, tmp_path)
    expected = [*plan.sources.commands, *ran]
    assert [without_moment(command) for command in plan.all_commands] == [without_moment(one) for one in expected]
    assert [bool({"lavfi", "libx264", "framecrc"} & {*one}) for one in expected].count(True) == 3
    assert (muxed.reasons, muxed.padding, muxed.timeline) == (plan.encode_reasons, plan.padding_us, plan.mux_timeline)


def test_planning_creates_no_file(engine: MediaEngine, sources: tuple[MediaInput, list[MediaInput]], tmp_path: Path) -> None:
    plan_sources(engine, sources, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_plan_shows_the_overlap_and_that_the_earlier_file_is_cut(
    engine: MediaEngine, sources: tuple[MediaInput, list[MediaInput]], tmp_path: Path
) -> None:
    plan = plan_sources(engine, sources, tmp_path)
    assert plan.sources.overlaps == (Overlap(0, 1, 2_000_000, tolerated=False),)
    assert plan.encode_reasons == ("no keyframe in the span",)


def test_encoders_print_their_progress(
    engine: MediaEngine, sources: tuple[MediaInput, list[MediaInput]], tmp_path: Path
) -> None:
    [command] = plan_sources(engine, sources, tmp_path).encoders.values()
    assert b"out_time_us=" in Runner().run(command, timeout=60)


def test_progress_ends_at_the_total_and_never_decreases(
    engine: MediaEngine, sources: tuple[MediaInput, list[MediaInput]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    activity, seen = Activity(), []
    late = [MediaInput(sources[1][0].path, "late", T0 - timedelta(milliseconds=1500)), sources[1][1]]
    advance = engine_module.activity.add_progress  # type: ignore[attr-defined]

    def record_progress(amount: int) -> None:
        advance(amount)
        [running] = activity.take_snapshot().running
        seen.append(running)

    monkeypatch.setattr(engine_module.activity, "add_progress", record_progress)  # type: ignore[attr-defined]
    with activity.track_target("call", "alice", "x.mp4"):
        plan = engine.plan_mux(sources[0], late, tmp_path)
        engine.execute_plan(plan, tmp_path)
    assert plan.encoders
    assert {one.total for one in seen} == {plan.work_us}
    assert [one.done for one in seen] == sorted(one.done for one in seen)
    assert seen[-1].done == plan.work_us
    assert any(0 < one.done < plan.work_us for one in seen), "no progress was reported"


def test_everything_is_encoded_after_a_failed_copy(
    engine: MediaEngine, sources: tuple[MediaInput, list[MediaInput]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, plans = engine.execute_plan, []

    def fail_once(plan: Plan, folder: Path) -> object:
        plans.append(plan)
        if len(plans) == 1:
            raise MediaError("made up")
        return execute(plan, folder)

    monkeypatch.setattr(engine, "execute_plan", fail_once)
    muxed = engine.mux(*sources, tmp_path)
    assert muxed.reasons == ("everything is re-encoded",)
    assert [len(plan.encoders) for plan in plans] == [1, 2]
