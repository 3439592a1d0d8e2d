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
from tests.support.apache import apache
from tests.support.daemon import Muxer, wait_until
from tests.support.moto_server import moto_server
from tests.support.readonly import ReadOnlySources
from tests.support.running import configured, labelled, muxed
from tests.support.s3 import BUCKET, KEY, SECRET, Server

from muxer.lab.bucket import ExternalS3
from muxer.lab.build import AddedCall
from muxer.lab.cases import Case
from muxer.lab.dav import ExternalDav
from muxer.lab.lab import Lab
from muxer.lab.switches import Switches

SECONDS = 60
CLEAR = Switches(encryption_group="empty")


class Site:
    """A lab whose media lie behind a store that guards sources."""

    def __init__(self, lab: Lab, store: ReadOnlySources, digests: Callable[[], dict[str, str]], **options: str) -> None:
        self.lab, self.store, self.digests, self.options = lab, store, digests, options


@pytest.fixture(params=["webdav", "s3"])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    with ExitStack() as stack:
        made = on_webdav(stack, tmp_path) if request.param == "webdav" else on_s3(stack, tmp_path)
        # An RWS that leaves files to their owner: what is to be deleted, the muxer deletes itself.
        kept = made.lab.site.media
        monkeypatch.setattr(type(kept), "delete", lambda self, media: None)
        yield made


def on_webdav(stack: ExitStack, folder: Path) -> Site:
    dav = stack.enter_context(apache())
    store = stack.enter_context(ReadOnlySources(dav.url))
    external = ExternalDav(store.url, dav.root, dav.username, dav.password)
    lab = stack.enter_context(Lab(folder / "lab", CLEAR, dav=external))

    def digests() -> dict[str, str]:
        files = {str(path.relative_to(dav.root)): path for path in dav.root.rglob("*") if path.is_file()}
        return digests_of(files, lambda name: files[name].read_bytes(), FileNotFoundError)

    return Site(lab, store, digests)


def on_s3(stack: ExitStack, folder: Path) -> Site:
    url = stack.enter_context(moto_server())
    server = Server(url)
    server.client.create_bucket(Bucket=BUCKET)
    store = stack.enter_context(ReadOnlySources(url))
    lab = stack.enter_context(Lab(folder / "lab", CLEAR, s3=ExternalS3(url, KEY, SECRET, BUCKET, ("calls", "screens"))))

    def digests() -> dict[str, str]:
        return digests_of(server.objects(), server.content, server.client.exceptions.NoSuchKey)

    return Site(lab, store, digests, s3__endpoint_url=store.url)


def digests_of(names: Iterable[str], content: Callable[[str], bytes], gone: type[Exception]) -> dict[str, str]:
    """Return the digests of files by their names, without those that the muxer deletes or renames meanwhile."""
    found = {}
    for name in names:
        with suppress(gone):
            found[name] = hashlib.sha256(content(name)).hexdigest()
    return found


def sources(call: AddedCall) -> set[str]:
    return {f"calls/{call.audio_id}", *(f"screens/{one.media_id}" for one in call.screens)}


def disguised(site: Site, call: AddedCall, source: dict[str, Any]) -> dict[str, Any]:
    """Return a muxed entry that passes a source off as its file."""
    forged = {**source, "mediaId": f"{call.id}_forged_muxed.mp4", "parameters": {"muxed_mediaIds": [call.audio_id]}}
    site.lab.store.add_screen_media(call.id, site.lab.region, forged)
    return forged


def test_a_run_with_a_superseded_file_writes_to_no_source(site: Site) -> None:
    lab = site.lab
    (call,) = lab.add_case(Case.GAPS)
    media = (lab.store.screen(call.id) or {})["mediaFiles"]
    forged = disguised(site, call, media[0])
    lab.store.delete_screen_media(call.id, media[2]["mediaId"])
    before = site.digests()
    config, log = configured(lab, **site.options)
    with Muxer(config) as muxer:
        wait_until(lambda: labelled(lab) >= {call.id}, SECONDS, "the first muxed file", log)
        first = next(one for one in muxed(lab, call.id) if one["mediaId"] != forged["mediaId"])
        lab.store.add_screen_media(call.id, lab.region, media[2])
        stored = f"screens/{first['mediaId']}"
        wait_until(lambda: stored not in site.digests(), SECONDS, "the end of the superseded file", log)
        assert muxer.stop() == 0
    after = site.digests()
    assert {name: after.get(name) for name in before} == before and set(before) == sources(call)
    assert site.store.refused == []
    methods = {method for method, _ in site.store.writes}
    assert methods == ({"PUT", "DELETE", "MOVE"} if "s3__endpoint_url" not in site.options else {"PUT", "DELETE"})
    assert [one["mediaId"] for one in muxed(lab, call.id) if one["mediaId"] != forged["mediaId"]] != [first["mediaId"]]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "MOVE", "COPY", "PROPPATCH", "LOCK", "POST"])
def test_the_store_would_have_noticed(method: str) -> None:
    with ReadOnlySources("http://127.0.0.1:9") as store:
        answer = httpx.request(method, f"{store.url}/screens/agent1_x.mp4", trust_env=False)
        assert answer.status_code == 403
        to = {"Destination": f"{store.url}/screens/agent1_x.mp4"}
        muxed_file = f"{store.url}/screens/x_{'0' * 20}_muxed.mp4"
        assert httpx.request("MOVE", muxed_file, headers=to, trust_env=False).status_code == 403
        assert len(store.refused) == 2
