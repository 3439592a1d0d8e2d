"""Real runs against servers whose short responses and metadata have other forms."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.build import AddedCall
from lab.cases import Case
from lab.lab import Lab
from tests.support.calls import add_short, log_messages, log_of, muxed_entries, screen_file, write_config
from tests.support.checklist import run_check as check
from tests.support.checklist import write_check_config
from tests.support.daemon import FAST_RETRY, run_muxer
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
MIGRATION = {"advanced__call_recording_query_string": "startTime=0"}
TIMEOUT_SECONDS = 60


def change_descriptors(lab: Lab, recording_id: str, **changes: object) -> None:
    """Change the descriptors of the screen files of a recording, in RWS."""
    for media in lab.store._screens[recording_id]["mediaFiles"]:
        media["originalMediaDescriptor"] |= changes


def test_text_response_to_write_is_a_success(make_lab: Make) -> None:
    lab = make_lab(text_answers=True)
    calls = add_short(lab, range(2))
    done = run_muxer(write_config(lab, **MIGRATION), seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0, done.out
    assert all(len(muxed_entries(lab, call.id)) == 1 for call in calls)
    assert len(lab.store.label_posts) == len(lab.store.screen_posts) == 2


def test_error_page_as_response_to_write_is_a_failure(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [0])
    lab.store.fail_next("rws", "POST", "/screen-recordings", 502, body=b"<html>Bad gateway</html>")
    done = run_muxer(write_config(lab, **MIGRATION), seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0 and len(muxed_entries(lab, call.id)) == 1 and len(lab.store.screen_posts) == 1


@pytest.mark.long
def test_proxy_page_as_response_to_write_is_a_failure(make_lab: Make) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [0])
    page = b"\n<!DOCTYPE html><html>Please log in</html>"
    lab.store.fail_next("rws", "POST", "/labels", 200, body=page)
    lab.store.fail_next("rws", "POST", "/screen-recordings", 200, body=page)
    done = run_muxer(write_config(lab, **MIGRATION), seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0 and len(muxed_entries(lab, call.id)) == len(lab.store.screen_posts) == 1
    assert [one for one, _ in lab.store.label_posts] == [call.id]


def test_proxy_limit_is_named_and_sets_nothing_aside(make_lab: Make) -> None:
    lab = make_lab()
    add_short(lab, [0])
    lab.store.fail_next("rws", "POST", "/screen-recordings", 413, times=100)
    config = write_config(lab, **MIGRATION)
    assert run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY).process.returncode == 4
    lines = [message for message in log_messages(log_of(config)) if "recording failed" in message]
    assert lines and all("limits the size of a request" in line for line in lines)
    assert not any("set aside" in line for line in lines)


@pytest.mark.parametrize("text", spread_variants(["8.5.095.16", "RCS version 8.5.095.16 (build 7)\n", '"8.5.095.16"'], 3))
def test_check_reads_rcs_version_from_text_response(make_lab: Make, tmp_path: Path, text: str) -> None:
    line = check(write_check_config(make_lab(rcs_version=text), tmp_path)).line_of("RCS version")
    assert (line.status, line.found) == ("ok", "8.5.095.16")


def test_check_warns_about_text_without_version(make_lab: Make, tmp_path: Path) -> None:
    line = check(write_check_config(make_lab(rcs_version="It works!"), tmp_path)).line_of("RCS version")
    assert (line.status, line.found) == ("warning", "unknown")


def test_encrypted_media_without_envelope_are_decrypted_and_the_result_is_encrypted(make_lab: Make) -> None:
    lab = make_lab(hidden_pkcs7=True)
    (call,) = lab.add_case(Case.ENCRYPTED)
    done = run_muxer(write_config(lab, **MIGRATION), seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0, done.out
    (entry,) = muxed_entries(lab, call.id)
    assert entry["mediaId"].endswith(".mp4.bin") and entry["pkcs7"]
    played = [
        request.path
        for request in lab.store.served_requests
        if request.service == "rcs" and "/play/" in request.path and request.status == 200
    ]
    assert len(played) == 1 + len(call.screens)


def hide_encryption(lab: Lab, call: AddedCall) -> None:
    """Remove the suffix from the names of encrypted media."""
    for media in (*lab.store._calls[call.id]["mediaFiles"], *lab.store._screens[call.id]["mediaFiles"]):
        path = lab.site.media.find_file(media)
        if path is not None and path.suffix == ".bin":
            path.rename(path.with_suffix(""))
            media["mediaId"] = media["mediaId"].removesuffix(".bin")
            media["originalMediaDescriptor"]["path"] = media["originalMediaDescriptor"]["path"].removesuffix(".bin")


@pytest.mark.long
def test_encrypted_media_without_mark_are_fetched_through_rcs(make_lab: Make) -> None:
    lab = make_lab(hidden_encryption=True)
    (call,) = lab.add_case(Case.ENCRYPTED)
    hide_encryption(lab, call)
    config = write_config(lab, **MIGRATION)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0, done.out
    (entry,) = muxed_entries(lab, call.id)
    assert entry["mediaId"].endswith(".mp4.bin") and entry["pkcs7"]
    played = [
        request.path
        for request in lab.store.served_requests
        if request.service == "rcs" and "/play/" in request.path and request.status == 200
    ]
    assert len(played) == len(set(played)) == 1 + len(call.screens)
    marked = "is encrypted although its metadata do not state it"
    assert len([message for message in log_messages(log_of(config)) if marked in message]) == 2


@pytest.mark.long
def test_result_of_unmarked_encrypted_media_needs_a_certificate(make_lab: Make) -> None:
    lab = make_lab(hidden_encryption=True, encryption_group="empty")
    (call,) = lab.add_case(Case.ENCRYPTED)
    hide_encryption(lab, call)
    config = write_config(lab, **MIGRATION)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 4 and not muxed_entries(lab, call.id)
    assert "EncryptionMissing: a source is encrypted, but RWS has no encryption certificate" in log_of(config).read_text()


@pytest.mark.parametrize("has_rcs", spread_variants([True, False], 2))
def test_clear_file_without_media_is_reported(make_lab: Make, has_rcs: bool) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [0])
    path = screen_file(lab, call)
    path.write_bytes(random.Random(1).randbytes(path.stat().st_size))
    config = write_config(lab, **MIGRATION, **({} if has_rcs else {"rcs__base_uri": ""}))
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 4 and not muxed_entries(lab, call.id)
    logged = log_of(config).read_text()
    assert f"MediaError: {call.screens[0].media_id}: " in logged and "is encrypted although" not in logged


def test_encrypted_media_are_fetched_by_second_family_of_paths(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab(rcs_second_paths=True)
    (call,) = lab.add_case(Case.ENCRYPTED)
    config = write_config(lab, **MIGRATION)
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0, done.out
    assert len(muxed_entries(lab, call.id)) == 1
    assert len([message for message in log_messages(log_of(config)) if "second family of paths" in message]) == 1
    assert check(write_check_config(lab, tmp_path)).line_of("RCS decrypt permission").status == "ok"


def test_a_source_in_an_unknown_storage_is_fetched_by_its_media_uri(make_lab: Make) -> None:
    lab = make_lab(hidden_storage=True)
    (call,) = add_short(lab, [0])
    done = run_muxer(write_config(lab, **MIGRATION), seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0, done.out
    assert len(muxed_entries(lab, call.id)) == 1
    assert any(
        "/content/" in request.path and request.status == 200
        for request in lab.store.served_requests
        if request.service == "rws"
    )


@pytest.mark.long
def test_a_screen_file_in_an_unknown_storage_names_the_reason(make_lab: Make) -> None:
    """Its content could be fetched, but the muxed file has no location."""
    lab = make_lab()
    (call,) = add_short(lab, [0])
    change_descriptors(lab, call.id, storage="tape")
    done = run_muxer(write_config(lab, **MIGRATION), seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 4 and "1 failed" in done.out and not muxed_entries(lab, call.id)


@pytest.mark.parametrize("slash", spread_variants(["", "/"], 2))
def test_a_storage_path_with_and_without_a_closing_slash(make_lab: Make, slash: str) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [0])
    change_descriptors(lab, call.id, data={"storagePath": f"{lab.dav_url}/screens{slash}"})
    done = run_muxer(write_config(lab, **MIGRATION), seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == 0, done.out
    (entry,) = muxed_entries(lab, call.id)
    assert screen_file(lab, call).with_name(entry["mediaId"]).is_file()
