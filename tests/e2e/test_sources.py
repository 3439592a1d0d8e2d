"""Sources are never written or deleted: stores that refuse it see no attempt, in a whole run with a superseded file."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from lab.bucket import ExternalS3
from lab.build import AddedCall
from lab.cases import Case
from lab.dav import ExternalDav
from lab.lab import Lab
from lab.switches import Switches
from tests.support.apache import run_apache
from tests.support.daemon import MuxerProcess, wait_until
from tests.support.moto_server import moto_server
from tests.support.muxer_runs import labelled_ids, muxed_entries, write_config
from tests.support.read_only_sources import ReadOnlySources
from tests.support.s3 import BUCKET, KEY, SECRET, S3Server
from tests.support.tiers import spread_variants

TIMEOUT_SECONDS = 60
CLEAR_SWITCHES = Switches(encryption_group="empty")


class GuardedLab:
    """A lab whose media are in a store that refuses changes of sources."""

    def __init__(self, lab: Lab, store: ReadOnlySources, digests: Callable[[], dict[str, str]], **options: str) -> None:
        self.lab, self.store, self.digests, self.options = lab, store, digests, options


@pytest.fixture(params=spread_variants(["webdav", "s3"], 2))
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[GuardedLab]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with ExitStack() as stack:
        guarded = on_webdav(stack, tmp_path) if request.param == "webdav" else on_s3(stack, tmp_path)
        # An RWS that does not delete files: the muxer deletes them itself.
        kept = guarded.lab.site.media
        monkeypatch.setattr(type(kept), "delete_file", lambda self, media: None)
        yield guarded


def on_webdav(stack: ExitStack, folder: Path) -> GuardedLab:
    dav = stack.enter_context(run_apache())
    store = stack.enter_context(ReadOnlySources(dav.url))
    external = ExternalDav(store.url, dav.root, dav.username, dav.password)
    lab = stack.enter_context(Lab(folder / "lab", CLEAR_SWITCHES, dav=external))

    def read_digests() -> dict[str, str]:
        files = {str(path.relative_to(dav.root)): path for path in dav.root.rglob("*") if path.is_file()}
        return source_digests(files, lambda name: files[name].read_bytes(), FileNotFoundError)

    return GuardedLab(lab, store, read_digests)


def on_s3(stack: ExitStack, folder: Path) -> GuardedLab:
    url = stack.enter_context(moto_server())
    server = S3Server(url)
    server.client.create_bucket(Bucket=BUCKET)
    store = stack.enter_context(ReadOnlySources(url))
    lab = stack.enter_context(
        Lab(folder / "lab", CLEAR_SWITCHES, s3=ExternalS3(url, KEY, SECRET, BUCKET, ("calls", "screens")))
    )

    def read_digests() -> dict[str, str]:
        return source_digests(server.list_objects(), server.read_object, server.client.exceptions.NoSuchKey)

    return GuardedLab(lab, store, read_digests, s3__endpoint_url=store.url)


def source_digests(names: Iterable[str], content: Callable[[str], bytes], gone: type[Exception]) -> dict[str, str]:
    """Return the digests of files by their names, without those that the muxer deletes or renames meanwhile."""
    found = {}
    for name in names:
        with suppress(gone):
            found[name] = hashlib.sha256(content(name)).hexdigest()
    return found


def source_names(call: AddedCall) -> set[str]:
    return {f"calls/{call.audio_id}", *(f"screens/{one.media_id}" for one in call.screens)}


def disguise_source(site: GuardedLab, call: AddedCall, source: dict[str, Any]) -> dict[str, Any]:
    """Return a muxed entry that names a source as its file."""
    forged = {**source, "mediaId": f"{call.id}_forged_muxed.mp4", "parameters": {"muxed_mediaIds": [call.audio_id]}}
    site.lab.store.add_screen_media(call.id, site.lab.region, forged)
    return forged


def test_a_run_with_a_superseded_file_writes_to_no_source(site: GuardedLab) -> None:
    lab = site.lab
    (call,) = lab.add_case(Case.GAPS)
    media = (lab.store.get_screen(call.id) or {})["mediaFiles"]
    forged = disguise_source(site, call, media[0])
    lab.store.delete_screen_media(call.id, media[2]["mediaId"])
    before = site.digests()
    config, log = write_config(lab, **site.options)
    with MuxerProcess(config) as muxer:
        wait_until(lambda: labelled_ids(lab) >= {call.id}, TIMEOUT_SECONDS, "the first muxed file", log)
        first = next(entry for entry in muxed_entries(lab, call.id) if entry["mediaId"] != forged["mediaId"])
        lab.store.add_screen_media(call.id, lab.region, media[2])
        stored = f"screens/{first['mediaId']}"
        wait_until(lambda: stored not in site.digests(), TIMEOUT_SECONDS, "the end of the superseded file", log)
        assert muxer.stop() == 0
    after = site.digests()
    assert {name: after.get(name) for name in before} == before and set(before) == source_names(call)
    assert site.store.refused == []
    methods = {method for method, _ in site.store.writes}
    assert methods == ({"PUT", "DELETE", "MOVE"} if "s3__endpoint_url" not in site.options else {"PUT", "DELETE"})
    assert [entry["mediaId"] for entry in muxed_entries(lab, call.id) if entry["mediaId"] != forged["mediaId"]] != [
        first["mediaId"]
    ]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "MOVE", "COPY", "PROPPATCH", "LOCK", "POST"])
def test_guarded_store_refuses_writes(method: str) -> None:
    with ReadOnlySources("http://127.0.0.1:9") as store:
        response = httpx.request(method, f"{store.url}/screens/agent1_x.mp4", trust_env=False)
        assert response.status_code == 403
        to = {"Destination": f"{store.url}/screens/agent1_x.mp4"}
        muxed_file = f"{store.url}/screens/x_{'0' * 20}_muxed.mp4"
        assert httpx.request("MOVE", muxed_file, headers=to, trust_env=False).status_code == 403
        assert len(store.refused) == 2
