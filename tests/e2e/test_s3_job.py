"""The main job with media in S3, end to end: the real process on a lab with media in s3rver (https), moto or Swift."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab.bucket import ExternalS3
from lab.build import AddedCall
from lab.cases import Case
from lab.lab import Lab
from lab.switches import Switches
from tests.support import av_sync, s3rver, swift
from tests.support.commands import run_subprocess as run_command
from tests.support.daemon import FAST_RETRY, MuxerProcess, log_lines, wait_until
from tests.support.moto_server import moto_server
from tests.support.s3 import BUCKET, KEY, SECRET, S3Server
from tests.support.s3_front import S3Request, SubstituteResponse, serve_front
from tests.support.s3rver import S3rver
from tests.support.swift import Swift
from tests.support.tls import HOST, pem_bundle, self_signed

TIMEOUT_SECONDS = 60
BOTH, SCREENS_ONLY = ("calls", "screens"), ("screens",)


@dataclass(frozen=True)
class S3Lab:
    """A running store, a separate client for it, and a lab with media in it."""

    lab: Lab
    server: S3Server
    folder: Path

    @property
    def log_path(self) -> Path:
        return self.lab.folder / "log" / "recording-muxer-single.log"

    def write_config(self, **options: str) -> Path:
        """Write the configuration, with these `options` in the section s3. Returns its path."""
        config = self.folder / "muxer.cfg"
        changed = {f"s3.{name}": value for name, value in options.items()}
        config.write_text(self.lab.config_text(**{"logfile.format": "json"}, **changed))
        return config

    def run_until(self, happened: Callable[[], object], **options: str) -> None:
        """Let the process work until something has happened; see :meth:`configured`."""
        config = self.write_config(**options)
        with MuxerProcess(config) as muxer:
            wait_until(happened, TIMEOUT_SECONDS, "the result", self.log_path)
            assert muxer.stop() == 0

    def labelled_ids(self) -> set[str]:
        return {one for one, _ in self.lab.store.label_posts}

    def muxed_entries(self, call: AddedCall) -> list[dict[str, Any]]:
        media = (self.lab.store.get_screen(call.id) or {"mediaFiles": []})["mediaFiles"]
        return [one for one in media if "muxed_mediaIds" in one["parameters"]]

    def find_problems(self, call: AddedCall) -> list[str]:
        """Return the problems of the one muxed file of a call with one agent: its location and its content."""
        (entry,) = self.muxed_entries(call)
        key, stored, clear = f"screens/{entry['mediaId']}", self.folder / "stored", self.folder / "clear.mp4"
        stored.write_bytes(self.server.read_object(key))
        if "pkcs7" in entry:
            self.lab.decrypt_file(entry["pkcs7"], stored, clear)
        else:
            stored.replace(clear)
        length = call.plan.seconds
        shown = [
            av_sync.ExpectedScreen(max(part.offset, 0), min(part.offset + part.seconds, length), part.agent.number)
            for part in call.plan.screens
        ]
        descriptor = {"storage": "awsS3", "path": key, "data": {"bucket": BUCKET}}
        right = {
            "descriptor": entry["originalMediaDescriptor"] == descriptor,
            "size": entry["size"] == str(len(self.server.read_object(key))),
            "sources": entry["parameters"]["muxed_mediaIds"]
            == [call.audio_id, *(screen.media_id for screen in call.screens)],
        }
        return [name for name in right if not right[name]] + av_sync.file_problems(clear, call.start, length, shown)

    def logged_warnings(self) -> list[str]:
        return [line["message"] for line in log_lines(self.log_path) if line["level"] in ("warning", "error", "critical")]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., S3Lab]]:
    """Return a function that starts a store and a lab with the given collections in it."""
    with ExitStack() as stack:

        def on_s3rver(certificate: bool) -> tuple[str, Path | None]:
            signed = self_signed("store", HOST) if certificate else None
            (path := tmp_path / "ca.pem").write_bytes(pem_bundle(signed) if signed else b"")
            rver = stack.enter_context(S3rver(tmp_path / "s3rver", BUCKET, certificate=signed))
            return rver.url, path if signed else None

        def on_moto() -> tuple[str, None]:
            return stack.enter_context(moto_server(HOST)), None

        def on_swift() -> tuple[str, None]:
            return stack.enter_context(Swift(tmp_path / "swift")).url, None

        others = {"moto": (on_moto, KEY, SECRET, "us-east-1"), "swift": (on_swift, swift.KEY, swift.SECRET, swift.REGION)}
        on_rver = (lambda: on_s3rver(False), s3rver.KEY, s3rver.SECRET, "us-east-1")
        on_rver_tls = (lambda: on_s3rver(True), s3rver.KEY, s3rver.SECRET, "us-east-1")
        stores = {**others, "s3rver, http": on_rver, "s3rver, https": on_rver_tls}

        def create_site(store: str, collections: tuple[str, ...], **switches: Any) -> S3Lab:
            start, key, secret, region = stores[store]
            url, trusted_ca = start()
            server = S3Server(url, key, secret, trusted_ca, region)
            if store in others:
                server.client.create_bucket(Bucket=BUCKET)
            external = ExternalS3(url, key, secret, BUCKET, collections, trusted_ca, region)
            lab = stack.enter_context(Lab(tmp_path / "lab", Switches(**switches), s3=external))
            return S3Lab(lab, server, tmp_path)

        yield create_site


Make = Callable[..., S3Lab]


def test_encrypted_sources_and_results_in_s3(make_site: Make) -> None:
    site = make_site("s3rver, https", BOTH, encryption_group="certificates")
    calls = site.lab.add_cases([Case.PLAIN, Case.ENCRYPTED])
    assert not [path for path in site.lab.site.media.folder.rglob("*") if path.is_file()]
    site.run_until(lambda: site.labelled_ids() >= {call.id for call in calls})
    for call in calls:
        assert "pkcs7" in site.muxed_entries(call)[0]
        assert site.find_problems(call) == []
    assert site.logged_warnings() == []
    known = {call.audio_id for call in calls} | {screen.media_id for call in calls for screen in call.screens}
    known |= {site.muxed_entries(call)[0]["mediaId"] for call in calls}
    assert {key.rpartition("/")[2] for key in site.server.list_objects()} == known


@pytest.mark.long
@pytest.mark.parametrize("store", ["s3rver, http", "moto"])
def test_mixed_call_is_muxed_next_to_its_screens(make_site: Make, store: str) -> None:
    site = make_site(store, SCREENS_ONLY, encryption_group="empty")
    (call,) = site.lab.add_case(Case.PLAIN)
    webdav = site.lab.site.media.folder
    assert [path.name for path in (webdav / "calls").iterdir()] == [call.audio_id]
    site.run_until(lambda: site.labelled_ids() >= {call.id})
    assert site.find_problems(call) == []
    assert site.logged_warnings() == []
    assert store != "moto" or SECRET not in site.log_path.read_text()
    assert not list((webdav / "screens").iterdir()) and len(list((webdav / "calls").iterdir())) == 1


@pytest.mark.long
def test_a_superseded_file_is_deleted_in_s3(make_site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site("s3rver, http", BOTH, encryption_group="empty")
    monkeypatch.setattr(site.lab.site.media.bucket, "delete_object", lambda key: None)  # an RWS that does not delete files
    (call,) = site.lab.add_case(Case.GAPS)
    late = (site.lab.store.get_screen(call.id) or {})["mediaFiles"][2]
    site.lab.store.delete_screen_media(call.id, late["mediaId"])
    site.run_until(lambda: site.labelled_ids() >= {call.id})
    (first,) = site.muxed_entries(call)
    superseded = f"screens/{first['mediaId']}"
    assert superseded in site.server.list_objects()
    site.lab.store.add_screen_media(call.id, site.lab.region, late)
    site.run_until(lambda: superseded not in site.server.list_objects())
    (second,) = site.muxed_entries(call)
    assert second["mediaId"] != first["mediaId"] and f"screens/{second['mediaId']}" in site.server.list_objects()


@pytest.mark.long
def test_refused_keys_are_reported_and_nothing_is_lost(make_site: Make) -> None:
    site = make_site("s3rver, http", SCREENS_ONLY, encryption_group="empty")
    (call,) = site.lab.add_case(Case.PLAIN)
    config = site.folder / "muxer.cfg"
    config.write_text(site.lab.config_text(**{"logfile.format": "json", "s3.access_key_id": "NOBODY"}))
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(
            lambda: any("InvalidAccessKeyId" in warning for warning in site.logged_warnings()),
            TIMEOUT_SECONDS,
            "the error",
            site.log_path,
        )
        assert muxer.stop() == 0
    assert site.labelled_ids() == set() and site.muxed_entries(call) == []
    site.run_until(lambda: site.labelled_ids() >= {call.id})
    assert site.find_problems(call) == []


@pytest.mark.long
def test_a_wrong_region_is_named_and_nothing_is_set_aside(make_site: Make) -> None:
    """On Swift the region is a word of the site. The first request for an encrypted recording is a HEAD, as its sources come
    from RCS; its response does not contain the cause of the refusal."""
    site = make_site("swift", BOTH, encryption_group="certificates")
    (encrypted,) = site.lab.add_case(Case.ENCRYPTED)
    wrong = {"region": "us-east-1"}
    named = f"set [s3] region = {swift.REGION}"
    code, found, _ = run_command(site.write_config(**wrong), "check", "--write")
    assert code == 0 and f"the store requires the region {swift.REGION}" in found and named in found
    site.run_until(lambda: site.labelled_ids() >= {encrypted.id}, **wrong)
    assert site.find_problems(encrypted) == []
    (complaint,) = site.logged_warnings()
    assert named in complaint
    code, failed, _ = run_command(site.write_config(**wrong), "failed", "--json")
    assert code == 0 and json.loads(failed) == []


@pytest.mark.long
def test_correct_region_publishes_without_warnings(make_site: Make) -> None:
    site = make_site("swift", BOTH, encryption_group="certificates")
    calls = site.lab.add_cases([Case.PLAIN, Case.ENCRYPTED])
    code, found, _ = run_command(site.write_config(), "check", "--write")
    assert code == 0 and "S3 region" not in found and "uploaded and deleted" in found
    site.run_until(lambda: site.labelled_ids() >= {call.id for call in calls})
    for call in calls:
        assert site.find_problems(call) == []
    assert site.logged_warnings() == []
    assert len(site.server.list_objects()) == 3 * len(calls)


DENIED = SubstituteResponse(403, "AccessDenied")


@pytest.mark.long
def test_keys_without_the_right_to_list_publish_everything(make_site: Make) -> None:
    site = make_site("moto", BOTH, encryption_group="certificates")
    calls = site.lab.add_cases([Case.PLAIN, Case.ENCRYPTED])

    def deny_missing(request: S3Request) -> SubstituteResponse | None:
        """Behave like AWS: a missing object is forbidden."""
        is_there = request.path.removeprefix(f"/{BUCKET}/") in site.server.list_objects()
        return DENIED if request.method in ("GET", "HEAD") and not is_there else None

    with serve_front(deny_missing) as url:
        code, found, _ = run_command(site.write_config(endpoint_url=url), "check", "--write")
        assert code == 0 and "the keys lack s3:ListBucket" in found and "uploaded and deleted" in found
        site.run_until(lambda: site.labelled_ids() >= {call.id for call in calls}, endpoint_url=url)
    for call in calls:
        assert site.find_problems(call) == []
    (complaint,) = site.logged_warnings()
    assert "lack the right s3:ListBucket" in complaint


@pytest.mark.long
def test_keys_that_may_not_upload_are_named_and_nothing_is_set_aside(make_site: Make) -> None:
    site = make_site("moto", BOTH, encryption_group="certificates")
    (call,) = site.lab.add_case(Case.ENCRYPTED)
    with serve_front(lambda request: DENIED if request.method in ("PUT", "POST") else None) as url:
        config = site.write_config(endpoint_url=url)
        code, found, _ = run_command(config, "check", "--write")
        assert code == 1 and "lack the right s3:PutObject" in found
        with MuxerProcess(config, **FAST_RETRY) as muxer:

            def denied_uploads() -> list[dict[str, Any]]:
                return [line for line in log_lines(site.log_path) if "lack the right s3:PutObject" in line["message"]]

            wait_until(
                lambda: len(denied_uploads()) > 3,
                TIMEOUT_SECONDS,
                "more attempts than are made before one is set aside",
                site.log_path,
            )
            assert muxer.stop() == 0
    code, listed, _ = run_command(config, "failed", "--json")
    assert code == 0 and [one["state"] for one in json.loads(listed)] == ["retry"] and site.muxed_entries(call) == []
    site.run_until(lambda: site.labelled_ids() >= {call.id})
    assert site.find_problems(call) == []
