"""The main job with media in S3, end to end: the real process on a lab whose media lie in s3rver (https), moto or Swift."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support import s3rver, swift, sync
from tests.support.commands import run as run_command
from tests.support.daemon import IMPATIENT, Muxer, log_lines, wait_until
from tests.support.moto_server import moto_server
from tests.support.s3 import BUCKET, KEY, SECRET, Server
from tests.support.s3_door import Asked, Refusal, door
from tests.support.s3rver import S3rver
from tests.support.swift import Swift
from tests.support.tls import HOST, pem, self_signed

from muxer.lab.bucket import ExternalS3
from muxer.lab.build import AddedCall
from muxer.lab.cases import Case
from muxer.lab.lab import Lab
from muxer.lab.switches import Switches

SECONDS = 60
BOTH, SCREENS_ONLY = ("calls", "screens"), ("screens",)


@dataclass(frozen=True)
class Site:
    """A running store, a client of the tests' own for it, and a lab with media in it."""

    lab: Lab
    server: Server
    folder: Path

    @property
    def log(self) -> Path:
        return self.lab.folder / "log" / "recording-muxer-single.log"

    def configured(self, **options: str) -> Path:
        """Write the configuration, in which `options` of the section s3 have other values; return its path."""
        config = self.folder / "muxer.cfg"
        changed = {f"s3.{name}": value for name, value in options.items()}
        config.write_text(self.lab.config_text(**{"logfile.format": "json"}, **changed))
        return config

    def mux(self, happened: Callable[[], object], **options: str) -> None:
        """Let the process work until something has happened; see :meth:`configured`."""
        config = self.configured(**options)
        with Muxer(config) as muxer:
            wait_until(happened, SECONDS, "the result", self.log)
            assert muxer.stop() == 0

    def labelled(self) -> set[str]:
        return {one for one, _ in self.lab.store.label_posts}

    def muxed(self, call: AddedCall) -> list[dict[str, Any]]:
        media = (self.lab.store.screen(call.id) or {"mediaFiles": []})["mediaFiles"]
        return [one for one in media if "muxed_mediaIds" in one["parameters"]]

    def problems(self, call: AddedCall) -> list[str]:
        """Return what is wrong with the one muxed file of a call with one agent, its place and its content."""
        (entry,) = self.muxed(call)
        key, stored, clear = f"screens/{entry['mediaId']}", self.folder / "stored", self.folder / "clear.mp4"
        stored.write_bytes(self.server.content(key))
        if "pkcs7" in entry:
            self.lab.decrypt(entry["pkcs7"], stored, clear)
        else:
            stored.replace(clear)
        length = call.plan.seconds
        shown = [
            sync.Shown(max(part.offset, 0), min(part.offset + part.seconds, length), part.agent.number)
            for part in call.plan.screens
        ]
        descriptor = {"storage": "awsS3", "path": key, "data": {"bucket": BUCKET}}
        right = {
            "descriptor": entry["originalMediaDescriptor"] == descriptor,
            "size": entry["size"] == str(len(self.server.content(key))),
            "sources": entry["parameters"]["muxed_mediaIds"] == [call.audio_id, *(one.media_id for one in call.screens)],
        }
        return [name for name in right if not right[name]] + sync.problems(clear, call.start, length, shown)

    def complaints(self) -> list[str]:
        return [line["message"] for line in log_lines(self.log) if line["level"] in ("warning", "error", "critical")]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Return a function that starts a store and a lab with the given collections in it."""
    with ExitStack() as stack:

        def on_s3rver(certificate: bool) -> tuple[str, Path | None]:
            made = self_signed("store", HOST) if certificate else None
            (path := tmp_path / "ca.pem").write_bytes(pem(made) if made else b"")
            rver = stack.enter_context(S3rver(tmp_path / "s3rver", BUCKET, certificate=made))
            return rver.url, path if made else None

        def on_moto() -> tuple[str, None]:
            return stack.enter_context(moto_server(HOST)), None

        def on_swift() -> tuple[str, None]:
            return stack.enter_context(Swift(tmp_path / "swift")).url, None

        others = {"moto": (on_moto, KEY, SECRET, "us-east-1"), "swift": (on_swift, swift.KEY, swift.SECRET, swift.REGION)}
        on_rver = (lambda: on_s3rver(False), s3rver.KEY, s3rver.SECRET, "us-east-1")
        on_rver_tls = (lambda: on_s3rver(True), s3rver.KEY, s3rver.SECRET, "us-east-1")
        stores = {**others, "s3rver, http": on_rver, "s3rver, https": on_rver_tls}

        def make(store: str, collections: tuple[str, ...], **switches: Any) -> Site:
            start, key, secret, region = stores[store]
            url, trusted_ca = start()
            server = Server(url, key, secret, trusted_ca, region)
            if store in others:
                server.client.create_bucket(Bucket=BUCKET)
            external = ExternalS3(url, key, secret, BUCKET, collections, trusted_ca, region)
            lab = stack.enter_context(Lab(tmp_path / "lab", Switches(**switches), s3=external))
            return Site(lab, server, tmp_path)

        yield make


Make = Callable[..., Site]


def test_everything_in_s3_encrypted_sources_and_results(make_site: Make) -> None:
    site = make_site("s3rver, https", BOTH, encryption_group="certificates")
    calls = site.lab.add_cases([Case.PLAIN, Case.ENCRYPTED])
    assert not [path for path in site.lab.site.media.folder.rglob("*") if path.is_file()]
    site.mux(lambda: site.labelled() >= {call.id for call in calls})
    for call in calls:
        assert "pkcs7" in site.muxed(call)[0]
        assert site.problems(call) == []
    assert site.complaints() == []
    known = {call.audio_id for call in calls} | {one.media_id for call in calls for one in call.screens}
    known |= {site.muxed(call)[0]["mediaId"] for call in calls}
    assert {key.rpartition("/")[2] for key in site.server.objects()} == known


@pytest.mark.parametrize("store", ["s3rver, http", "moto"])
def test_a_mixed_call_is_muxed_beside_its_screens(make_site: Make, store: str) -> None:
    site = make_site(store, SCREENS_ONLY, encryption_group="empty")
    (call,) = site.lab.add_case(Case.PLAIN)
    webdav = site.lab.site.media.folder
    assert [path.name for path in (webdav / "calls").iterdir()] == [call.audio_id]
    site.mux(lambda: site.labelled() >= {call.id})
    assert site.problems(call) == []
    assert site.complaints() == []
    assert store != "moto" or SECRET not in site.log.read_text()
    assert not list((webdav / "screens").iterdir()) and len(list((webdav / "calls").iterdir())) == 1


def test_a_superseded_file_is_deleted_in_s3(make_site: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    site = make_site("s3rver, http", BOTH, encryption_group="empty")
    monkeypatch.setattr(site.lab.site.media.bucket, "delete", lambda key: None)  # an RWS that leaves files to their owner
    (call,) = site.lab.add_case(Case.GAPS)
    late = (site.lab.store.screen(call.id) or {})["mediaFiles"][2]
    site.lab.store.delete_screen_media(call.id, late["mediaId"])
    site.mux(lambda: site.labelled() >= {call.id})
    (first,) = site.muxed(call)
    superseded = f"screens/{first['mediaId']}"
    assert superseded in site.server.objects()
    site.lab.store.add_screen_media(call.id, site.lab.region, late)
    site.mux(lambda: superseded not in site.server.objects())
    (second,) = site.muxed(call)
    assert second["mediaId"] != first["mediaId"] and f"screens/{second['mediaId']}" in site.server.objects()


def test_refused_keys_are_said_and_nothing_is_lost(make_site: Make) -> None:
    site = make_site("s3rver, http", SCREENS_ONLY, encryption_group="empty")
    (call,) = site.lab.add_case(Case.PLAIN)
    config = site.folder / "muxer.cfg"
    config.write_text(site.lab.config_text(**{"logfile.format": "json", "s3.access_key_id": "NOBODY"}))
    with Muxer(config, **IMPATIENT) as muxer:
        wait_until(lambda: any("InvalidAccessKeyId" in one for one in site.complaints()), SECONDS, "the error", site.log)
        assert muxer.stop() == 0
    assert site.labelled() == set() and site.muxed(call) == []
    site.mux(lambda: site.labelled() >= {call.id})
    assert site.problems(call) == []


def test_a_wrong_region_is_named_and_nothing_is_set_aside(make_site: Make) -> None:
    """On Swift the region is a word of the site. The first request for an encrypted recording is a HEAD, as its sources come
    from RCS; the response to it does not tell why it is refused."""
    site = make_site("swift", BOTH, encryption_group="certificates")
    (encrypted,) = site.lab.add_case(Case.ENCRYPTED)
    wrong = {"region": "us-east-1"}
    named = f"set [s3] region = {swift.REGION}"
    code, found, _ = run_command(site.configured(**wrong), "check", "--write")
    assert code == 0 and f"the store wants the region {swift.REGION}" in found and named in found
    site.mux(lambda: site.labelled() >= {encrypted.id}, **wrong)
    assert site.problems(encrypted) == []
    (complaint,) = site.complaints()
    assert named in complaint
    code, failed, _ = run_command(site.configured(**wrong), "failed", "--json")
    assert code == 0 and json.loads(failed) == []


def test_the_right_region_publishes_without_a_word(make_site: Make) -> None:
    site = make_site("swift", BOTH, encryption_group="certificates")
    calls = site.lab.add_cases([Case.PLAIN, Case.ENCRYPTED])
    code, found, _ = run_command(site.configured(), "check", "--write")
    assert code == 0 and "S3 region" not in found and "uploaded and deleted" in found
    site.mux(lambda: site.labelled() >= {call.id for call in calls})
    for call in calls:
        assert site.problems(call) == []
    assert site.complaints() == []
    assert len(site.server.objects()) == 3 * len(calls)


DENIED = Refusal(403, "AccessDenied")


def test_keys_without_the_right_to_list_publish_everything(make_site: Make) -> None:
    site = make_site("moto", BOTH, encryption_group="certificates")
    calls = site.lab.add_cases([Case.PLAIN, Case.ENCRYPTED])

    def rule(asked: Asked) -> Refusal | None:
        """Do as AWS does: a missing object is forbidden."""
        is_there = asked.path.removeprefix(f"/{BUCKET}/") in site.server.objects()
        return DENIED if asked.method in ("GET", "HEAD") and not is_there else None

    with door(rule) as url:
        code, found, _ = run_command(site.configured(endpoint_url=url), "check", "--write")
        assert code == 0 and "the keys lack s3:ListBucket" in found and "uploaded and deleted" in found
        site.mux(lambda: site.labelled() >= {call.id for call in calls}, endpoint_url=url)
    for call in calls:
        assert site.problems(call) == []
    (complaint,) = site.complaints()
    assert "lack the right s3:ListBucket" in complaint


def test_keys_that_may_not_upload_are_named_and_nothing_is_set_aside(make_site: Make) -> None:
    site = make_site("moto", BOTH, encryption_group="certificates")
    (call,) = site.lab.add_case(Case.ENCRYPTED)
    with door(lambda asked: DENIED if asked.method in ("PUT", "POST") else None) as url:
        config = site.configured(endpoint_url=url)
        code, found, _ = run_command(config, "check", "--write")
        assert code == 1 and "lack the right s3:PutObject" in found
        with Muxer(config, **IMPATIENT) as muxer:
            def attempts() -> list[dict[str, Any]]:
                return [line for line in log_lines(site.log) if "lack the right s3:PutObject" in line["message"]]

            wait_until(lambda: len(attempts()) > 3, SECONDS, "more attempts than are made before one is set aside", site.log)
            assert muxer.stop() == 0
    code, listed, _ = run_command(config, "failed", "--json")
    assert code == 0 and [one["state"] for one in json.loads(listed)] == ["retry"] and site.muxed(call) == []
    site.mux(lambda: site.labelled() >= {call.id})
    assert site.problems(call) == []
