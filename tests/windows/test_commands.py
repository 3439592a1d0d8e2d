"""The commands of an administrator on Windows, with redirected output."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.commands import COMMANDS
from muxer.system.exit_codes import EXIT_OK, EXIT_SOME_FAILED
from tests.support.daemon import wait_until
from tests.windows.machine import windows_path
from tests.windows.muxer import RUN_SECONDS, WindowsMuxer

pytestmark = pytest.mark.long

RECORDING = "Gespräch 日本"


def test_every_command_writes_its_result_in_text_and_in_json(make_lab: Callable[..., Lab], muxer: WindowsMuxer) -> None:
    lab = make_lab(encryption_group="empty")
    (good,), (call,) = lab.add_case(Case.GAPS), lab.add_case(Case.PLAIN)
    recording, screen = lab.store.get_call(call.id), lab.store.get_screen(call.id)
    assert recording is not None and screen is not None
    (lab.site.media.folder / "screens" / call.screens[0].media_id).write_bytes(b"")
    recording["mediaFiles"][0]["mediaId"], screen["mediaFiles"][0]["mediaId"] = "other.mp3", "other.mp4"
    lab.store.add_screen_media(RECORDING, lab.region, screen["mediaFiles"][0])
    lab.store.add_call({**recording, "id": RECORDING})
    muxer.write_config(lab, **{"advanced.incomplete_after": "0", "processing.min_poll_interval": "10"})
    with muxer.running() as process:
        process.wait_for("recording muxed")
        failed = lambda: json.loads(muxer.run_command("failed", "--json").out)  # noqa: E731
        wait_until(lambda: RECORDING in {row["recording"] for row in failed()}, RUN_SECONDS, "the failure", muxer.log)
        assert r"\u65e5\u672c" in muxer.run_command("failed").out
        status = muxer.run_command("status", "--json")
        assert json.loads(status.out)["last_hour"]["muxed"] == 1
        assert "1 muxed" in muxer.run_command("status").out
        assert muxer.run_command("retry", RECORDING).out.startswith("1 requeued")
        process.send_control("c")
        assert process.wait() == EXIT_OK
    check = json.loads(muxer.run_command("check", "--json").out)
    assert "failed" not in check["counts"], check
    assert "RWS address" in muxer.run_command("check").out
    settings = json.loads(muxer.run_command("config", "--json").out)["settings"]
    assert windows_path(muxer.temp) in {one["value"] for one in settings}
    assert "[processing]\ttemp_dir\tZ:\\" in muxer.run_command("config").out
    assert "muxed file 1 of 1" in muxer.run_command("plan", good.id).out
    assert json.loads(muxer.run_command("plan", good.id, "--json").out)
    (output := muxer.folder / "Ausgabe").mkdir()
    muxed = muxer.run_command("mux", good.id, f"--output={windows_path(output / 'Gespräch.mp4')}")
    assert muxed.code == EXIT_OK and (output / "Gespräch.mp4").stat().st_size > 0, muxed
    assert muxer.run_command("support-bundle", f"--output={windows_path(output)}").code == EXIT_OK
    (bundle,) = output.glob("*.tar.gz")
    with tarfile.open(bundle) as archive:
        assert len(archive.getnames()) > 5
    audit_all(lab, muxer, good.id)


def audit_all(lab: Lab, muxer: WindowsMuxer, muxed: str) -> None:
    """Audit and compare every call, before and after the muxed file is lost; the others are not due yet."""
    page, options = muxer.folder / "Prüfung.html", ("--query=startTime=0", "--deep")
    whole = muxer.run_command("audit", *options, "--json", f"--html={windows_path(page)}")
    counts = json.loads(whole.out)["counts"]
    assert whole.code == EXIT_OK and (counts["deep"], counts["pending"]) == (1, 2), whole
    assert "Recording Muxer" in page.read_text(encoding="utf-8")
    for path in (lab.site.media.folder / "screens").glob("*_muxed*"):
        path.unlink()
    state = f"--state={windows_path(muxer.folder / 'Zustand.sqlite3')}"
    [finding] = json.loads((found := muxer.run_command("audit", *options, state, "--json")).out)["list"]
    assert (found.code, finding["kind"], finding["recording"]) == (EXIT_SOME_FAILED, "file_missing", muxed)
    again = muxer.run_command("audit", *options, state)
    assert again.code == EXIT_SOME_FAILED and muxed in again.out and "is shown again from" in again.out, again


def test_every_help_text_can_be_redirected(muxer: WindowsMuxer) -> None:
    for name in COMMANDS:
        shown = muxer.run_python("-m", "muxer", name, "--help", PYTHONPATH=windows_path(muxer.folder))
        assert shown.code == EXIT_OK and "usage: " in shown.out, shown
