"""Files that are fetched while they are still being uploaded: the muxer waits for them, muxes complete files, and muxes the
available part when they no longer grow. The real process on the lab; results are decoded."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab.build import AddedCall
from lab.cases import ALICE, CallPlan, Case, ScreenPart
from lab.lab import Lab
from tests.support import av_sync
from tests.support.calls import add_short
from tests.support.commands import run_in_process
from tests.support.daemon import MuxerProcess, log_lines, wait_until
from tests.support.muxer_runs import labelled_ids, log_messages, muxed_entries, write_config
from tests.support.tiers import spread_variants

TIMEOUT_SECONDS = 90
CALL_SECONDS = 12
PLAN = CallPlan("arrival", CALL_SECONDS, (ScreenPart(0, CALL_SECONDS),))
REMUX_FLAGS = {"front": ["-movflags", "faststart"], "end": [], "fragments": ["-movflags", "frag_keyframe+empty_moov"]}
Make = Callable[..., Lab]


@pytest.fixture
def lab(make_lab: Make) -> Lab:
    return make_lab(encryption_group="empty")


def audio_path(lab: Lab, call: AddedCall) -> Path:
    media = (lab.store.get_call(call.id) or {})["mediaFiles"][0]
    return lab.site.media.folder / "calls" / media["mediaId"]


def screen_path(lab: Lab, call: AddedCall) -> Path:
    return lab.site.media.folder / "screens" / call.screens[0].media_id


def truncate_file(path: Path, part: float = 0.5) -> bytes:
    """Truncate a file to its first `part`. Returns its complete content."""
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    return whole


def remux_file(path: Path, *flags: str) -> None:
    """Remux a screen file with ffmpeg into another container layout."""
    other = path.with_name("other.mp4")
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-i", path, "-c", "copy", *flags, other], check=True)
    other.replace(path)


def set_size(lab: Lab, call: AddedCall, size: str) -> None:
    """Write a size into the metadata of the call's audio and screen files."""
    recording = lab.store.get_call(call.id) or {}
    recording["mediaFiles"][0]["size"] = size
    lab.store.add_call(recording)
    set_screen_size(lab, call, size)


def set_screen_size(lab: Lab, call: AddedCall, size: str) -> None:
    media = (lab.store.get_screen(call.id) or {})["mediaFiles"][0]
    lab.store.add_screen_media(call.id, lab.region, media | {"size": size})


def muxed_path(lab: Lab, call: AddedCall) -> Path:
    (entry,) = muxed_entries(lab, call.id)
    return lab.site.media.folder / "screens" / entry["mediaId"]


def decode_problems(lab: Lab, call: AddedCall) -> list[str]:
    """Decode the muxed file of a call, and return what is wrong with it."""
    return av_sync.file_problems(
        muxed_path(lab, call), call.start, CALL_SECONDS, [av_sync.ExpectedScreen(0, CALL_SECONDS, ALICE.number)]
    )


def incomplete_messages(log: Path) -> list[str]:
    return [message for message in log_messages(log) if "MUX-222 MediaIncomplete" in message]


def list_failed(config: Path) -> list[dict[str, Any]]:
    """Return what the command `failed` lists."""
    found: list[dict[str, Any]] = json.loads(run_in_process(config, "failed", "--json")[1])
    return found


def wait_for_polls(log: Path, number: int) -> None:
    polls = log_messages(log).count("poll done")
    wait_until(lambda: log_messages(log).count("poll done") >= polls + number, TIMEOUT_SECONDS, "more polls", log)


def wait_for_label(lab: Lab, call: AddedCall, log: Path) -> None:
    """Wait for the label, and for the line in the log that follows it."""

    def is_done() -> bool:
        done = any(line["message"] == "recording muxed" and line["recording"] == call.id for line in log_lines(log))
        return done and call.id in labelled_ids(lab)

    wait_until(is_done, TIMEOUT_SECONDS, "the label", log)


