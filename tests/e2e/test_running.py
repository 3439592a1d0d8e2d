"""The process from an administrator's view: bad configurations, stops, restarts, services that are unavailable."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support.daemon import FAST_RETRY, PACKAGE, PYTHON, MuxerProcess, log_lines, run_muxer, wait_until
from tests.support.fake_program import write_lacking
from tests.support.muxer_runs import (
    hanging_mark,
    labelled_ids,
    log_messages,
    muxed_entries,
    write_config,
    write_slow_program,
)
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--", "config-file=none.cfg"], "configuration file none.cfg: does not exist"),
        (["check", "--config-file=none.cfg"], "command line: unrecognized arguments: check"),
        (["--config-file=none.cfg", "--muxer_id=0"], "command line: unrecognized arguments: --muxer_id=0"),
        ([], "command line: the following arguments are required: --config-file"),
    ],
)
def test_command_line_is_parsed_as_in_the_guide(tmp_path: Path, arguments: list[str], message: str) -> None:
    """The log contains the problems too: under LCA no one sees stderr."""
    command = [PYTHON, str(PACKAGE / "muxer_process.py"), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert done.returncode == 2
    assert message in done.stderr
    assert f"cannot start: MUX-101 {message}" in (tmp_path / "recording-muxer-single.log").read_text()
    assert ("commands such as check and status are those of recording-muxer" in done.stderr) == ("check" in arguments)


def test_all_mistakes_are_reported_at_once_with_code_2(tmp_path: Path) -> None:
    config = tmp_path / "muxer.cfg"
    config.write_text(
        "[htcc]\nbase_uri = rws:8081\nrws_timeout = 5\npassword = topsecret%pw\ntrusted-ca = /no/such/file.pem\n"
        "[processing]\nwindow_past = soon\ntemp_dir = /no/such/folder\nffmpeg = /no/such/ffmpeg\nmin-poll_intervall = 3\n"
        f"[logfile]\nlogfile_path = {tmp_path}\n"
    )
    done = run_muxer(config, "--muxer-type=main", "--muxer-id=0", seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 2
    for where in (
        *("[htcc] base_uri", "[htcc] contact_center_id", "[htcc] rws_timeout", "[htcc] trusted_ca"),
        *("[processing] window_past", "[processing] temp_dir", "[processing] ffmpeg", "[processing] muxer_type"),
    ):
        assert where in done.err
    assert "topsecret" not in done.err
    log = (tmp_path / "recording-muxer-single.log").read_text()
    assert "[htcc] base_uri" in log and "topsecret" not in log


def test_missing_configuration_file_is_reported(tmp_path: Path) -> None:
    done = run_muxer(tmp_path / "nowhere.cfg", seconds=TIMEOUT_SECONDS, cwd=tmp_path)
    assert done.process.returncode == 2 and "does not exist" in done.err
    assert "does not exist" in (tmp_path / "recording-muxer-single.log").read_text()


@pytest.mark.parametrize("arguments", [["--config-file=none.cfg"], ["--no-such-option"]])
def test_a_refused_start_on_a_terminal_leaves_no_files(tmp_path: Path, arguments: list[str]) -> None:
    """The reader of the terminal sees the reason; a log in the working directory would be in the way."""
    command = [PYTHON, str(PACKAGE / "muxer_process.py"), *arguments]
    terminal, stderr = pty.openpty()
    try:
        done = subprocess.run(command, cwd=tmp_path, stderr=stderr, timeout=TIMEOUT_SECONDS)
        shown = os.read(terminal, 10_000).decode()
    finally:
        os.close(stderr)
        os.close(terminal)
    assert done.returncode == 2 and "The Recording Muxer cannot start (MUX-101):" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("program", spread_variants(["ffprobe", "ffmpeg", "openssl"], 3))
def test_program_that_does_not_run_is_reported(make_lab: Make, tmp_path: Path, program: str) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'no such library' >&2\nexit 127\n")
    broken.chmod(0o755)
    config, _ = write_config(make_lab(), **{f"processing__{program}": str(broken)})
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 2
    assert f"[processing] {program}" in done.err and "no such library" in done.err


@pytest.mark.parametrize(
    ("program", "word", "message"),
    spread_variants(
        [
            ("ffmpeg", "libx264", "no libx264 encoder"),
            ("ffmpeg", "transpose", "this ffmpeg lacks nosuchthing"),
            ("ffmpeg", "ashowinfo", "this ffmpeg lacks nosuchthing"),
            ("ffmpeg", "enc_time_base", "this ffmpeg lacks nosuchthing"),
            ("ffprobe", "show_entries", "this ffprobe lacks nosuchthing"),
        ],
        4,
    ),
)
@pytest.mark.machine_ffmpeg
def test_incomplete_build_is_refused_at_start(make_lab: Make, tmp_path: Path, program: str, word: str, message: str) -> None:
    build = write_lacking(tmp_path, program, word, "nosuchthing")
    config, log = write_config(make_lab(), **{f"processing__{program}": str(build)})
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 2
    assert f"[processing] {program}" in done.err and message in done.err and "version 4.2 or later" in done.err
    assert any("cannot start" in one and message in one for one in log_messages(log))


def test_second_instance_on_same_temporary_folder_is_refused(make_lab: Make, tmp_path: Path) -> None:
    """Its reason is on stderr and next to the log of the first instance; no log is started in the working directory."""
    config, log = write_config(make_lab())
    with MuxerProcess(config) as first:
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        (elsewhere := tmp_path / "elsewhere").mkdir()
        second = run_muxer(config, seconds=TIMEOUT_SECONDS, cwd=elsewhere)
        assert second.process.returncode == 2
        assert "another instance" in second.err and str(first.process.pid) in second.err
        assert "if that is this muxer, stop it first" in second.err
        assert not list(elsewhere.iterdir())
        assert first.stop() == 0


@pytest.mark.parametrize("number", spread_variants([signal.SIGTERM, signal.SIGINT], 2))
def test_an_idle_muxer_stops_at_once_with_code_0(make_lab: Make, number: int) -> None:
    config, log = write_config(make_lab(), processing__min_poll_interval="5")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "poll done" in log_messages(log), TIMEOUT_SECONDS, "a poll", log)
        before = time.monotonic()
        assert muxer.stop(number) == 0
        assert time.monotonic() - before < 10


def test_a_stop_while_services_hang_takes_less_than_ten_seconds(make_lab: Make, tmp_path: Path) -> None:
    config, log = write_config(make_lab())
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(5)
        text = re.sub(r"base_uri = \S+", f"base_uri = http://127.0.0.1:{silent.getsockname()[1]}", config.read_text())
        config.write_text(text)
        with MuxerProcess(config) as muxer:
            wait_until(
                lambda: any("temporary files" in message for message in log_messages(log)), TIMEOUT_SECONDS, "the start", log
            )
            time.sleep(1)
            before = time.monotonic()
            assert muxer.stop() == 0
            assert time.monotonic() - before < 10


def test_stop_during_recording_leaves_no_files(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    slow = write_slow_program(tmp_path, "ffmpeg")
    config, log = write_config(lab, processing__ffmpeg=str(slow))
    with MuxerProcess(config) as muxer:
        wait_until(hanging_mark(slow).exists, TIMEOUT_SECONDS, "the mux", log)
        before = time.monotonic()
        assert muxer.stop() == 0
        assert time.monotonic() - before < 10
    assert not list((lab.folder / "temp").glob("muxer-job-*"))
    assert not find_orphans(slow)
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log)
        assert muxer.stop() == 0
    assert len(muxed_entries(lab, call.id)) == 1


def find_orphans(program: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(program).encode() in process.read_bytes():
                found.append(process.parent.name)
        except OSError:
            continue
    return found


def test_kill_9_leaves_no_orphan_and_the_next_start_finishes(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    slow = write_slow_program(tmp_path, "openssl")
    config, log = write_config(lab, processing__openssl=str(slow))
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "mux done" in log_messages(log), TIMEOUT_SECONDS, "the mux", log)
        wait_until(lambda: find_orphans(slow), TIMEOUT_SECONDS, "the encryption", log)
        muxer.process.kill()
        muxer.process.wait()
    wait_until(lambda: not find_orphans(slow), 10, "the end of the children")
    assert list((lab.folder / "temp").glob("muxer-job-*"))
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log)
        assert muxer.stop() == 0
    assert not list((lab.folder / "temp").glob("muxer-job-*"))
    assert len(muxed_entries(lab, call.id)) == 1


def test_a_second_signal_ends_the_process_at_once(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    lab.add_case(Case.PLAIN)
    slow = write_slow_program(tmp_path, "ffmpeg")
    config, log = write_config(lab, processing__ffmpeg=str(slow))
    with MuxerProcess(config) as muxer:
        wait_until(hanging_mark(slow).exists, TIMEOUT_SECONDS, "the mux", log)
        muxer.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        before = time.monotonic()
        assert muxer.stop() != 0
        assert time.monotonic() - before < 3


def test_muxer_waits_for_rws_at_start(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    config, log = write_config(lab)
    lab.store.fail_next("rws", "GET", "/", 503, times=4)
    with MuxerProcess(config) as muxer:
        wait_until(
            lambda: any("poll failed" in message for message in log_messages(log)), TIMEOUT_SECONDS, "a failed poll", log
        )
        wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log)
        assert muxer.stop() == 0


def test_polls_keep_their_interval(make_lab: Make) -> None:
    lab = make_lab()
    config, log = write_config(lab, processing__min_poll_interval="0.02")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: log_messages(log).count("poll done") >= 4, TIMEOUT_SECONDS, "four polls", log)
        assert muxer.stop() == 0
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in log_lines(log) if line["message"] == "poll done"]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert sorted(gaps)[len(gaps) // 2] == pytest.approx(1.2, abs=0.4)


def test_late_screens_lead_to_fuller_file_that_replaces_the_first(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.GAPS)
    whole = lab.store.get_screen(call.id) or {}
    lab.store.delete_screen_media(call.id, whole["mediaFiles"][2]["mediaId"])
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: muxed_entries(lab, call.id), TIMEOUT_SECONDS, "the first file", log)
        first = muxed_entries(lab, call.id)[0]
        assert len(first["parameters"]["muxed_mediaIds"]) == 3
        lab.store.add_screen_media(call.id, lab.region, whole["mediaFiles"][2])
        wait_until(
            lambda: [len(entry["parameters"]["muxed_mediaIds"]) for entry in muxed_entries(lab, call.id)] == [4],
            TIMEOUT_SECONDS,
            "the fuller file",
            log,
        )
        wait_until(lambda: log_messages(log).count("recording muxed") == 2, TIMEOUT_SECONDS, "the end of the second", log)
        assert muxer.stop() == 0
    assert [media for _, media in lab.store.media_deletes][1:] == [first["mediaId"]]
    stored = {path.name for path in (lab.site.media.folder / "screens").iterdir()}
    assert first["mediaId"] not in stored and muxed_entries(lab, call.id)[0]["mediaId"] in stored
    assert lab.store.label_posts == [(call.id, "screenRecording")]


@pytest.mark.long
def test_delete_superseded_can_be_switched_off(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.GAPS)
    third = (lab.store.get_screen(call.id) or {})["mediaFiles"][2]
    lab.store.delete_screen_media(call.id, third["mediaId"])
    config, log = write_config(lab, advanced__delete_superseded="0")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: muxed_entries(lab, call.id), TIMEOUT_SECONDS, "the first file", log)
        lab.store.add_screen_media(call.id, lab.region, third)
        wait_until(lambda: len(muxed_entries(lab, call.id)) == 2, TIMEOUT_SECONDS, "the fuller file", log)
        assert muxer.stop() == 0
    assert len(lab.store.media_deletes) == 1


def test_encrypted_recording_fails_until_certificates_exist(make_lab: Make) -> None:
    lab = make_lab(encryption_group="empty")
    (call,) = lab.add_case(Case.ENCRYPTED)
    config, log = write_config(lab)
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(
            lambda: any("no encryption certificate" in message for message in log_messages(log)),
            TIMEOUT_SECONDS,
            "the error",
            log,
        )
        assert muxer.stop() == 0
    assert not muxed_entries(lab, call.id)
    assert {line["level"] for line in log_lines(log) if "no encryption certificate" in line["message"]} == {"error"}
    assert not [path for path in (lab.site.media.folder / "screens").iterdir() if "muxed" in path.name]
    lab.switches = replace(lab.switches, encryption_group="certificates")
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(lambda: muxed_entries(lab, call.id), TIMEOUT_SECONDS, "the muxed file", log)
        assert muxer.stop() == 0


def test_broken_recording_is_set_aside_and_others_are_muxed(make_lab: Make) -> None:
    lab = make_lab()
    (bad,) = lab.add_case(Case.PLAIN, serial=1)
    (good,) = lab.add_case(Case.PLAIN, serial=2)
    (lab.site.media.folder / "screens" / bad.screens[0].media_id).write_bytes(b"<html>not found</html>")
    config, log = write_config(lab)
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(
            lambda: any("set aside" in message for message in log_messages(log)), TIMEOUT_SECONDS, "the set-aside state", log
        )
        wait_until(lambda: good.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label of the good recording", log)
        polls = log_messages(log).count("poll done")
        wait_until(lambda: log_messages(log).count("poll done") >= polls + 3, TIMEOUT_SECONDS, "three polls more", log)
        assert muxer.stop() == 0
    failures = [line for line in log_lines(log) if line.get("recording") == bad.id and line["level"] == "error"]
    assert [line["attempt"] for line in failures] == [1, 2, 3]
    assert bad.screens[0].media_id in failures[-1]["message"]
    assert not muxed_entries(lab, bad.id)


def test_media_later_than_metadata_are_fetched_by_later_poll(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    path = lab.site.media.folder / "screens" / call.screens[0].media_id
    hidden = path.rename(lab.folder / "hidden")
    config, log = write_config(lab)
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(
            lambda: any("MediaNotFound" in message for message in log_messages(log)), TIMEOUT_SECONDS, "the failure", log
        )
        hidden.rename(path)
        wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log)
        assert muxer.stop() == 0


def test_environment_passwords_override_the_file(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.ENCRYPTED)
    passwords = {
        "HTCC_PASSWORD": lab.site.rws_account.password,
        "RCS_PASSWORD": lab.site.rcs_account.password,
        "WEBDAV_PASSWORD": lab.site.dav_account.password,
    }
    config, _ = write_config(lab, advanced__call_recording_query_string="startTime=0")
    config.write_text(re.sub(r"password = .*", "password = wrong", config.read_text()))
    assert run_muxer(config, env=passwords, seconds=TIMEOUT_SECONDS).process.returncode == 0
    assert muxed_entries(lab, call.id)


@pytest.mark.parametrize(
    "switches",
    spread_variants(
        [
            {"csrf": False, "bulk": False, "link_form": "next", "replacing_post": True, "label_definition": False},
            {
                "csrf_expires_after": 1,
                "bulk": False,
                "bulk_refusal": 405,
                "label_definition": False,
                "label_missing_answer": 400,
            },
            {"scroll_expires_once": True, "partial_code": False, "error_in_envelope": True, "replacing_post": True},
            {"version": "8.5.201.13", "label_forbidden": True, "encryption_group": "missing", "link_form": "nextUri"},
            {"version": "", "scroll_empty_first_page": False, "scroll_repeats_ids": False, "foreign_links": False},
        ],
        3,
    ),
    ids=lambda switches: ",".join(switches),
)
def test_every_server_deviation_is_tolerated(make_lab: Make, switches: dict[str, object]) -> None:
    lab = make_lab(**switches)
    calls = {call.plan.name: call for call in lab.add_cases([Case.PLAIN, Case.TRANSFER, Case.NOTHING])}
    config, log = write_config(lab, advanced__pagination="2")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: log_messages(log).count("recording muxed") >= 3, TIMEOUT_SECONDS, "three muxed files", log)
        assert muxer.stop() == 0
    assert [len(muxed_entries(lab, calls[name].id)) for name in ("plain", "transfer", "muxed")] == [1, 2, 1]
    for call in calls.values():
        sources = {media["mediaId"] for media in (lab.store.get_screen(call.id) or {"mediaFiles": []})["mediaFiles"]}
        assert {screen.media_id for screen in call.screens} <= sources
    forbidden = bool(switches.get("label_forbidden"))
    assert labelled_ids(lab) == (set() if forbidden else {calls["plain"].id, calls["transfer"].id})


def test_forbidden_label_is_requested_once_and_causes_no_work(make_lab: Make) -> None:
    lab = make_lab(label_forbidden=True)
    (call,) = lab.add_case(Case.PLAIN)
    config, log = write_config(lab)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: muxed_entries(lab, call.id), TIMEOUT_SECONDS, "the muxed file", log)
        polls = log_messages(log).count("poll done")
        wait_until(lambda: log_messages(log).count("poll done") >= polls + 3, TIMEOUT_SECONDS, "three polls more", log)
        assert muxer.stop() == 0
    assert len([request for request in lab.store.served_requests if request.path.endswith("/labels")]) <= 2
    assert log_messages(log).count("recording brought up to date") == 0


def test_upload_of_dead_process_is_deleted_from_storage(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    config, log = write_config(lab)
    lab.store.fail_next("dav", "MOVE", "/part-", 500, times=100)
    lab.store.fail_next("dav", "DELETE", "/part-", 500, times=1)
    screens, records = lab.site.media.folder / "screens", lab.folder / "temp" / "uploading"
    with MuxerProcess(config) as muxer:
        wait_until(lambda: any("MOVE" in message for message in log_messages(log)), TIMEOUT_SECONDS, "the failure", log)
        wait_until(
            lambda: not [*screens.glob("part-*"), *records.iterdir()], TIMEOUT_SECONDS, "the removal at a later poll", log
        )
        muxer.process.kill()
        muxer.process.wait()
    assert not muxed_entries(lab, call.id)


def test_a_temporary_folder_of_another_account_is_refused(make_lab: Make) -> None:
    lab = make_lab()
    config, _ = write_config(lab)
    (lab.folder / "temp" / "muxer.lock").mkdir()
    done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 2
    assert "[processing] temp_dir" in done.err and "Traceback" not in done.err
