"""``[advanced] blank_paused`` with the real process: what is published when it is switched, and when masks change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from tests.support import commands
from tests.support.daemon import Muxer, log_lines, run, wait_until
from tests.support.running import configured, messages, muxed

from muxer.lab.build import AddedCall
from muxer.lab.cases import Case
from muxer.lab.lab import Lab
from muxer.lab.readers import read_pictures
from muxer.lab.times import wire_time

Make = Callable[..., Lab]
SECONDS = 120
# What the masks of the lab say of these calls, in seconds of the call.
GAPS, TRANSFER = [(8.25, 10.5), (29.0, 36.0)], [(5.0, 7.0), (20.0, 22.5)]


@pytest.fixture
def lab(make_lab: Make) -> Lab:
    lab = make_lab()
    lab.add_case(Case.PLAIN)
    return lab


def names(lab: Lab, call: AddedCall) -> set[str]:
    return {entry["mediaId"] for entry in muxed(lab, call.id)}


def stored(lab: Lab) -> set[str]:
    return {path.name for path in (lab.site.media.folder / "screens").iterdir() if "muxed" in path.name}


def black(lab: Lab, entry: dict) -> list[tuple[float, float]]:
    """Return from when to when the picture of a muxed file is black."""
    clear = lab.folder / "clear.mp4"
    lab.decrypt(entry["pkcs7"], lab.site.media.folder / "screens" / entry["mediaId"], clear)
    pictures = read_pictures(clear)
    found: list[tuple[float, float]] = []
    for picture, end in zip(pictures, [*(one.pts for one in pictures[1:]), float("inf")], strict=True):
        if picture.black and found and found[-1][1] == picture.pts:
            found[-1] = (found[-1][0], end)
        elif picture.black:
            found.append((picture.pts, end))
    return found


def covers(found: Sequence[tuple[float, float]], spans: Sequence[tuple[float, float]]) -> bool:
    """Whether each span lies within what was found, within a tick."""
    return all(any(one[0] <= begin + 0.0001 and end <= one[1] + 0.0001 for one in found) for begin, end in spans)


def test_switched_on_and_off_it_replaces_what_was_published_and_nothing_else(lab: Lab) -> None:
    [gaps], [transfer] = lab.add_case(Case.GAPS), lab.add_case(Case.TRANSFER)
    [plain] = lab.store.find(lambda one: not one["mediaFiles"][0]["masks"])
    counts = {gaps.id: 1, transfer.id: 2, plain: 1}
    seen: dict[str, dict[str, set[str]]] = {}
    for turn, value in (("off", "0"), ("on", "1"), ("off again", "0")):
        config, log = configured(lab, advanced__blank_paused=value)
        wanted = len(lab.store.deletes) + (0 if turn == "off" else 3)

        def is_done(wanted: int = wanted) -> bool:
            return len(lab.store.deletes) == wanted and all(len(muxed(lab, one)) == count for one, count in counts.items())

        with Muxer(config) as muxer:
            wait_until(is_done, SECONDS, turn, log)
            wait_for_polls(log)
            assert muxer.stop() == 0
        assert is_done(), "something was muxed or deleted again"
        seen[turn] = {one: {entry["mediaId"] for entry in muxed(lab, one)} for one in counts}
        assert stored(lab) == set().union(*seen[turn].values())
        [entry] = muxed(lab, gaps.id)
        assert covers(black(lab, entry), GAPS) == (value == "1")
        for entry in muxed(lab, transfer.id):
            assert covers(black(lab, entry), TRANSFER) == (value == "1")
    assert seen["off again"] == seen["off"]
    assert seen["on"][plain] == seen["off"][plain]
    assert not (seen["on"][gaps.id] | seen["on"][transfer.id]) & (seen["off"][gaps.id] | seen["off"][transfer.id])
    finished = [line for line in log_lines(log) if line["message"] == "recording muxed" and "paused" in line]
    assert sorted(line["paused"] for line in finished) == [4.5, 4.5, 9.25]


def wait_for_polls(log: Path) -> None:
    """Wait until another poll has begun and ended."""
    polls = messages(log).count("poll done")
    wait_until(lambda: messages(log).count("poll done") > polls + 1, SECONDS, "polls", log)


def set_masks(lab: Lab, call: AddedCall, *masks: tuple[float, str]) -> None:
    recording = lab.store.call(call.id) or {}
    times = [{"time": wire_time(call.start + timedelta(seconds=at)), "type": kind} for at, kind in masks]
    recording["mediaFiles"][0]["masks"] = times
    lab.store.add_call(recording)


def test_masks_that_come_later_lead_to_another_file_also_by_command_and_migration(make_lab: Make) -> None:
    lab = make_lab()
    [call] = lab.add_case(Case.PLAIN)
    config, _ = configured(lab, advanced__blank_paused="1")
    [first] = commands.inside_json(config, "mux", call.id)["targets"]
    assert first["outcome"] == "muxed" and "paused" not in first
    set_masks(lab, call, (9, "RESUME"), (4.5, "Paused"), (20, "paused"))
    for arguments in ((), ("--no-fetch",)):
        [planned] = commands.inside_json(config, "plan", call.id, *arguments)["targets"]
        assert (planned["published"], planned["supersedes"]) == (False, [*names(lab, call)])
        assert planned["paused"] == [{"begin": 4.5, "end": 9.0}, {"begin": 20.0, "end": None}]
        assert planned["timeline"]["paused"] == [{"begin": 4.5, "end": 9.0}, {"begin": 20.0, "end": 24.0}]
        assert [(one["begin"], one["end"]) for one in planned["gaps"]] == [(4.5, 9.0), (20.0, 24.0)]
        code, out, _ = commands.inside(config, "plan", call.id, *arguments)
        assert code == 0 and "paused      0:04 to 0:09 (4.500 s) black; 0:20 to 0:24 (4.000 s) black" in out
        assert "o paused, black" in out
    [second] = commands.inside_json(config, "mux", call.id)["targets"]
    assert (second["outcome"], second["paused"]) == ("muxed", 8.5)
    assert names(lab, call) == stored(lab) == {second["file"]}
    assert black(lab, muxed(lab, call.id)[0]) == [(4.5, 9.0), (20.0, float("inf"))]
    assert [one["outcome"] for one in commands.inside_json(config, "mux", call.id)["targets"]] == ["already done"]
    [third] = commands.inside_json(config, "mux", call.id, "--force")["targets"]
    assert third["file"] == second["file"].replace("_muxed", "-2_muxed")
    assert names(lab, call) == stored(lab) == {third["file"]}
    set_masks(lab, call, (4.5, "paused"), (9, "resume"))
    query = {"advanced__call_recording_query_string": "startTime=0"}
    done = run(configured(lab, advanced__blank_paused="1", **query)[0])
    assert done.process.returncode == 0 and "1 files muxed" in done.out
    [entry] = muxed(lab, call.id)
    assert black(lab, entry) == [(4.5, 9.0)] and stored(lab) == {entry["mediaId"]}
    done = run(configured(lab, advanced__blank_paused="1", **query)[0])
    assert done.process.returncode == 0 and "0 files muxed, 1 already done" in done.out
    done = run(configured(lab, **query)[0])
    assert done.process.returncode == 0 and "1 files muxed" in done.out
    assert names(lab, call) == stored(lab) == {first["file"]}


def test_without_deletion_both_files_stay_and_neither_is_muxed_again(make_lab: Make) -> None:
    lab = make_lab()
    [call] = lab.add_case(Case.TRANSFER)
    outcomes = []
    for value in ("0", "1", "1", "0"):
        config, _ = configured(lab, advanced__blank_paused=value, advanced__delete_superseded="0")
        told = commands.inside_json(config, "mux", call.id, "--agent", "agent2")
        outcomes += [one["outcome"] for one in told["targets"]]
    assert outcomes == ["muxed", "muxed", "already done", "already done"]
    assert len(names(lab, call)) == 2 and not lab.store.deletes
