"""The main job, end to end: the real process with wsgidav and with Apache as set up in the guide; results are decoded."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.build import AddedCall
from lab.cases import ALICE, Case
from lab.errors import LabError
from lab.lab import Lab
from lab.switches import Switches
from tests.support import av_sync
from tests.support.apache import GENESYS_FOLDER, run_apache
from tests.support.daemon import MuxerProcess, log_lines, wait_until
from tests.support.metadata import entry_problems

pytestmark = pytest.mark.machine_ffmpeg

TIMEOUT_SECONDS = 120


@dataclass
class FinishedLab:
    """A lab whose recordings have all been processed."""

    lab: Lab
    calls: dict[str, AddedCall]
    log: Path
    exit_code: int
    folder: Path

    def muxed_entries(self, name: str) -> list[dict[str, Any]]:
        """Return the entries of the muxed files of a call, in the order of their agents."""
        media = (self.lab.store.get_screen(self.calls[name].id) or {"mediaFiles": []})["mediaFiles"]
        found = [one for one in media if "muxed_mediaIds" in one["parameters"]]
        return sorted(found, key=lambda one: one["parameters"]["contact"]["userName"])

    def clear_path(self, entry: dict[str, Any]) -> Path:
        """Return the path of the decrypted muxed file."""
        stored = self.lab.site.media.folder / "screens" / entry["mediaId"]
        if "pkcs7" not in entry:
            return stored
        path = self.folder / f"{entry['mediaId']}.clear.mp4"
        self.lab.decrypt_file(entry["pkcs7"], stored, path)
        return path


@pytest.fixture(scope="module", params=["wsgidav, encrypted", "apache, clear"])
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, kept_lab: type[Lab]
) -> Iterator[FinishedLab]:
    """Run the muxer until every call of the lab is done, the late screen included."""
    folder = tmp_path_factory.mktemp("main")
    with ExitStack() as stack:
        on_apache = request.param.startswith("apache")
        dav = stack.enter_context(run_apache(GENESYS_FOLDER)) if on_apache else None
        switches = Switches(encryption_group="empty" if on_apache else "certificates")
        lab = stack.enter_context(kept_lab(folder / "lab", switches, dav=dav))
        cases = [case for case in Case if case is not Case.ENCRYPTED or not on_apache]
        calls = {call.plan.name: call for call in lab.add_cases(cases)}
        config = folder / "muxer.cfg"
        config.write_text(lab.config_text(**{"logfile.format": "json", "processing.min_poll_interval": "0.01"}))
        log = folder / "lab" / "log" / "recording-muxer-single.log"
        with MuxerProcess(config) as muxer:
            first = {call.id for name, call in calls.items() if call.plan.screens and name not in ("muxed", "late")}
            wait_until(
                lambda: {one for one, _ in lab.store.label_posts} >= first, TIMEOUT_SECONDS, "labels of the first calls", log
            )
            polls = sum(line["message"] == "poll done" for line in log_lines(log))
            wait_until(
                lambda: sum(line["message"] == "poll done" for line in log_lines(log)) > polls,
                TIMEOUT_SECONDS,
                "a poll",
                log,
            )
            assert lab.deliver_late() == 1
            late = calls["late"].id
            wait_until(
                lambda: late in {one for one, _ in lab.store.label_posts}, TIMEOUT_SECONDS, "the label of the late call", log
            )
            code = muxer.stop()
        yield FinishedLab(lab, calls, log, code, folder)


def expected_screens(call: AddedCall, agent: str) -> list[av_sync.ExpectedScreen]:
    """Return the spans in which the screens of an agent must be shown, from the plan of the call."""
    parts = [part for part in call.plan.screens if part.agent.username == agent]
    length = call.plan.seconds
    return [
        av_sync.ExpectedScreen(max(part.offset, 0), min(part.offset + part.seconds, length), part.agent.number)
        for part in parts
    ]


def agent_names(call: AddedCall) -> list[str]:
    return sorted({part.agent.username for part in call.plan.screens})


WITH_SCREEN = ["plain", "gaps", "transfer", "encrypted", "late", "before"]


def test_process_stops_with_code_0(done: FinishedLab) -> None:
    assert done.exit_code == 0


@pytest.mark.parametrize("name", WITH_SCREEN)
def test_video_and_audio_agree_at_every_second(done: FinishedLab, name: str) -> None:
    if name not in done.calls:
        assert name == "encrypted" and done.lab.switches.encryption_group == "empty"
        return
    call = done.calls[name]
    entries = done.muxed_entries(name)
    assert [entry["parameters"]["contact"]["userName"] for entry in entries] == agent_names(call)
    for entry, agent in zip(entries, agent_names(call), strict=True):
        assert (
            av_sync.file_problems(done.clear_path(entry), call.start, call.plan.seconds, expected_screens(call, agent)) == []
        )


@pytest.mark.parametrize("name", WITH_SCREEN)
def test_metadata_are_correct(done: FinishedLab, name: str) -> None:
    if name not in done.calls:
        assert name == "encrypted" and done.lab.switches.encryption_group == "empty"
        return
    call = done.calls[name]
    certificates = done.lab.encryption_recipients if done.lab.switches.encryption_group == "certificates" else []
    for entry, agent in zip(done.muxed_entries(name), agent_names(call), strict=True):
        screens = [screen.media_id for screen in call.screens if screen.part.agent.username == agent]
        stored = done.lab.site.media.folder / "screens" / entry["mediaId"]
        assert entry_problems(entry, call, agent, screens, stored, [one.alias for one in certificates]) == []


def test_each_label_is_set_once(done: FinishedLab) -> None:
    labelled = [one for one, name in done.lab.store.label_posts if name == "screenRecording"]
    expected = {call.id for name, call in done.calls.items() if call.plan.screens and name != "muxed"}
    assert sorted(labelled) == sorted(expected)


def test_calls_with_nothing_to_do_are_unchanged(done: FinishedLab) -> None:
    nothing = {done.calls["no-screen"].id, done.calls["muxed"].id}
    assert not [post for post in done.lab.store.screen_posts if post["id"] in nothing]
    assert len(done.muxed_entries("muxed")) == 1


def test_each_entry_is_posted_once_and_separately(done: FinishedLab) -> None:
    posted = [media["mediaId"] for post in done.lab.store.screen_posts for media in post["mediaFiles"]]
    expected = sum(len(agent_names(call)) for name, call in done.calls.items() if call.plan.screens and name != "muxed")
    assert len(posted) == len(set(posted)) == expected


def test_no_leftover_files_in_storage_or_temporary_folder(done: FinishedLab) -> None:
    stored = sorted(path.name for path in (done.lab.site.media.folder / "screens").iterdir())
    assert not [name for name in stored if name.startswith("part-")]
    known = {
        media["mediaId"]
        for call in done.calls.values()
        for media in (done.lab.store.get_screen(call.id) or {"mediaFiles": []})["mediaFiles"]
    }
    assert set(stored) == known
    assert not list((done.folder / "lab" / "temp").glob("muxer-job-*"))
    assert not list((done.folder / "lab" / "temp" / "publishing").iterdir())


def test_log_reports_each_finished_recording_once_and_no_secret(done: FinishedLab) -> None:
    finished = [line for line in log_lines(done.log) if line["message"] == "recording muxed"]
    assert len({line["file"] for line in finished}) == len(finished)
    needed = {"recording", "agent", "sources", "padding", "length", "method", "seconds", "fetch_seconds", "mux_seconds"}
    assert all(needed <= line.keys() for line in finished)
    assert all(line.get("recording") for line in log_lines(done.log) if line["message"] == "fetched")
    text = done.log.read_text()
    for account in (done.lab.site.rws_account, done.lab.site.rcs_account, done.lab.site.dav_account):
        assert account.password not in text
    assert not [line for line in log_lines(done.log) if line["level"] in ("error", "critical")]


def test_shifted_screen_is_detected(done: FinishedLab, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("streams", "read_frames", "read_pips"):  # of the one file
        monkeypatch.setattr(av_sync, name, functools.cache(getattr(av_sync, name)))
    call = done.calls["plain"]
    path = done.clear_path(done.muxed_entries("plain")[0])
    late = call.start + timedelta(seconds=1)
    found = av_sync.file_problems(path, late, call.plan.seconds, expected_screens(call, ALICE.username))
    assert any("off" in one for one in found) and any("pip" in one for one in found)
    assert av_sync.file_problems(path, call.start, call.plan.seconds, [av_sync.ExpectedScreen(0, 10, ALICE.number)])
    assert av_sync.file_problems(path, call.start, call.plan.seconds + 1, expected_screens(call, ALICE.username))


def test_wrong_key_is_detected(done: FinishedLab, tmp_path: Path) -> None:
    entry = done.muxed_entries("plain")[0]
    if "pkcs7" not in entry:
        assert done.lab.switches.encryption_group == "empty"
        return
    other = Lab(tmp_path / "other")
    with pytest.raises(LabError):
        other.decrypt_file(entry["pkcs7"], done.lab.site.media.folder / "screens" / entry["mediaId"], tmp_path / "clear.mp4")


@pytest.mark.parametrize("missing", ["parameters", "size", "mediaId", "startTime", "stopTime", "duration", "type"])
def test_missing_entry_is_detected(done: FinishedLab, missing: str) -> None:
    call, entry = done.calls["plain"], dict(done.muxed_entries("plain")[0])
    stored = done.lab.site.media.folder / "screens" / entry["mediaId"]
    certificates = done.lab.encryption_recipients if "pkcs7" in entry else []
    del entry[missing]
    screens = [screen.media_id for screen in call.screens]
    assert entry_problems(entry, call, ALICE.username, screens, stored, [one.alias for one in certificates])


def test_every_recipient_can_decrypt(done: FinishedLab, tmp_path: Path) -> None:
    entry = done.muxed_entries("plain")[0]
    stored = done.lab.site.media.folder / "screens" / entry["mediaId"]
    clear = []
    for number in range(len(done.lab.encryption_recipients) if "pkcs7" in entry else 0):
        path = tmp_path / f"clear-{number}.mp4"
        done.lab.decrypt_file(entry["pkcs7"], stored, path, recipient=number)
        clear.append(path.read_bytes())
    assert len(set(clear)) == (1 if "pkcs7" in entry else 0)
