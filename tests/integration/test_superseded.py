"""Superseded files whose deletion was interrupted by a kill or by an unavailable storage."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import cast

import pytest

from lab.lab import Lab
from lab.site import MediaRoot
from muxer.config.schema import WebdavOptions
from muxer.errors import MetadataError, ServiceUnavailable
from muxer.gir.models import MediaFile
from muxer.gir.muxed_names import is_muxed_file, muxed_name
from muxer.gir.rws import RwsClient
from muxer.gir.session import ServiceAccount, ServiceSession
from muxer.pipeline import superseded as module
from muxer.pipeline.superseded import SupersededCleaner
from muxer.storage.base import parse_descriptor
from muxer.storage.stores import Stores
from muxer.storage.webdav import WebdavStorage
from tests.support.lighttpd import IGNORING_CASE, run_lighttpd

Make = Callable[..., Lab]
NAME, OLD, NEW = "C1", "C1_old_muxed.mp4", "C1_new_muxed.mp4"


@pytest.fixture
def lab(make_lab: Make, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Return a lab whose RWS does not delete files, with a superseded muxed file and its replacement."""
    monkeypatch.setattr(MediaRoot, "delete_file", lambda *_: None)
    lab = make_lab()
    for name, sources in ((OLD, ["a", "b"]), (NEW, ["a", "b", "c"])):
        stored_path(lab, name).write_bytes(b"media")
        lab.store.add_screen_media(NAME, lab.region, muxed_entry(lab, name, sources))
    return lab


def stored_path(lab: Lab, name: str) -> Path:
    return lab.site.media.folder / "screens" / name


def muxed_entry(lab: Lab, name: str, sources: list[str]) -> dict:
    made_of = {"parameters": {"muxed_mediaIds": sources}, "originalMediaDescriptor": lab.site.media.screen_descriptor(name)}
    return {"mediaId": name, "type": "video/mp4", **made_of}


def create_superseded(lab: Lab, folder: Path) -> SupersededCleaner:
    user, stop = lab.site.rws_account, threading.Event()
    rws = RwsClient(
        ServiceSession(ServiceAccount("RWS", lab.rws_url, user.username, user.password, False, 30), stop), lab.ccid
    )
    dav = WebdavOptions(username=lab.site.dav_account.username, password=lab.site.dav_account.password, trusted_ca=False)
    for name in ("uploading", "deleting"):
        (folder / name).mkdir(exist_ok=True)
    return SupersededCleaner(
        rws, Stores({"webDAV": WebdavStorage(dav, "test", folder / "uploading", stop)}), folder / "deleting"
    )


def leave_record(lab: Lab, folder: Path, sources: list[str]) -> None:
    """Write the record that a killed process leaves."""
    location = asdict(parse_descriptor(lab.site.media.screen_descriptor(OLD)))
    (folder / "deleting").mkdir(exist_ok=True)
    content = {"recording": NAME, "media": OLD, "place": location, "sources": sources}
    (folder / "deleting" / "note.json").write_text(json.dumps(content))


def list_records(folder: Path) -> list[Path]:
    return list((folder / "deleting").iterdir())


def test_entry_and_file_are_deleted_and_no_record_stays(lab: Lab, tmp_path: Path) -> None:
    create_superseded(lab, tmp_path).delete_file(NAME, MediaFile.from_json(muxed_entry(lab, OLD, ["a", "b"])))
    assert lab.store.media_deletes == [(NAME, OLD)] and not stored_path(lab, OLD).exists() and stored_path(lab, NEW).exists()
    assert list_records(tmp_path) == []


def test_record_whose_entry_is_deleted_deletes_the_file(lab: Lab, tmp_path: Path) -> None:
    lab.store.delete_screen_media(NAME, OLD)
    leave_record(lab, tmp_path, ["a", "b"])
    create_superseded(lab, tmp_path).recover_deletions()
    assert not stored_path(lab, OLD).exists() and stored_path(lab, NEW).exists() and list_records(tmp_path) == []


def test_a_record_whose_entry_exists_is_dropped(lab: Lab, tmp_path: Path) -> None:
    leave_record(lab, tmp_path, ["a", "b"])
    create_superseded(lab, tmp_path).recover_deletions()
    assert stored_path(lab, OLD).exists() and list_records(tmp_path) == []


