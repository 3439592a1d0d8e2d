"""``[advanced] blank_paused`` with the real process: what is published after it is switched, and after masks change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from lab.build import AddedCall
from lab.cases import Case
from lab.lab import Lab
from lab.readers import read_frames
from lab.times import wire_time
from tests.support import commands
from tests.support.daemon import MuxerProcess, log_lines, run_muxer, wait_until
from tests.support.muxer_runs import log_messages, muxed_entries, write_config

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 120
# The paused spans in the masks of the lab's calls, in seconds of the call.
GAPS, TRANSFER = [(8.25, 10.5), (29.0, 36.0)], [(5.0, 7.0), (20.0, 22.5)]


@pytest.fixture
def lab(make_lab: Make) -> Lab:
    lab = make_lab()
    lab.add_case(Case.PLAIN)
    return lab


def muxed_names(lab: Lab, call: AddedCall) -> set[str]:
    return {entry["mediaId"] for entry in muxed_entries(lab, call.id)}


def stored_names(lab: Lab) -> set[str]:
    return {path.name for path in (lab.site.media.folder / "screens").iterdir() if "muxed" in path.name}


def black_spans(lab: Lab, entry: dict) -> list[tuple[float, float]]:
    """Return the spans (begin, end), in seconds, in which the frames of a muxed file are black."""
    clear = lab.folder / "clear.mp4"
    lab.decrypt_file(entry["pkcs7"], lab.site.media.folder / "screens" / entry["mediaId"], clear)
    frames = read_frames(clear)
    found: list[tuple[float, float]] = []
    for frame, end in zip(frames, [*(frame.pts for frame in frames[1:]), float("inf")], strict=True):
        if frame.black and found and found[-1][1] == frame.pts:
            found[-1] = (found[-1][0], end)
        elif frame.black:
            found.append((frame.pts, end))
    return found


def covers_spans(found: Sequence[tuple[float, float]], spans: Sequence[tuple[float, float]]) -> bool:
    """Return whether each span lies within a found span, with a tolerance of one tick."""
    return all(any(one[0] <= begin + 0.0001 and end <= one[1] + 0.0001 for one in found) for begin, end in spans)


def test_switching_blank_paused_replaces_only_affected_files(lab: Lab) -> None:
    [gaps], [transfer] = lab.add_case(Case.GAPS), lab.add_case(Case.TRANSFER)
    [plain] = lab.store.find_calls(lambda one: not one["mediaFiles"][0]["masks"])
    counts = {gaps.id: 1, transfer.id: 2, plain: 1}
    seen: dict[str, dict[str, set[str]]] = {}
    for turn, value in (("off", "0"), ("on", "1"), ("off again", "0")):
        config, log = write_config(lab, advanced__blank_paused=value)
        deletions = len(lab.store.media_deletes) + (0 if turn == "off" else 3)

        def is_done(deletions: int = deletions) -> bool:
            return len(lab.store.media_deletes) == deletions and all(
                len(muxed_entries(lab, one)) == count for one, count in counts.items()
            )

        with MuxerProcess(config) as muxer:
            wait_until(is_done, TIMEOUT_SECONDS, turn, log)
            wait_for_polls(log)
            assert muxer.stop() == 0
        assert is_done(), "something was muxed or deleted again"
        seen[turn] = {one: {entry["mediaId"] for entry in muxed_entries(lab, one)} for one in counts}
        assert stored_names(lab) == set().union(*seen[turn].values())
        [entry] = muxed_entries(lab, gaps.id)
        assert covers_spans(black_spans(lab, entry), GAPS) == (value == "1")
        for entry in muxed_entries(lab, transfer.id):
            assert covers_spans(black_spans(lab, entry), TRANSFER) == (value == "1")
    assert seen["off again"] == seen["off"]
    assert seen["on"][plain] == seen["off"][plain]
    assert not (seen["on"][gaps.id] | seen["on"][transfer.id]) & (seen["off"][gaps.id] | seen["off"][transfer.id])
    finished = [line for line in log_lines(log) if line["message"] == "recording muxed" and "paused" in line]
    assert sorted(line["paused"] for line in finished) == [4.5, 4.5, 9.25]


def wait_for_polls(log: Path) -> None:
    """Wait until another poll has started and ended."""
    polls = log_messages(log).count("poll done")
    wait_until(lambda: log_messages(log).count("poll done") > polls + 1, TIMEOUT_SECONDS, "polls", log)


def set_masks(lab: Lab, call: AddedCall, *masks: tuple[float, str]) -> None:
    recording = lab.store.get_call(call.id) or {}
    times = [{"time": wire_time(call.start + timedelta(seconds=at)), "type": kind} for at, kind in masks]
    recording["mediaFiles"][0]["masks"] = times
    lab.store.add_call(recording)


@pytest.mark.long
def test_later_masks_lead_to_new_file_by_poll_command_and_migration(make_lab: Make) -> None:
    lab = make_lab()
    [call] = lab.add_case(Case.PLAIN)
    config, _ = write_config(lab, advanced__blank_paused="1")
    [first] = commands.run_json_in_process(config, "mux", call.id)["targets"]
    assert first["outcome"] == "muxed" and "paused" not in first
    set_masks(lab, call, (9, "RESUME"), (4.5, "Paused"), (20, "paused"))
    for arguments in ((), ("--no-fetch",)):
        [planned] = commands.run_json_in_process(config, "plan", call.id, *arguments)["targets"]
        assert (planned["published"], planned["supersedes"]) == (False, [*muxed_names(lab, call)])
        assert planned["paused"] == [{"begin": 4.5, "end": 9.0}, {"begin": 20.0, "end": None}]
        assert planned["timeline"]["paused"] == [{"begin": 4.5, "end": 9.0}, {"begin": 20.0, "end": 24.0}]
        assert [(one["begin"], one["end"]) for one in planned["gaps"]] == [(4.5, 9.0), (20.0, 24.0)]
        code, out, _ = commands.run_in_process(config, "plan", call.id, *arguments)
        assert code == 0 and "paused      0:04 to 0:09 (4.500 s) black; 0:20 to 0:24 (4.000 s) black" in out
        assert "o paused, black" in out
    [second] = commands.run_json_in_process(config, "mux", call.id)["targets"]
    assert (second["outcome"], second["paused"]) == ("muxed", 8.5)
    assert muxed_names(lab, call) == stored_names(lab) == {second["file"]}
    assert black_spans(lab, muxed_entries(lab, call.id)[0]) == [(4.5, 9.0), (20.0, float("inf"))]
    assert [target["outcome"] for target in commands.run_json_in_process(config, "mux", call.id)["targets"]] == [
        "already done"
    ]
    [third] = commands.run_json_in_process(config, "mux", call.id, "--force")["targets"]
    assert third["file"] == second["file"].replace("_muxed", "-2_muxed")
    assert muxed_names(lab, call) == stored_names(lab) == {third["file"]}
    set_masks(lab, call, (4.5, "paused"), (9, "resume"))
    query = {"advanced__call_recording_query_string": "startTime=0"}
    done = run_muxer(write_config(lab, advanced__blank_paused="1", **query)[0])
    assert done.process.returncode == 0 and "1 files muxed" in done.out
    [entry] = muxed_entries(lab, call.id)
    assert black_spans(lab, entry) == [(4.5, 9.0)] and stored_names(lab) == {entry["mediaId"]}
    done = run_muxer(write_config(lab, advanced__blank_paused="1", **query)[0])
    assert done.process.returncode == 0 and "0 files muxed, 1 already done" in done.out
    done = run_muxer(write_config(lab, **query)[0])
    assert done.process.returncode == 0 and "1 files muxed" in done.out
    assert muxed_names(lab, call) == stored_names(lab) == {first["file"]}


@pytest.mark.long
def test_without_deletion_both_files_stay_and_neither_is_remuxed(make_lab: Make) -> None:
    lab = make_lab()
    [call] = lab.add_case(Case.TRANSFER)
    outcomes = []
    for value in ("0", "1", "1", "0"):
        config, _ = write_config(lab, advanced__blank_paused=value, advanced__delete_superseded="0")
        report = commands.run_json_in_process(config, "mux", call.id, "--agent", "agent2")
        outcomes += [target["outcome"] for target in report["targets"]]
    assert outcomes == ["muxed", "muxed", "already done", "already done"]
    assert len(muxed_names(lab, call)) == 2 and not lab.store.media_deletes
