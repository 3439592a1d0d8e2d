"""Command `audit`: each thing that can be wrong is made on purpose and found, nothing else is, and repairs correct it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.build import AddedCall, build_calls
from lab.cases import CallPlan, Case, ScreenPart
from lab.lab import Lab
from muxer.audit.call_rules import Look
from muxer.audit.file_look import FileLook
from muxer.gir.models import MediaFile
from muxer.media.mp4 import read_tracks
from tests.support.calls import TWO_AGENTS, add_short, muxed_entries, screen_file, stored_muxed, write_config
from tests.support.commands import run_in_process, run_subprocess, start_command
from tests.support.daemon import run_muxer, wait_until
from tests.support.disk import KILOBYTE, fill_disk, small_disk
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
AGE = timedelta(days=3)
EVERYTHING = {"advanced__call_recording_query_string": "startTime=0"}
WEEK_SECONDS = 7 * 86_400
with_five_calls = pytest.mark.parametrize("calls", [5], indirect=True)


@pytest.fixture
def lab(make_lab: Make) -> Lab:
    return make_lab()


@pytest.fixture
def calls(lab: Lab, request: pytest.FixtureRequest) -> list[AddedCall]:
    """Return two calls, or as many as the test asks for."""
    return add_short(lab, range(getattr(request, "param", 2)), AGE)


@pytest.fixture
def config(lab: Lab, calls: list[AddedCall]) -> Path:
    """The configuration of a lab whose calls are all muxed."""
    done = run_muxer(write_config(lab, "migration", **EVERYTHING))
    assert done.process.returncode == 0, done.err
    return write_config(lab)


def run_audit(config: Path, *arguments: str, code: int | None = None) -> dict[str, Any]:
    start = (datetime.now(UTC) - AGE - timedelta(hours=1)).isoformat()
    span = () if "--query" in arguments else ("--from", start)
    status, out, err = run_subprocess(config, "audit", "--json", "--rate", "1000", *span, *arguments)
    assert out, err
    report = json.loads(out)
    expected = code if code is not None else 4 if report["open_findings"] else 0
    assert status == expected, (status, out, err)
    return dict(report)


def kinds_of(report: dict[str, Any]) -> set[tuple[str, str]]:
    """Return kind and recording of each finding."""
    return {(one["kind"], one["recording"]) for one in report["list"]}


def muxed_path(lab: Lab, media_id: str) -> Path:
    return lab.site.media.folder / "screens" / media_id


def muxed_url(lab: Lab, media_id: str) -> str:
    return f"{lab.dav_url}/screens/{media_id}"


def change_entry(lab: Lab, call: AddedCall, **values: Any) -> dict[str, Any]:
    """Change the entry of the muxed file of a call; None removes a value. Returns the entry."""
    [entry] = muxed_entries(lab, call.id)
    changed = {name: value for name, value in (entry | values).items() if value is not None}
    lab.store.delete_screen_media(call.id, entry["mediaId"])
    lab.store.add_screen_media(call.id, lab.region, changed)
    return changed


def remove_label(lab: Lab, call: AddedCall) -> None:
    recording = lab.store.get_call(call.id)
    assert recording is not None
    lab.store.add_call(recording | {"labels": []})


@with_five_calls
def test_a_complete_site_has_no_findings(lab: Lab, calls: list[AddedCall], config: Path) -> None:
    report = run_audit(config, "--orphans", "--deep", code=0)
    assert report["complete"] is True and report["list"] == []
    assert report["counts"] == {"calls": 5, "with_screens": 5, "files": 5, "pending": 0, "deep": 5}
    assert "nothing is wrong" in report["summary"]


def test_an_audit_that_finds_no_call_is_no_proof(lab: Lab, calls: list[AddedCall]) -> None:
    code, out, err = run_in_process(write_config(lab), "audit", "--from", "2020-01-01", "--to", "2020-02-01")
    assert code == 4 and out.startswith("nothing was proved: no call recording was found"), (code, out, err)


@pytest.mark.parametrize("form", [(), pytest.param(("--json",), marks=pytest.mark.long)])
def test_findings_keep_their_exit_code_when_the_reader_has_left(
    lab: Lab, calls: list[AddedCall], form: tuple[str, ...], tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    process = start_command(write_config(lab), "audit", "--query", "startTime=0", "--html", str(page), *form)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process.stderr as stream:
        err = stream.read()
    assert process.wait(timeout=60) == 4 and not err and "2 findings" in page.read_text(encoding="utf-8"), err


@pytest.mark.long
def test_programs_are_tried_only_for_a_comparison(lab: Lab, calls: list[AddedCall], config: Path, tmp_path: Path) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    without = write_config(lab, "without", processing__ffmpeg=str(broken))
    assert run_audit(without, code=0)["complete"] is True
    for option in (["--deep"], ["--repair", "--yes"]):
        code, out, err = run_subprocess(without, "audit", "--from", "2026-01-01T00:00:00Z", *option)
        assert code == 2 and "[processing] ffmpeg" in err and not out


@with_five_calls
def test_every_kind_of_damage_is_found_and_nothing_else(lab: Lab, config: Path, calls: list[AddedCall]) -> None:
    missing, no_file, short, unlabelled, sourceless = calls
    [entry] = muxed_entries(lab, missing.id)
    lab.store.delete_screen_media(missing.id, entry["mediaId"])
    muxed_path(lab, muxed_entries(lab, no_file.id)[0]["mediaId"]).unlink()
    path = muxed_path(lab, muxed_entries(lab, short.id)[0]["mediaId"])
    path.write_bytes(path.read_bytes()[:-16])
    remove_label(lab, unlabelled)
    screen_file(lab, sourceless).unlink()
    report = run_audit(config, "--orphans")
    assert [one["file"] for one in report["list"] if one["kind"] == "orphan"] == [muxed_url(lab, entry["mediaId"])]
    assert kinds_of(report) == {
        ("missing", missing.id),
        ("orphan", missing.id),
        ("file_missing", no_file.id),
        ("wrong_length", short.id),
        ("label_missing", unlabelled.id),
        ("source_missing", sourceless.id),
    }
    assert all(one["detail"] and one["what_to_do"] for one in report["list"])
    # Without --orphans, the files in the storages are not listed.
    assert "orphan" not in run_audit(config)["findings"]


@with_five_calls
def test_repair_corrects_what_it_can_and_a_second_audit_is_clean(lab: Lab, config: Path, calls: list[AddedCall]) -> None:
    missing, no_file, short, unlabelled, clear = calls
    [entry] = muxed_entries(lab, missing.id)
    lab.store.delete_screen_media(missing.id, entry["mediaId"])
    muxed_path(lab, entry["mediaId"]).unlink()
    muxed_path(lab, muxed_entries(lab, no_file.id)[0]["mediaId"]).unlink()
    path = muxed_path(lab, muxed_entries(lab, short.id)[0]["mediaId"])
    path.write_bytes(path.read_bytes()[:-16])
    remove_label(lab, unlabelled)
    change_entry(lab, clear, pkcs7=None, certAlias=None)
    before = {path.name: path.read_bytes() for path in _sources(lab)}
    report = run_audit(config, "--repair", "--yes", "--encrypted-since", "2000-01-01T00:00:00Z", code=0)
    assert {one["repair"] for one in report["list"]} == {"repaired"}
    assert Counter(one["kind"] for one in report["list"]) == Counter(
        ("missing", "file_missing", "wrong_length", "label_missing", "not_encrypted")
    )
    again = run_audit(config, "--orphans", "--deep", "--encrypted-since", "2000-01-01T00:00:00Z", code=0)
    assert again["counts"]["files"] == again["counts"]["deep"] == 5
    assert {path.name: path.read_bytes() for path in _sources(lab)} == before


def _sources(lab: Lab) -> list[Path]:
    folder = lab.site.media.folder
    return sorted(path for name in ("calls", "screens") for path in (folder / name).iterdir() if "_muxed" not in path.name)


def test_files_published_twice_and_superseded_ones_are_reduced_to_one(
    lab: Lab, config: Path, calls: list[AddedCall]
) -> None:
    twice = calls[0]
    [entry] = muxed_entries(lab, twice.id)
    second = entry["mediaId"].replace("_muxed", "-2_muxed")
    muxed_path(lab, second).write_bytes(muxed_path(lab, entry["mediaId"]).read_bytes())
    descriptor = entry["originalMediaDescriptor"]
    other = descriptor | {"path": descriptor["path"].replace(entry["mediaId"], second)}
    lab.store.add_screen_media(twice.id, lab.region, entry | {"mediaId": second, "originalMediaDescriptor": other})
    report = run_audit(config)
    assert kinds_of(report) == {("published_twice", twice.id)}
    run_audit(config, "--repair", "--yes", code=0)
    assert [one["mediaId"] for one in muxed_entries(lab, twice.id)] == [entry["mediaId"]]
    assert second not in stored_muxed(lab) and entry["mediaId"] in stored_muxed(lab)


def test_a_flipped_byte_and_a_file_of_other_sources_are_found_by_comparison(
    make_lab: Make,
) -> None:
    clear_site = make_lab(encryption_group="empty")
    added = add_short(clear_site, range(3), AGE)
    done = run_muxer(write_config(clear_site, "migration", **EVERYTHING))
    assert done.process.returncode == 0, done.err
    flipped, exchanged, _ = added
    path = muxed_path(clear_site, muxed_entries(clear_site, flipped.id)[0]["mediaId"])
    flip_byte(path, path.read_bytes().index(b"mdat") + 4)
    source = muxed_path(clear_site, muxed_entries(clear_site, added[2].id)[0]["mediaId"])
    other = muxed_path(clear_site, muxed_entries(clear_site, exchanged.id)[0]["mediaId"])
    other.write_bytes(source.read_bytes())
    change_entry(clear_site, exchanged, size=str(other.stat().st_size))
    config = write_config(clear_site)
    assert run_audit(config, code=0)["list"] == []
    report = run_audit(config, "--deep")
    assert kinds_of(report) == {("damaged", flipped.id), ("damaged", exchanged.id)}
    run_audit(config, "--deep", "--repair", "--yes", code=0)
    assert run_audit(config, "--deep", "--orphans", code=0)["counts"]["deep"] == 3


def flip_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 0x20
    path.write_bytes(content)


class TestDamageOfASource:
    """A file that was muxed from a whole source may be the only good copy: no repair replaces it."""

    @pytest.fixture
    def clear_lab(self, make_lab: Make) -> Lab:
        return make_lab(encryption_group="empty")

    @pytest.fixture
    def call(self, clear_lab: Lab) -> AddedCall:
        added = add_short(clear_lab, range(3), AGE)
        done = run_muxer(write_config(clear_lab, "migration", **EVERYTHING))
        assert done.process.returncode == 0, done.err
        return added[0]

    @staticmethod
    def audit_and_repair(lab: Lab, call: AddedCall) -> dict[str, Any]:
        """Return the only finding of an audit with a repair, which leaves the muxed file as it is."""
        path = muxed_path(lab, muxed_entries(lab, call.id)[0]["mediaId"])
        before = path.read_bytes()
        [finding] = run_audit(write_config(lab), "--deep", "--repair", "--yes", code=4)["list"]
        assert stored_muxed(lab).count(path.name) == 1 and path.read_bytes() == before
        assert finding["recording"] == call.id and not finding["repair"]
        return dict(finding)

    @pytest.mark.long
    def test_a_screen_file_that_cannot_be_decoded(self, clear_lab: Lab, call: AddedCall) -> None:
        path = screen_file(clear_lab, call)
        track = read_tracks(path)[0]
        flip_byte(path, track.offsets[len(track.offsets) // 2])
        finding = self.audit_and_repair(clear_lab, call)
        assert (finding["kind"], finding["file"]) == ("source_damaged", path.name), finding
        assert len(finding["detail"]) < 300 and "0x" not in finding["detail"]

    def test_a_repair_decodes_the_sources_first(self, clear_lab: Lab, call: AddedCall, tmp_path: Path) -> None:
        path, source = muxed_path(clear_lab, muxed_entries(clear_lab, call.id)[0]["mediaId"]), screen_file(clear_lab, call)
        flip_byte(path, path.read_bytes().index(b"mdat") + 4)
        arguments = ("--deep", "--query", "startTime=0", "--state", str(tmp_path / "state"))
        config = write_config(clear_lab)
        assert kinds_of(run_audit(config, *arguments, code=4)) == {("damaged", call.id)}
        flip_byte(source, read_tracks(source)[0].offsets[5])
        [finding] = run_audit(config, *arguments, "--repair", "--yes", code=4)["list"]
        assert "a source is damaged" in finding["repair"] and source.name in finding["repair"]
        assert path.exists()

    @pytest.mark.long
    def test_an_audio_file_that_cannot_be_decoded(self, clear_lab: Lab, call: AddedCall) -> None:
        path = clear_lab.site.media.folder / "calls" / call.audio_id
        content = bytearray(path.read_bytes())
        part = slice(len(content) // 4, 3 * len(content) // 4)
        content[part] = bytes(byte ^ 0xFF for byte in content[part])
        path.write_bytes(content)
        finding = self.audit_and_repair(clear_lab, call)
        assert (finding["kind"], finding["file"]) == ("source_damaged", call.audio_id), finding

    @pytest.mark.parametrize("in_source", spread_variants([False, True], 2))
    def test_what_is_not_shown_to_be_wrong_is_kept(self, clear_lab: Lab, call: AddedCall, in_source: bool) -> None:
        """Filler bytes of MP3 frames can have any value."""
        stored = muxed_path(clear_lab, muxed_entries(clear_lab, call.id)[0]["mediaId"])
        path = clear_lab.site.media.folder / "calls" / call.audio_id if in_source else stored
        flip_byte(path, path.stat().st_size - 200)
        finding = self.audit_and_repair(clear_lab, call)
        assert (finding["kind"], finding["file"]) == ("unchecked", stored.name), finding
        assert "audio samples have other bytes" in finding["detail"] and "not muxed again" in finding["detail"]

    @pytest.mark.parametrize("length", spread_variants([0.5, 0], 2))
    def test_a_source_that_is_shorter_than_its_metadata_say(self, clear_lab: Lab, call: AddedCall, length: float) -> None:
        path = screen_file(clear_lab, call)
        whole = path.stat().st_size
        path.write_bytes(path.read_bytes()[: int(whole * length)])
        [finding] = run_audit(write_config(clear_lab))["list"]
        assert (finding["kind"], finding["file"], finding["detail"]) == (
            *("source_damaged", path.name),
            f"it is {int(whole * length)} bytes instead of {whole}",
        )
        assert self.audit_and_repair(clear_lab, call) == finding


@pytest.mark.long
@pytest.mark.parametrize("length", [0.5, 0])
def test_an_encrypted_source_that_is_cut_is_not_waited_for(
    lab: Lab, config: Path, calls: list[AddedCall], length: float
) -> None:
    path = screen_file(lab, calls[0])
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * length) // 16 * 16])
    report = run_audit(config, "--deep", code=4)
    assert report["counts"]["deep"] == len(calls) - 1
    [finding] = report["list"]
    assert "waiting" not in finding["detail"], finding


def test_a_ciphertext_that_cannot_be_decrypted_is_repaired(lab: Lab, config: Path, calls: list[AddedCall]) -> None:
    path = muxed_path(lab, muxed_entries(lab, calls[1].id)[0]["mediaId"])
    # In CBC, a byte of the block before the last one changes the length of the padding, which is invalid then.
    flip_byte(path, path.stat().st_size - 17)
    report = run_audit(config, "--deep", "--repair", "--yes", code=0)
    assert kinds_of(report) == {("damaged", calls[1].id)} and report["counts"]["deep"] == len(calls) - 1
    assert run_audit(config, "--deep", code=0)["counts"]["deep"] == len(calls)


def test_a_stored_file_is_never_replaced_from_a_damaged_source(lab: Lab, config: Path, calls: list[AddedCall]) -> None:
    call = calls[1]
    change_entry(lab, call, pkcs7=None, certAlias=None)
    source, before = screen_file(lab, call), sorted(stored_muxed(lab))
    flip_byte(source, source.stat().st_size // 2)
    [finding] = run_audit(config, "--encrypted-since", "2000-01-01T00:00:00Z", "--repair", "--yes", code=4)["list"]
    assert finding["kind"] == "not_encrypted" and "a source is damaged" in finding["repair"], finding
    assert source.name in finding["repair"] and sorted(stored_muxed(lab)) == before


@pytest.mark.parametrize(("status", "times", "kinds"), spread_variants([(404, 100, ["unchecked"]), (500, 4, [])], 2))
def test_what_rcs_fails_for_proves_no_damage(
    lab: Lab, config: Path, calls: list[AddedCall], status: int, times: int, kinds: list[str]
) -> None:
    """RCS fails for a moment; or it does not find a muxed file that the storage has."""
    [entry] = muxed_entries(lab, calls[1].id)
    lab.store.fail_next("rcs", "GET", entry["mediaId"], status, times=times)
    report = run_audit(config, "--deep", code=4 if kinds else 0)
    assert [one["kind"] for one in report["list"]] == kinds, report


@pytest.mark.long
@pytest.mark.parametrize("start", [None, datetime.now(UTC) - AGE], ids=["as python -m lab", "days ago"])
def test_every_case_of_the_lab_is_complete_when_it_is_muxed(lab: Lab, start: datetime | None) -> None:
    lab.add_cases(start=start)
    done = run_muxer(write_config(lab, "migration", **EVERYTHING))
    assert done.process.returncode == 0, done.err
    report = run_audit(write_config(lab), "--orphans", "--deep", code=0)
    assert report["counts"]["files"] == report["counts"]["deep"] == 7


@pytest.mark.long
@pytest.mark.parametrize(("group", "suffix"), [("certificates", ".bin"), ("empty", "")])
def test_the_muxed_call_of_the_lab_is_as_the_muxer_would_have_muxed_it(make_lab: Make, group: str, suffix: str) -> None:
    lab = make_lab(encryption_group=group)
    call = next(one for one in lab.add_case(Case.NOTHING) if one.plan.muxed)
    [entry] = muxed_entries(lab, call.id)
    assert stored_muxed(lab) == [entry["mediaId"]] == [f"{call.id}_lab_muxed.mp4{suffix}"]
    assert run_audit(write_config(lab), "--deep", "--query", "startTime=0", code=0)["counts"]["deep"] == 1


@pytest.mark.long
def test_a_superseded_file_is_found_and_deleted(lab: Lab) -> None:
    plan = CallPlan("late", 8, (ScreenPart(0, 4), ScreenPart(4, 4, late=True)))
    [call], late = build_calls(lab.site, [(Case.LATE, plan, datetime.now(UTC) - AGE, 0)])
    run_muxer(write_config(lab, "first", **EVERYTHING))
    for recording_id, entry in late:
        lab.store.add_screen_media(recording_id, lab.region, entry)
    run_muxer(write_config(lab, "second", advanced__delete_superseded="0", **EVERYTHING))
    entries = {entry["mediaId"]: entry for entry in muxed_entries(lab, call.id)}
    fewest = min(entries, key=lambda name: len(entries[name]["parameters"]["muxed_mediaIds"]))
    assert len(entries) == 2
    config = write_config(lab)
    [finding] = run_audit(config)["list"]
    assert (finding["kind"], finding["file"]) == ("superseded_left", fewest)
    run_audit(config, "--repair", "--yes", code=0)
    assert [entry["mediaId"] for entry in muxed_entries(lab, call.id)] == [name for name in entries if name != fewest]
    assert fewest not in stored_muxed(lab)


@with_five_calls
@pytest.mark.long
def test_a_file_that_is_encrypted_for_a_stranger_is_found(
    lab: Lab, config: Path, calls: list[AddedCall], tmp_path: Path
) -> None:
    key, certificate, envelope = (tmp_path / name for name in ("key", "certificate", "envelope"))
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=stranger")
    subprocess.run(["openssl", *request, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    command: list[str | Path] = ["openssl", "cms", "-encrypt", "-aes-256-cbc", "-outform", "PEM"]
    command += ["-in", certificate, "-out", envelope]
    subprocess.run([*command, certificate], check=True)
    stranger, unreadable, *_ = calls
    change_entry(lab, stranger, pkcs7=envelope.read_text().replace("CMS", "PKCS7"))
    change_entry(lab, unreadable, pkcs7="-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n")
    since = ("--encrypted-since", "2000-01-01T00:00:00Z")
    report = run_audit(config, *since)
    assert kinds_of(report) == {("wrong_recipient", stranger.id), ("wrong_recipient", unreadable.id)}
    known = run_audit(config, *since, "--former-certificates", str(certificate))
    assert kinds_of(known) == {("wrong_recipient", unreadable.id)}
    options = {"audit__encrypted_since": "2000-01-01", "audit__former_certificates": str(certificate)}
    assert kinds_of(run_audit(write_config(lab, **options))) == {("wrong_recipient", unreadable.id)}
    config = write_config(lab)
    run_audit(config, "--repair", "--yes", *since, code=0)
    assert run_audit(config, "--deep", "--orphans", *since, code=0)["counts"]["deep"] == 5


@pytest.mark.long
def test_an_orphan_of_a_recording_that_rws_does_not_know_is_kept(lab: Lab, config: Path) -> None:
    """Its folder may be shared with another contact center."""
    name = f"11111111-2222-3333-4444-555555555555_{'a' * 20}_muxed.mp4"
    muxed_path(lab, name).write_bytes(b"x" * 1000)
    long_ago = time.time() - WEEK_SECONDS - 60
    os.utime(muxed_path(lab, name), (long_ago, long_ago))
    [orphan] = run_audit(config, "--orphans", "--delete-orphans", "--yes")["list"]
    assert (orphan["kind"], orphan["file"]) == ("orphan", muxed_url(lab, name)) and "another contact center" in orphan[
        "repair"
    ]
    assert name in stored_muxed(lab)


@pytest.mark.long
def test_an_outage_of_rws_while_orphans_are_looked_for_ends_the_audit(
    lab: Lab, config: Path, calls: list[AddedCall], tmp_path: Path
) -> None:
    for letter in "abcdef":
        muxed_path(lab, f"{calls[0].id}_{letter * 20}_muxed.mp4").write_bytes(b"x")
    state = ("--state", str(tmp_path / "state"), "--orphans", "--query", "startTime=0")
    requests = f"screen-recordings/{calls[0].id}"
    lab.store.fail_next("rws", "GET", requests, 503, times=1000, headers={"Retry-After": "0"})
    code, out, err = run_subprocess(config, "audit", "--json", "--rate", "1000", *state)
    assert code == 1 and not out and "503" in err, (code, out, err)


@pytest.mark.long
def test_a_full_disk_ends_a_comparison_which_goes_on_later(lab: Lab, calls: list[AddedCall], tmp_path: Path) -> None:
    done = run_muxer(write_config(lab, "migration", **EVERYTHING))
    assert done.process.returncode == 0, done.err
    arguments = ("--deep", "--query", "startTime=0", "--state", str(tmp_path / "state"))
    with small_disk(lab.folder / "temp", "24m") as temp:
        config = write_config(lab)
        filler = fill_disk(temp, leave=100 * KILOBYTE)
        code, out, err = run_subprocess(config, "audit", "--json", *arguments)
        assert code == 1 and not out and "MUX-232" in err and "what to do: " in err, (code, out, err)
        assert "goes on" in err
        filler.unlink()
        report = run_audit(config, *arguments, code=0)
    assert report["list"] == [] and report["counts"]["deep"] == len(calls)


@pytest.mark.long
def test_a_source_that_was_cut_off_long_ago_is_compared_as_it_was_muxed(make_lab: Make) -> None:
    lab = make_lab(encryption_group="empty")
    [call] = add_short(lab, [0], AGE)
    path, long_ago = lab.site.media.folder / "calls" / call.audio_id, time.time() - WEEK_SECONDS
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    os.utime(path, (long_ago, long_ago))
    done = run_muxer(write_config(lab, "migration", **EVERYTHING))
    assert done.process.returncode == 0, done.err
    report = run_audit(write_config(lab), "--deep", code=0)
    assert report["list"] == [] and report["counts"]["deep"] == 1


@pytest.mark.long
def test_a_muxed_file_with_more_sources_than_rws_shows_cannot_be_compared(
    lab: Lab, config: Path, calls: list[AddedCall]
) -> None:
    [entry] = muxed_entries(lab, calls[0].id)
    more = [*entry["parameters"]["muxed_mediaIds"], "gone.mp4"]
    change_entry(lab, calls[0], parameters=entry["parameters"] | {"muxed_mediaIds": more})
    assert run_audit(config, code=0)["list"] == []
    [finding] = run_audit(config, "--deep", code=4)["list"]
    assert (finding["kind"], finding["file"]) == ("unchecked", entry["mediaId"]) and "more sources" in finding["detail"]


@with_five_calls
@pytest.mark.long
def test_a_comparison_that_was_killed_goes_on_with_the_calls_that_were_not_compared(
    lab: Lab, config: Path, calls: list[AddedCall], tmp_path: Path
) -> None:
    state = tmp_path / "audit.state"
    arguments = ("--query", "startTime=0", "--deep", "--state", str(state))
    process = start_command(config, "audit", *arguments)
    wait_until(lambda: state.exists() and count_calls(state), 60, "the first call")
    process.kill()
    process.communicate()
    assert count_calls(state) < len(calls)
    counts = run_audit(config, *arguments, code=0)["counts"]
    assert counts["calls"] == counts["deep"] == len(calls)


def test_orphans_are_deleted_after_a_week_only(lab: Lab, config: Path, calls: list[AddedCall]) -> None:
    young, old = (f"{calls[0].id}_{digest * 20}_muxed.mp4" for digest in "ab")
    for name in (young, old):
        muxed_path(lab, name).write_bytes(b"x" * 1000)
    long_ago = time.time() - WEEK_SECONDS - 60
    os.utime(muxed_path(lab, old), (long_ago, long_ago))
    report = run_audit(config, "--orphans", "--delete-orphans", "--yes")
    repairs = {one["file"]: one["repair"].partition(":")[0] for one in report["list"]}
    assert repairs == {muxed_url(lab, young): "not deleted", muxed_url(lab, old): "deleted"}
    assert young in stored_muxed(lab) and old not in stored_muxed(lab)


@pytest.mark.long
def test_orphans_of_one_name_in_two_folders_are_two_findings(
    lab: Lab, config: Path, calls: list[AddedCall], tmp_path: Path
) -> None:
    [entry] = muxed_entries(lab, calls[1].id)
    descriptor = {"storage": "webDAV", "path": entry["mediaId"], "data": {"storagePath": f"{lab.dav_url}/screens/second"}}
    (lab.site.media.folder / "screens/second").mkdir()
    muxed_path(lab, entry["mediaId"]).rename(muxed_path(lab, f"second/{entry['mediaId']}"))
    change_entry(lab, calls[1], originalMediaDescriptor=descriptor)
    name = f"{calls[0].id}_{'a' * 20}_muxed.mp4"
    places = (name, f"second/{name}")
    for place in places:
        muxed_path(lab, place).write_bytes(b"x" * 1000)
    long_ago = time.time() - WEEK_SECONDS - 60
    os.utime(muxed_path(lab, places[1]), (long_ago, long_ago))
    page = tmp_path / "report.html"
    report = run_audit(config, "--orphans", "--delete-orphans", "--yes", "--html", str(page))
    repairs = {one["file"]: one["repair"].partition(":")[0] for one in report["list"]}
    assert repairs == {muxed_url(lab, places[0]): "not deleted", muxed_url(lab, places[1]): "deleted"}
    assert [muxed_path(lab, place).exists() for place in places] == [True, False]
    # The report shows the names of muxed files, and no addresses.
    assert page.read_text(encoding="utf-8").count(name) == 2 and lab.dav_url not in page.read_text(encoding="utf-8")


def test_a_state_file_belongs_to_one_audit_and_shows_its_result_again(
    lab: Lab, config: Path, calls: list[AddedCall], tmp_path: Path
) -> None:
    state = tmp_path / "audit.state"
    query = ("--query", "startTime=0", "--state", str(state))
    first = run_audit(config, *query)
    requests = len(lab.store.served_requests)
    again = run_audit(config, *query)
    assert again["counts"] == first["counts"] and again["finished"] == first["finished"] != ""
    assert (first["shown_again"], again["shown_again"]) == ("", str(state))
    assert len(lab.store.served_requests) == requests
    code, out, _ = run_in_process(config, "audit", *query)
    assert code == 0 and f"finished on {first['finished']}, and is shown again from {state}; delete that file" in out
    assert state.stat().st_mode & 0o077 == 0
    code, _, err = run_subprocess(config, "audit", "--from", "2026-01-01", "--state", str(state))
    assert code == 2 and "--state" in err and "another" in err
    other = write_config(lab, htcc__contact_center_id="other")
    code, _, err = run_in_process(other, "audit", *query)
    assert code == 2 and f"{state} belongs to an audit with another contact_center_id" in err, err


@pytest.mark.long
def test_an_audit_that_was_stopped_goes_on_behind_what_it_has_done(lab: Lab, tmp_path: Path) -> None:
    added = add_short(lab, range(120), AGE)
    config, state = write_config(lab, advanced__concurrent_queries="1"), tmp_path / "audit.state"
    arguments = ("--query", "startTime=0", "--state", str(state))
    process = start_command(config, "audit", "--rate", "50", *arguments)
    wait_until(lambda: state.exists() and count_calls(state), 60, "the first part of the audit")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM and "goes on" in err
    done = count_calls(state)
    assert 0 < done < len(added)
    report = run_audit(config, *arguments)
    assert report["counts"]["calls"] == len(added) and report["findings"] == {"missing": len(added)}


def test_a_file_that_the_muxer_replaces_meanwhile_is_no_finding(
    lab: Lab, config: Path, calls: list[AddedCall], monkeypatch: pytest.MonkeyPatch
) -> None:
    call, look_at_result = calls[0], FileLook.look_at_result
    [entry] = muxed_entries(lab, call.id)

    def replace_file(look: FileLook, media: MediaFile) -> Look | None:
        if media.media_id == entry["mediaId"] and muxed_path(lab, media.media_id).exists():
            name, descriptor = media.media_id.replace("_muxed", "-2_muxed"), entry["originalMediaDescriptor"]
            muxed_path(lab, media.media_id).rename(muxed_path(lab, name))
            path = descriptor["path"].replace(media.media_id, name)
            change_entry(lab, call, mediaId=name, originalMediaDescriptor=descriptor | {"path": path})
        return look_at_result(look, media)

    monkeypatch.setattr(FileLook, "look_at_result", replace_file)
    code, out, err = run_in_process(config, "audit", "--json", "--query", "startTime=0")
    assert code == 0 and json.loads(out)["list"] == [], (out, err)
    assert [one["mediaId"] for one in muxed_entries(lab, call.id)] != [entry["mediaId"]]


@pytest.mark.long
def test_two_audits_do_not_share_a_state_file(lab: Lab, tmp_path: Path) -> None:
    add_short(lab, range(60), AGE)
    config, state = write_config(lab), tmp_path / "audit.state"
    arguments = ("--query", "startTime=0", "--state", str(state))
    process = start_command(config, "audit", "--rate", "20", *arguments)
    wait_until(state.exists, 60, "the first audit")
    code, out, err = run_subprocess(config, "audit", *arguments)
    process.kill()
    process.communicate()
    assert code == 2 and "--state" in err and "runs now" in err, (code, out, err)


def test_a_state_file_that_cannot_be_written_is_named(lab: Lab) -> None:
    code, _, err = run_in_process(write_config(lab), "audit", "--query", "startTime=0", "--state", "/no/folder/state")
    assert code == 2 and "--state: /no/folder/state" in err, err


@pytest.mark.long
def test_files_that_rcs_cannot_decrypt_do_not_end_the_audit(lab: Lab, config: Path, calls: list[AddedCall]) -> None:
    encrypted = CallPlan("encrypted", 4, (ScreenPart(0, 4),), encrypted=True)
    first, *_ = build_calls(lab.site, [(Case.ENCRYPTED, encrypted, datetime.now(UTC) - AGE, 20)])[0]
    call, screen = lab.store.get_call(first.id), lab.store.get_screen(first.id)
    assert call is not None and screen is not None
    for number in range(12):
        copy = f"copy-{number}"
        lab.store.add_call(call | {"id": copy})
        for media in screen["mediaFiles"]:
            lab.store.add_screen_media(copy, lab.region, media | {"pkcs7": "unreadable"})
    report = run_audit(config)
    assert report["counts"]["calls"] == len(calls) + 13
    assert report["findings"] == {"missing": 13, "unchecked": 12}


def count_calls(state: Path) -> int:
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(sqlite3.connect(f"file:{state}?mode=ro", uri=True)) as opened,
    ):
        row = opened.execute("SELECT value FROM facts WHERE name = 'calls'").fetchone()
        return int(row[0]) if row else 0
    return 0


@with_five_calls
def test_an_audit_without_a_service_fails_and_says_nothing_of_completeness(lab: Lab, calls: list[AddedCall]) -> None:
    lab.store.fail_next("rws", "GET", "screen-recordings", 503, times=1000, headers={"Retry-After": "0"})
    code, out, err = run_subprocess(write_config(lab), "audit", "--query", "startTime=0")
    assert code == 1 and "complete" not in out and "503" in err


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ((), "--from"),
        (("--from", "yesterday"), "--from"),
        (("--from", "1780000000"), "--from"),
        (("--from", "2026-02-01", "--to", "2026-01-01"), "--to"),
        (("--from", "2026-01-01", "--hours", "25-3"), "--hours"),
        (("--from", "2026-01-01", "--rate", "0"), "--rate"),
        (("--from", "2026-01-01", "--sample", "1/10"), "--sample"),
        (("--from", "2026-01-01", "--deep", "--sample", "2/1"), "--sample"),
        (("--from", "2026-01-01", "--delete-orphans", "--yes"), "--delete-orphans"),
        (("--from", "2026-01-01", "--repair"), "--repair"),
        (("--from", "2026-01-01", "--html", "no/folder/report.html"), "--html"),
        (("--query", ""), "--query: must have the form name=value"),
        (("--query", "nonsense"), "--query: must have the form name=value"),
        (("--from", "2190-01-01"), "--from: it is in the future"),
        (("--from", "2026-01-01", "--encrypted-since", "2190-01-01"), "--encrypted-since: it is in the future"),
        (("--from", "2026-01-01", "--names"), "--names: it has no meaning without --html"),
        (("--from", "2026-01-01", "--yes"), "--yes: it has no meaning without --repair or --delete-orphans"),
        (("--from", "2026-01-01", "--orphans", "--delete-orphans"), "--delete-orphans: there is no terminal"),
    ],
)
def test_wrong_options_are_named(lab: Lab, arguments: tuple[str, ...], option: str) -> None:
    code, _, err = run_in_process(write_config(lab), "audit", *arguments)
    assert code == 2 and option in err, err


def test_files_that_cannot_be_used_are_refused_before_anything_is_sent(lab: Lab, tmp_path: Path) -> None:
    config, foreign, state = write_config(lab), tmp_path / "foreign.sqlite3", tmp_path / "state"
    with contextlib.closing(sqlite3.connect(foreign)) as database:
        database.execute("CREATE TABLE invoices (number INTEGER)")
    (loop := tmp_path / "loop").symlink_to(loop)
    (damaged := tmp_path / "damaged").write_bytes(foreign.read_bytes()[:100] + bytes(900))
    text, requests = config.read_text(), len(lab.store.served_requests)
    for arguments, problem in (
        (("--state", str(tmp_path)), f"--state: {tmp_path} is no file"),
        (("--state", str(foreign)), f"--state: {foreign} is not the state file of an audit"),
        (("--state", str(damaged)), f"--state: {damaged} is not the state file of an audit"),
        (("--state", str(config)), f"--state: {config} is not the state file of an audit"),
        (("--state", str(state), "--html", str(state)), f"--html: {state} is the file of --state"),
        (("--html", str(config)), f"--html: {config} is the file of --config-file"),
        (("--html", str(tmp_path)), f"--html: {tmp_path} is a folder"),
        (("--state", "x" * 300), "cannot be used: File name too long"),
        (("--html", str(loop), "--state", str(foreign)), f"--state: {foreign} is not the state file of an audit"),
        (("--html", "x" * 300), "cannot be used: File name too long"),
    ):
        code, _, err = run_in_process(config, "audit", "--from", "2026-01-01", *arguments)
        assert code == 2 and problem in err, err
    assert not state.exists() and config.read_text() == text and len(lab.store.served_requests) == requests


def test_what_is_odd_about_the_configuration_is_a_warning(lab: Lab, calls: list[AddedCall]) -> None:
    config = write_config(lab)
    config.write_text(f"{config.read_text()}\n[audit]\nencrypted_sinse = 2020-01-01\n")
    _, _, err = run_in_process(config, "audit", "--query", "startTime=0")
    assert "warning: " in err and "encrypted_sinse" in err


def test_a_site_cannot_begin_to_encrypt_in_the_future(lab: Lab) -> None:
    config = write_config(lab, audit__encrypted_since="2190-01-01")
    code, _, err = run_in_process(config, "audit", "--query", "startTime=0")
    assert code == 2 and "[audit] encrypted_since: it is in the future" in err


def test_calls_that_the_muxer_still_looks_at_are_pending(lab: Lab) -> None:
    add_short(lab, range(2), timedelta(minutes=5))
    report = run_audit(write_config(lab), code=0)
    assert report["counts"]["pending"] == 2 and report["list"] == []


@pytest.mark.long
def test_the_report_is_one_page_without_names(lab: Lab, config: Path, calls: list[AddedCall], tmp_path: Path) -> None:
    add_short(lab, range(10, 12), AGE, TWO_AGENTS)
    page = tmp_path / "report.html"
    report = run_audit(config, "--html", str(page))
    assert report["findings"] == {"missing": 4}
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>") and "<svg" in text and text.rstrip().endswith("</html>")
    assert "http" not in text and "<script" not in text
    for part in TWO_AGENTS.screens:
        assert part.agent.username not in text
    run_audit(config, "--query", "startTime=0&userName=agent1", "--html", str(page))
    assert "agent1" not in page.read_text(encoding="utf-8")