def test_a_file_whose_publication_failed_stays_until_a_fuller_one_is_published(lab: Lab, tmp_path: Path) -> None:
    deleting, location = create_superseded(lab, tmp_path), parse_descriptor(lab.site.media.screen_descriptor(OLD))
    for name in (OLD, NEW):
        lab.store.delete_screen_media(NAME, name)
    lab.store.add_screen_media(NAME, lab.region, muxed_entry(lab, "another_muxed.mp4", ["x"]))
    with pytest.raises(ServiceUnavailable), deleting.track_unpublished(NAME, OLD, ["a", "b"], location):
        raise ServiceUnavailable("RWS is down")
    deleting.recover_deletions()
    assert stored_path(lab, OLD).exists() and len(list_records(tmp_path)) == 1
    lab.store.add_screen_media(NAME, lab.region, muxed_entry(lab, NEW, ["a", "b", "c"]))
    deleting.recover_deletions()
    assert not stored_path(lab, OLD).exists() and stored_path(lab, NEW).exists() and list_records(tmp_path) == []


def test_a_file_that_is_published_in_the_end_stays(lab: Lab, tmp_path: Path) -> None:
    deleting, location = create_superseded(lab, tmp_path), parse_descriptor(lab.site.media.screen_descriptor(OLD))
    with pytest.raises(ServiceUnavailable), deleting.track_unpublished(NAME, OLD, ["a", "b"], location):
        raise ServiceUnavailable("RWS is down")
    with deleting.track_unpublished(NAME, OLD, ["a", "b"], location):
        pass
    assert stored_path(lab, OLD).exists() and list_records(tmp_path) == []


