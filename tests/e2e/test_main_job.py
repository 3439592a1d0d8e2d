"""The main job, end to end: the real process with wsgidav and with an Apache as the guide sets it up, results decoded."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support import sync
from tests.support.apache import GENESYS_FOLDER, apache
from tests.support.daemon import Muxer, log_lines, wait_until
from tests.support.metadata import entry_problems

from muxer.lab.build import AddedCall
from muxer.lab.cases import ALICE, Case
from muxer.lab.errors import LabError
from muxer.lab.lab import Lab
from muxer.lab.switches import Switches

SECONDS = 120


@dataclass
class Done:
    """A lab whose recordings have all been worked on."""

    lab: Lab
    calls: dict[str, AddedCall]
    log: Path
    exit_code: int
    folder: Path

    def muxed(self, name: str) -> list[dict[str, Any]]:
        """Return the entries of the muxed files of a call, in the order of their agents."""
        media = (self.lab.store.screen(self.calls[name].id) or {"mediaFiles": []})["mediaFiles"]
        found = [one for one in media if "muxed_mediaIds" in one["parameters"]]
        return sorted(found, key=lambda one: one["parameters"]["contact"]["userName"])

    def clear(self, entry: dict[str, Any]) -> Path:
        """Return the path of a muxed file in clear."""
        stored = self.lab.site.media.folder / "screens" / entry["mediaId"]
        if "pkcs7" not in entry:
            return stored
        path = self.folder / f"{entry['mediaId']}.clear.mp4"
        self.lab.decrypt(entry["pkcs7"], stored, path)
        return path


@pytest.fixture(scope="module", params=["wsgidav, encrypted", "apache, clear"])
def done(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, kept_lab: type[Lab]
) -> Iterator[Done]:
    """Run the muxer until every call of the lab is done, the late screen included."""
    folder = tmp_path_factory.mktemp("main")
    with ExitStack() as stack:
        on_apache = request.param.startswith("apache")
        dav = stack.enter_context(apache(GENESYS_FOLDER)) if on_apache else None
        switches = Switches(encryption_group="empty" if on_apache else "certificates")
        lab = stack.enter_context(kept_lab(folder / "lab", switches, dav=dav))
        cases = [case for case in Case if case is not Case.ENCRYPTED or not on_apache]
        calls = {call.plan.name: call for call in lab.add_cases(cases)}
        config = folder / "muxer.cfg"
        config.write_text(lab.config_text(**{"logfile.format": "json", "processing.min_poll_interval": "0.01"}))
        log = folder / "lab" / "log" / "recording-muxer-single.log"
        with Muxer(config) as muxer:
            first = {call.id for name, call in calls.items() if call.plan.screens and name not in ("muxed", "late")}
            wait_until(lambda: {one for one, _ in lab.store.label_posts} >= first, SECONDS, "labels of the first calls", log)
            polls = sum(line["message"] == "poll done" for line in log_lines(log))
            wait_until(
                lambda: sum(line["message"] == "poll done" for line in log_lines(log)) > polls, SECONDS, "a poll", log
            )
            assert lab.deliver_late() == 1
            late = calls["late"].id
            wait_until(lambda: late in {one for one, _ in lab.store.label_posts}, SECONDS, "the label of the late call", log)
            code = muxer.stop()
        yield Done(lab, calls, log, code, folder)


def seen(call: AddedCall, agent: str) -> list[sync.Shown]:
    """Return where the screens of an agent must be seen, from the plan of the call."""
    parts = [part for part in call.plan.screens if part.agent.username == agent]
    length = call.plan.seconds
    return [sync.Shown(max(part.offset, 0), min(part.offset + part.seconds, length), part.agent.number) for part in parts]


def agents(call: AddedCall) -> list[str]:
    return sorted({part.agent.username for part in call.plan.screens})


WITH_SCREEN = ["plain", "gaps", "transfer", "encrypted", "late", "before"]


def test_the_process_stops_well(done: Done) -> None:
    assert done.exit_code == 0


@pytest.mark.parametrize("name", WITH_SCREEN)
def test_picture_and_sound_agree_at_every_second(done: Done, name: str) -> None:
    if name not in done.calls:
        assert name == "encrypted" and done.lab.switches.encryption_group == "empty"
        return
    call = done.calls[name]
    entries = done.muxed(name)
    assert [one["parameters"]["contact"]["userName"] for one in entries] == agents(call)
    for entry, agent in zip(entries, agents(call), strict=True):
        assert sync.problems(done.clear(entry), call.start, call.plan.seconds, seen(call, agent)) == []


@pytest.mark.parametrize("name", WITH_SCREEN)
def test_the_metadata_are_right(done: Done, name: str) -> None:
    if name not in done.calls:
        assert name == "encrypted" and done.lab.switches.encryption_group == "empty"
        return
    call = done.calls[name]
    certificates = done.lab.certificates if done.lab.switches.encryption_group == "certificates" else []
    for entry, agent in zip(done.muxed(name), agents(call), strict=True):
        screens = [one.media_id for one in call.screens if one.part.agent.username == agent]
        stored = done.lab.site.media.folder / "screens" / entry["mediaId"]
        assert entry_problems(entry, call, agent, screens, stored, [one.alias for one in certificates]) == []


def test_every_label_is_set_once(done: Done) -> None:
    labelled = [one for one, name in done.lab.store.label_posts if name == "screenRecording"]
    expected = {call.id for name, call in done.calls.items() if call.plan.screens and name != "muxed"}
    assert sorted(labelled) == sorted(expected)


def test_calls_with_nothing_to_do_are_left_alone(done: Done) -> None:
    nothing = {done.calls["no-screen"].id, done.calls["muxed"].id}
    assert not [post for post in done.lab.store.posts if post["id"] in nothing]
    assert len(done.muxed("muxed")) == 1


def test_every_entry_is_posted_once_and_alone(done: Done) -> None:
    posted = [media["mediaId"] for post in done.lab.store.posts for media in post["mediaFiles"]]
    wanted = sum(len(agents(call)) for name, call in done.calls.items() if call.plan.screens and name != "muxed")
    assert len(posted) == len(set(posted)) == wanted


def test_nothing_is_left_in_the_storage_or_the_temporary_folder(done: Done) -> None:
    stored = sorted(path.name for path in (done.lab.site.media.folder / "screens").iterdir())
    assert not [name for name in stored if name.startswith("part-")]
    known = {
        media["mediaId"]
        for call in done.calls.values()
        for media in (done.lab.store.screen(call.id) or {"mediaFiles": []})["mediaFiles"]
    }
    assert set(stored) == known
    assert not list((done.folder / "lab" / "temp").glob("muxer-job-*"))
    assert not list((done.folder / "lab" / "temp" / "publishing").iterdir())


def test_the_log_tells_each_finished_recording_once_and_no_secret(done: Done) -> None:
    finished = [line for line in log_lines(done.log) if line["message"] == "recording muxed"]
    assert len({line["file"] for line in finished}) == len(finished)
    needed = {"recording", "agent", "sources", "padding", "length", "method", "seconds", "fetch_seconds", "mux_seconds"}
    assert all(needed <= line.keys() for line in finished)
    assert all(line.get("recording") for line in log_lines(done.log) if line["message"] == "fetched")
    text = done.log.read_text()
    for account in (done.lab.site.rws_account, done.lab.site.rcs_account, done.lab.site.dav_account):
        assert account.password not in text
    assert not [line for line in log_lines(done.log) if line["level"] in ("error", "critical")]


def test_a_shifted_screen_is_caught(done: Done, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("streams", "read_pictures", "read_pips"):  # of the one file
        monkeypatch.setattr(sync, name, functools.cache(getattr(sync, name)))
    call = done.calls["plain"]
    path = done.clear(done.muxed("plain")[0])
    late = call.start + timedelta(seconds=1)
    found = sync.problems(path, late, call.plan.seconds, seen(call, ALICE.username))
    assert any("off" in one for one in found) and any("pip" in one for one in found)
    assert sync.problems(path, call.start, call.plan.seconds, [sync.Shown(0, 10, ALICE.number)])
    assert sync.problems(path, call.start, call.plan.seconds + 1, seen(call, ALICE.username))


def test_a_wrong_key_is_caught(done: Done, tmp_path: Path) -> None:
    entry = done.muxed("plain")[0]
    if "pkcs7" not in entry:
        assert done.lab.switches.encryption_group == "empty"
        return
    other = Lab(tmp_path / "other")
    with pytest.raises(LabError):
        other.decrypt(entry["pkcs7"], done.lab.site.media.folder / "screens" / entry["mediaId"], tmp_path / "clear.mp4")


@pytest.mark.parametrize("missing", ["parameters", "size", "mediaId", "startTime", "stopTime", "duration", "type"])
def test_a_missing_entry_is_caught(done: Done, missing: str) -> None:
    call, entry = done.calls["plain"], dict(done.muxed("plain")[0])
    stored = done.lab.site.media.folder / "screens" / entry["mediaId"]
    certificates = done.lab.certificates if "pkcs7" in entry else []
    del entry[missing]
    screens = [one.media_id for one in call.screens]
    assert entry_problems(entry, call, ALICE.username, screens, stored, [one.alias for one in certificates])


def test_every_recipient_can_decrypt(done: Done, tmp_path: Path) -> None:
    entry = done.muxed("plain")[0]
    stored = done.lab.site.media.folder / "screens" / entry["mediaId"]
    clear = []
    for number in range(len(done.lab.certificates) if "pkcs7" in entry else 0):
        path = tmp_path / f"clear-{number}.mp4"
        done.lab.decrypt(entry["pkcs7"], stored, path, recipient=number)
        clear.append(path.read_bytes())
    assert len(set(clear)) == (1 if "pkcs7" in entry else 0)