@pytest.mark.parametrize("size", spread_variants(["right", "45", ""], 3))
def test_truncated_call_is_awaited_and_muxed_in_full(lab: Lab, size: str) -> None:
    (call,) = add_short(lab, [0], plan=PLAN, shows_its_time=True)
    path = audio_path(lab, call)
    if size != "right":
        set_size(lab, call, size)
    whole = truncate_file(path)
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: len(incomplete_messages(log)) >= 3, TIMEOUT_SECONDS, "three attempts", log)
        assert not muxed_entries(lab, call.id)
        # During an attempt it is not listed.
        found: list[dict[str, Any]] = []
        wait_until(lambda: found.extend(list_failed(config)) or found, TIMEOUT_SECONDS, "the list of what has failed", log)
        (failure,) = found
        assert (failure["recording"], failure["code"]) == (call.id, "MUX-222") and path.name in failure["reason"]
        path.write_bytes(whole)
        wait_for_label(lab, call, log)
        assert muxer.stop() == 0
    assert decode_problems(lab, call) == []
    lines = [line for line in log_lines(log) if "MUX-222 MediaIncomplete" in line["message"]]
    assert len(lines) >= 3 and [line["level"] for line in lines].count("warning") == 1
    assert not list((lab.folder / "temp" / "incoming").iterdir())


