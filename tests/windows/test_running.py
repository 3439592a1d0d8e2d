"""The muxer on Windows from its start to its end: passwords, a second instance, stops, kills, the log."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.config.keystore import KEY_FILE, KEYSTORE_FILE
from muxer.config.types import MAX_WINDOWS_TEMP_LENGTH
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_SOME_FAILED
from tests.support.daemon import wait_until
from tests.windows.machine import windows_path
from tests.windows.muxer import RUN_SECONDS, WindowsMuxer, held_files

pytestmark = pytest.mark.long

Make = Callable[..., Lab]


def programs_in(folder: str) -> list[str]:
    """Return the command lines of the programs that work in `folder`; this machine sees the processes of that Windows."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            lines.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if folder in line]


def test_a_keystore_of_dpapi_and_a_second_instance(make_lab: Make, muxer: WindowsMuxer) -> None:
    lab = make_lab()
    (call,) = lab.add_case(Case.ENCRYPTED)
    muxer.write_config(lab, **{"htcc.password": ""})
    script, option = "..\\encryptPassword.py", "--config-file=muxer.cfg"
    stored = muxer.run_python(script, option, "--stdin", stdin=f"htcc={lab.site.rws_account.password}\r\n".encode())
    assert stored.code == 0, stored.err
    assert (muxer.config.parent / KEYSTORE_FILE).exists() and not (muxer.config.parent / KEY_FILE).exists()
    assert muxer.run_python(script, option, "--list").out == "[htcc] password\n"
    assert lab.site.rws_account.password not in (muxer.config.parent / KEYSTORE_FILE).read_text(encoding="utf-8")
    with muxer.running() as process:
        process.wait_for("recording muxed")
        second = muxer.run_muxer()
        assert second.code == EXIT_CONFIG and f"process {process.process_id} on " in second.err
        process.send_control("c")
        assert process.wait() == 0, process.output
    assert (call.id, "screenRecording") in lab.store.label_posts


def test_the_event_log_is_an_output(make_lab: Make, muxer: WindowsMuxer) -> None:
    """Wine accepts events and shows none: what this shows is that the muxer works with this output."""
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    muxer.write_config(lab, **{"logfile.output": "eventlog"})
    with muxer.running() as process:
        wait_until(lambda: (call.id, "screenRecording") in lab.store.label_posts, RUN_SECONDS, "the label")
        process.send_control("c")
        assert process.wait() == 0, process.output
    assert not muxer.log.exists()


def test_a_migration_reports_its_failures_in_any_code_page(make_lab: Make, muxer: WindowsMuxer) -> None:
    """The id of the recording has characters that cp1252, the encoding of redirected output, does not have."""
    lab = make_lab(encryption_group="empty")
    (good,) = lab.add_case(Case.GAPS)
    (call,) = lab.add_case(Case.PLAIN)
    recording, screen = lab.store.get_call(call.id), lab.store.get_screen(call.id)
    assert recording is not None and screen is not None
    (lab.site.media.folder / "screens" / call.screens[0].media_id).write_bytes(b"")
    lab.store.add_screen_media("Gespräch 日本", lab.region, screen["mediaFiles"][0])
    lab.store.add_call({**recording, "id": "Gespräch 日本"})
    muxer.write_config(lab, **{"advanced.call_recording_query_string": "startTime=0", "advanced.incomplete_after": "0"})
    done = muxer.run_muxer()
    assert done.code == EXIT_SOME_FAILED, done.err
    assert "3 recordings found, 1 files muxed" in done.out and "2 failed: " in done.out and r"\u65e5\u672c" in done.out
    assert (good.id, "screenRecording") in lab.store.label_posts
    again = muxer.run_muxer()
    assert again.code == EXIT_SOME_FAILED and "1 already done" in again.out


def test_a_killed_muxer_leaves_nothing_running_and_the_next_one_goes_on(make_lab: Make, muxer: WindowsMuxer) -> None:
    lab = make_lab()
    (first,) = lab.add_case(Case.TRANSFER)
    muxer.write_config(lab)
    with muxer.running() as process:
        process.wait_for("fetch done")
        process.kill()
    wait_until(lambda: not programs_in(windows_path(muxer.temp)), RUN_SECONDS, "the end of its programs", muxer.log)
    (second,) = lab.add_case(Case.GAPS)
    with muxer.running() as process:
        while not {(one.id, "screenRecording") for one in (first, second)} <= set(lab.store.label_posts):
            process.wait_for("recording muxed", len(muxer.log_lines("recording muxed")) + 1)
        process.send_control("break")
        assert process.wait() == 0, process.output
    assert not list(muxer.temp.glob("muxer-job-*"))


def test_the_log_is_rotated_and_goes_on_while_another_program_has_it_open(make_lab: Make, muxer: WindowsMuxer) -> None:
    lab = make_lab()
    lab.add_case(Case.PLAIN)
    muxer.write_config(lab, **{"logfile.max_bytes": "4000", "logfile.backup_count": "3"})
    rotated = muxer.log.with_name(f"{muxer.log.name}.1")
    with muxer.running() as process:
        process.wait_until(rotated.exists, "the rotation")
        with held_files(muxer.machine, rotated):
            process.wait_until(lambda: "cannot be rotated" in process.output, "a rotation that fails")
            size = muxer.log.stat().st_size
            process.wait_until(lambda: muxer.log.stat().st_size > size, "further lines")
        earlier = rotated.stat().st_ino
        process.wait_until(lambda: rotated.stat().st_ino != earlier, "the next rotation")
        process.send_control("c")
        assert process.wait() == 0, process.output


def test_a_temp_dir_with_a_long_path_is_refused_at_the_start(make_lab: Make, muxer: WindowsMuxer) -> None:
    lab = make_lab()
    (folder := muxer.folder / ("x" * MAX_WINDOWS_TEMP_LENGTH)).mkdir()
    muxer.write_config(lab)
    text = muxer.config.read_text(encoding="utf-8").replace(windows_path(muxer.temp), windows_path(folder))
    muxer.config.write_text(text, encoding="utf-8")
    done = muxer.run_muxer()
    assert done.code == EXIT_CONFIG and f"must have at most {MAX_WINDOWS_TEMP_LENGTH}" in done.err