def test_a_file_that_stays_unpublished_is_reported_after_a_week(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lab.store.delete_screen_media(NAME, OLD)
    deleting, location = create_superseded(lab, tmp_path), parse_descriptor(lab.site.media.screen_descriptor(OLD))
    with pytest.raises(ServiceUnavailable), deleting.track_unpublished(NAME, OLD, ["d"], location):
        raise ServiceUnavailable("RWS is down")
    monkeypatch.setattr(module, "MAX_RECORD_AGE_SECONDS", -1.0)
    deleting.recover_deletions()
    assert f"{OLD} may still be stored" in caplog.text and stored_path(lab, OLD).exists() and list_records(tmp_path) == []


@pytest.mark.parametrize("sources", [["a", "b", "x"], ["a", "b", "c"]])
def test_file_without_fuller_replacement_is_never_deleted(lab: Lab, tmp_path: Path, sources: list[str]) -> None:
    lab.store.delete_screen_media(NAME, OLD)
    leave_record(lab, tmp_path, sources)
    create_superseded(lab, tmp_path).recover_deletions()
    assert stored_path(lab, OLD).exists() and list_records(tmp_path) == []


@pytest.mark.parametrize(("by", "gone"), [(NEW, True), ("another", False)])
def test_a_file_of_the_same_sources_is_deleted_only_when_the_named_one_exists(
    lab: Lab, tmp_path: Path, by: str, gone: bool
) -> None:
    deleting = create_superseded(lab, tmp_path)
    lab.store.fail_next("dav", "DELETE", OLD, 408, times=1)
    deleting.delete_file(NAME, MediaFile.from_json(muxed_entry(lab, OLD, ["a", "b", "c"])), by)
    deleting.recover_deletions()
    assert stored_path(lab, OLD).exists() != gone and list_records(tmp_path) == []


def test_a_file_is_left_to_a_later_poll_while_its_storage_is_down(
    lab: Lab, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab.store.fail_next("dav", "DELETE", OLD, 408, times=2)
    deleting = create_superseded(lab, tmp_path)
    deleting.delete_file(NAME, MediaFile.from_json(muxed_entry(lab, OLD, ["a", "b"])))
    assert lab.store.media_deletes == [(NAME, OLD)] and stored_path(lab, OLD).exists() and len(list_records(tmp_path)) == 1
    with caplog.at_level(logging.WARNING):
        deleting.recover_deletions()
    assert "left in its storage for now" in caplog.text and stored_path(lab, OLD).exists()
    deleting.recover_deletions()
    assert not stored_path(lab, OLD).exists() and list_records(tmp_path) == []


def test_deletion_refused_by_rws_is_an_error_and_deletes_no_file(lab: Lab, tmp_path: Path) -> None:
    lab.store.fail_next("rws", "DELETE", OLD, 503)
    deleting = create_superseded(lab, tmp_path)
    with pytest.raises(ServiceUnavailable):
        deleting.delete_file(NAME, MediaFile.from_json(muxed_entry(lab, OLD, ["a", "b"])))
    deleting.recover_deletions()
    assert stored_path(lab, OLD).exists() and list_records(tmp_path) == []


def test_record_is_kept_while_rws_is_unavailable(lab: Lab, tmp_path: Path) -> None:
    lab.store.delete_screen_media(NAME, OLD)
    leave_record(lab, tmp_path, ["a", "b"])
    lab.store.fail_next("rws", "GET", NAME, 400, body=b'{"statusCode": 2}')
    deleting = create_superseded(lab, tmp_path)
    deleting.recover_deletions()
    assert stored_path(lab, OLD).exists() and len(list_records(tmp_path)) == 1
    deleting.recover_deletions()
    assert not stored_path(lab, OLD).exists() and list_records(tmp_path) == []


def test_a_file_with_a_name_of_an_earlier_version_stays_where_case_is_ignored(tmp_path: Path) -> None:
    """It may belong to a recording whose id differs only in case. A file with a name of this version is deleted."""
    earlier = f"GIR_0001_{hashlib.sha256(b'a' + bytes(1) + b'b').hexdigest()[:20]}_muxed.mp4"
    for more, kept in (("", False), (IGNORING_CASE, True)):
        with run_lighttpd(more) as server:
            folder = server.root / "screens"
            options = WebdavOptions(username=server.username, password=server.password, trusted_ca=False)
            (tmp_path / "uploading").mkdir(exist_ok=True)
            storage = WebdavStorage(options, "test", tmp_path / "uploading", threading.Event())
            rws = FakeRws()
            deleting = SupersededCleaner(cast(RwsClient, rws), Stores({"webDAV": storage}), tmp_path / f"deleting-{kept}")
            (tmp_path / f"deleting-{kept}").mkdir()
            for name in (earlier, muxed_name("GIR_0001", ["a", "b"])):
                (folder / (name.lower() if kept else name)).write_bytes(b"media")
                descriptor = {"storage": "webDAV", "path": name, "data": {"storagePath": f"{server.url}/screens"}}
                parameters = {"parameters": {"muxed_mediaIds": ["a", "b"]}, "originalMediaDescriptor": descriptor}
                media = MediaFile.from_json({"mediaId": name, "type": "video/mp4", **parameters})
                if kept and name == earlier:
                    with pytest.raises(MetadataError, match="ignores case"):
                        deleting.delete_file("GIR_0001", media)
                else:
                    deleting.delete_file("GIR_0001", media)
            assert [path.name for path in folder.iterdir()] == ([earlier.lower()] if kept else [])
            assert len(rws.deleted) == (1 if kept else 2)


@pytest.mark.parametrize("form", ["another mediaId", "blank spans"])
def test_file_with_earlier_form_of_name_stays(tmp_path: Path, form: str) -> None:
    made_of = hashlib.sha256(b"a" + bytes(1) + b"b").hexdigest()[:20]
    name = f"gir_0001_{made_of}_muxed.mp4" if form == "another mediaId" else f"gir_0001_p{made_of}{'0' * 8}_muxed.mp4"
    media_id = muxed_name("gir_0001", ["a", "b"]) if form == "another mediaId" else name
    with run_lighttpd(IGNORING_CASE) as server:
        victim = server.root / "screens" / name.lower()
        victim.write_bytes(b"media")
        options = WebdavOptions(username=server.username, password=server.password, trusted_ca=False)
        for folder in ("uploading", "deleting"):
            (tmp_path / folder).mkdir()
        storage = WebdavStorage(options, "test", tmp_path / "uploading", threading.Event())
        deleting = SupersededCleaner(cast(RwsClient, FakeRws()), Stores({"webDAV": storage}), tmp_path / "deleting")
        descriptor = {"storage": "webDAV", "path": name, "data": {"storagePath": f"{server.url}/screens"}}
        parameters = {"parameters": {"muxed_mediaIds": ["a", "b"]}, "originalMediaDescriptor": descriptor}
        media = MediaFile.from_json({"mediaId": media_id, "type": "video/mp4", **parameters})
        assert is_muxed_file(media, "gir_0001")
        with pytest.raises(MetadataError, match="ignores case"):
            deleting.delete_file("gir_0001", media)
        assert victim.exists()


class FakeRws:
    """Records which entries are deleted."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def delete_media(self, recording_id: str, media_id: str) -> None:
        self.deleted.append(media_id)