@pytest.mark.parametrize("index", spread_variants(REMUX_FLAGS, 9))
def test_truncated_screen_is_awaited_and_muxed_in_full(lab: Lab, index: str) -> None:
    (call,) = add_short(lab, [0], plan=PLAN, shows_its_time=True)
    path = screen_path(lab, call)
    remux_file(path, *REMUX_FLAGS[index])
    set_screen_size(lab, call, "0")
    config, log = write_config(lab)
    whole = truncate_file(path)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: incomplete_messages(log), TIMEOUT_SECONDS, "the wait", log)
        wait_for_polls(log, 4)
        path.write_bytes(whole[: len(whole) * 3 // 4])
        wait_for_polls(log, 2)
        path.write_bytes(whole)
        wait_for_label(lab, call, log)
        assert muxer.stop() == 0
    assert decode_problems(lab, call) == []
    assert not [message for message in log_messages(log) if "set aside" in message]


@pytest.mark.long
def test_empty_file_is_awaited(lab: Lab) -> None:
    (call,) = add_short(lab, [0], plan=PLAN, shows_its_time=True)
    path = screen_path(lab, call)
    whole = truncate_file(path, 0)
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: incomplete_messages(log), TIMEOUT_SECONDS, "the wait", log)
        path.write_bytes(whole)
        wait_for_label(lab, call, log)
        assert muxer.stop() == 0
    assert decode_problems(lab, call) == []


def test_encrypted_media_truncated_by_rcs_are_awaited(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.ENCRYPTED)
    media = (lab.store.get_call(call.id) or {})["mediaFiles"][0]
    clear = lab.folder / "clear.mp3"
    lab.decrypt_file(media["pkcs7"], audio_path(lab, call), clear)
    content = clear.read_bytes()
    kind = {"Content-Type": "audio/mp3"}
    lab.store.fail_next("rcs", "GET", "/user-recordings/", 200, 2, kind, content[: len(content) // 2])
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_for_label(lab, call, log)
        assert muxer.stop() == 0
    assert incomplete_messages(log)
    (entry,) = muxed_entries(lab, call.id)
    path = lab.folder / "muxed.mp4"
    lab.decrypt_file(entry["pkcs7"], lab.site.media.folder / "screens" / entry["mediaId"], path)
    assert abs(av_sync.streams(path)["audio"].seconds - call.plan.seconds) < 0.1


@pytest.mark.parametrize("minutes", spread_variants(["0", "0.05"], 2))
def test_available_part_of_file_that_no_longer_grows_is_muxed(lab: Lab, minutes: str) -> None:
    (call,) = add_short(lab, [0], plan=PLAN)
    truncate_file(audio_path(lab, call))
    config, log = write_config(lab, advanced__incomplete_after=minutes)
    with MuxerProcess(config) as muxer:
        wait_for_label(lab, call, log)
        assert muxer.stop() == 0
    assert bool(incomplete_messages(log)) is (minutes != "0")
    assert 4 < av_sync.streams(muxed_path(lab, call))["audio"].seconds < 8
    name = audio_path(lab, call).name
    (line,) = [line for line in log_lines(log) if f"{name} is incomplete and no longer grows" in line["message"]]
    assert line["level"] == "warning" and line["recording"] == call.id
    (done,) = [line for line in log_lines(log) if line["message"] == "recording muxed"]
    assert name in done["missing"] and f"but {CALL_SECONDS:.1f} s by its metadata" in done["missing"]


@pytest.mark.long
def test_available_part_of_screen_is_shown_after_restart(lab: Lab) -> None:
    good, call = add_short(lab, [0, 1], plan=PLAN, shows_its_time=True)
    path = screen_path(lab, call)
    remux_file(path, *REMUX_FLAGS["front"])
    set_screen_size(lab, call, str(path.stat().st_size))
    truncate_file(path, 0.7)
    old = time.time() - 7200
    os.utime(path, (old, old))
    config, log = write_config(lab, advanced__incomplete_after="60")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: incomplete_messages(log), TIMEOUT_SECONDS, "the wait", log)
        wait_for_label(lab, good, log)
        muxer.process.kill()
        muxer.process.wait()
    notes = list((lab.folder / "temp" / "incoming").glob("*.json"))
    assert len(notes) == 2
    for note in notes:
        kept = json.loads(note.read_text())
        note.write_text(json.dumps(kept | {"since": kept["since"] - 3601}))
    with MuxerProcess(config) as muxer:
        wait_for_label(lab, call, log)
        assert muxer.stop() == 0
    seen = av_sync.file_problems(
        muxed_path(lab, call), call.start, CALL_SECONDS, [av_sync.ExpectedScreen(0, CALL_SECONDS, ALICE.number)]
    )
    assert seen and all("no readable time" in one for one in seen)
    assert decode_problems(lab, good) == []
    done = next(line for line in log_lines(log) if line["message"] == "recording muxed" and line["recording"] == call.id)
    assert path.name in done["missing"] and "it is truncated" in done["missing"]


def test_invalid_size_in_metadata_delays_nothing(lab: Lab) -> None:
    (call,) = add_short(lab, [0], plan=PLAN, shows_its_time=True)
    set_size(lab, call, "45")
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_for_label(lab, call, log)
        assert muxer.stop() == 0
    assert decode_problems(lab, call) == [] and not incomplete_messages(log)


@pytest.mark.long
def test_commands_report_awaited_files(lab: Lab, tmp_path: Path) -> None:
    (call,) = add_short(lab, [0], plan=PLAN)
    name = audio_path(lab, call).name
    truncate_file(audio_path(lab, call))
    config, _ = write_config(lab)
    code, out, _ = run_in_process(config, "plan", call.id)
    assert code == 1 and f"MUX-222 MediaIncomplete: {name}: the file is not complete yet" in out
    output = tmp_path / "out.mp4"
    code, _, err = run_in_process(config, "mux", call.id, f"--output={output}")
    assert code == 1 and "MUX-222" in err and not output.exists()
    config, _ = write_config(lab, advanced__incomplete_after="0")
    code, out, _ = run_in_process(config, "plan", call.id)
    assert code == 0 and f"incomplete  {name}: lasts" in out
    code, out, err = run_in_process(config, "mux", call.id, f"--output={output}")
    assert code == 0 and f"  incomplete: {name}: lasts" in out, err
    assert 4 < av_sync.streams(output)["audio"].seconds < 8


@pytest.mark.long
def test_migration_uses_old_file_as_is_and_awaits_new_file(lab: Lab) -> None:
    old, new = add_short(lab, [0, 1], plan=PLAN)
    for call, age in ((old, 86_400), (new, 0)):
        truncate_file(audio_path(lab, call))
        when = time.time() - age
        os.utime(audio_path(lab, call), (when, when))
    config, log = write_config(lab, advanced__call_recording_query_string="startTime=0")
    with MuxerProcess(config, package=Path(__file__).parents[1] / "support", script="fast_retry_launcher.py") as muxer:
        assert muxer.wait(TIMEOUT_SECONDS) == 4
    assert 4 < av_sync.streams(muxed_path(lab, old))["audio"].seconds < 8
    assert not muxed_entries(lab, new.id) and incomplete_messages(log)
