"""Stored files are checked before they are published, and published files before anything is deleted.

Missing folders, existing files and lost uploads: tests/integration/test_webdav.py, test_s3.py and
test_s3_responses.py.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from lab.build import AddedCall
from lab.cases import CallPlan, ScreenPart
from lab.lab import Lab
from lab.store import ScriptedFailure
from muxer.app.assembly import build_services
from muxer.config import load_config
from muxer.config.schema import WebdavOptions
from muxer.errors import MuxerError, ServiceUnavailable, StoredByOtherMuxer
from muxer.gir import publish
from muxer.gir.targets import MuxTarget, TargetOptions
from muxer.journal.journal import Journal
from muxer.media.ffmpeg import MediaTools
from muxer.net.circuit_breaker import CircuitBreaker
from muxer.pipeline.job import Job
from muxer.pipeline.workspace import Workspace
from muxer.polling.poller import Poller
from muxer.storage.base import MediaLocation, ObjectInfo, parse_descriptor
from muxer.storage.webdav import WebdavStorage
from muxer.system.process import Runner
from tests.support.calls import add_short, muxed_entries, stored_muxed, write_config
from tests.support.fake_sink import FakeSink
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
TWO_SCREENS = CallPlan("two-screens", 8, (ScreenPart(0, 4), ScreenPart(4, 4)))
CONTENT = b"a muxed file"


# ---- one upload ---------------------------------------------------------------------------------------


def create_storage(lab: Lab, tmp_path: Path) -> WebdavStorage:
    user = lab.site.dav_account
    (tmp_path / "notes").mkdir()
    options = WebdavOptions(username=user.username, password=user.password, trusted_ca=False)
    return WebdavStorage(options, "test", tmp_path / "notes", threading.Event())


def muxed_location(lab: Lab) -> MediaLocation:
    return parse_descriptor({"storage": "webDAV", "path": "a.mp4", "data": {"storagePath": f"{lab.dav_url}/screens/"}})


def write_source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    return path


def stored_screens(lab: Lab) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (lab.site.media.folder / "screens").iterdir()}


def run_before_request(patch: pytest.MonkeyPatch, lab: Lab, request: str, number: int, do: Callable[[], object]) -> None:
    """Call `do` immediately before the lab responds to the ``number``-th matching request."""
    seen, real = iter(range(1, 1000)), lab.store.take_failure

    def take_failure(service: str, method: str, path: str) -> ScriptedFailure | None:
        if re.search(request, f"{service} {method} {path}") and next(seen) == number:
            do()
        return real(service, method, path)

    patch.setattr(lab.store, "take_failure", take_failure)


@pytest.mark.parametrize("kept", [CONTENT[:-1], b"", CONTENT + b"x"], ids=["too little", "nothing of it", "too much"])
def test_upload_of_wrong_length_is_not_renamed(
    make_lab: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bytes
) -> None:
    lab = make_lab()
    part = lab.site.media.folder / "screens" / "part-test-a.mp4"
    run_before_request(monkeypatch, lab, "dav PROPFIND .*/part-", 1, lambda: part.write_bytes(kept))
    with pytest.raises(ServiceUnavailable, match=rf"holds {len(kept)} bytes after an upload of {len(CONTENT)}"):
        create_storage(lab, tmp_path).upload_file(write_source(tmp_path), muxed_location(lab), lambda: True)
    assert stored_screens(lab) == {}
    assert "MOVE" not in [request.method for request in lab.store.served_requests]


def test_file_changed_by_rename_is_not_accepted(make_lab: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = make_lab()
    final = lab.site.media.folder / "screens" / "a.mp4"
    run_before_request(monkeypatch, lab, "dav PROPFIND .*/a.mp4$", 1, lambda: final.write_bytes(CONTENT[1:]))
    with pytest.raises(ServiceUnavailable, match="after an upload of"):
        create_storage(lab, tmp_path).upload_file(write_source(tmp_path), muxed_location(lab), lambda: True)


@pytest.mark.parametrize(
    ("status", "advice"),
    [(409, "make it on the server"), (423, "locked"), (507, "make room"), (500, "500"), (503, "503")],
)
def test_refused_rename_leaves_no_file(make_lab: Make, tmp_path: Path, status: int, advice: str) -> None:
    lab = make_lab()
    lab.store.fail_next("dav", "MOVE", "screens", status)
    store = create_storage(lab, tmp_path)
    with pytest.raises(ServiceUnavailable, match=advice):
        store.upload_file(write_source(tmp_path), muxed_location(lab), lambda: True)
    assert stored_screens(lab) == {} and not list((tmp_path / "notes").iterdir())
    assert store.upload_file(write_source(tmp_path), muxed_location(lab), lambda: True).length == len(CONTENT)
    assert stored_screens(lab) == {"a.mp4": CONTENT}


def test_irreplaceable_file_is_not_accepted_as_ours(make_lab: Make, tmp_path: Path) -> None:
    """A file of the same length is not accepted either."""
    lab = make_lab()
    other = lab.site.media.folder / "screens" / "a.mp4"
    other.write_bytes(CONTENT.upper())
    lab.store.fail_next("dav", "MOVE", "screens", 412, times=2)
    with pytest.raises(ServiceUnavailable, match=r"lets nothing replace a\.mp4"):
        create_storage(lab, tmp_path).upload_file(write_source(tmp_path), muxed_location(lab), lambda: True)
    assert stored_screens(lab) == {"a.mp4": CONTENT.upper()}


# ---- one recording ------------------------------------------------------------------------------------


class SequentialJobs:
    """The jobs of a lab, run one after the other in this process."""

    def __init__(self, lab: Lab) -> None:
        self._config = load_config(write_config(lab), {}, {}).config
        runner, stop = Runner(), threading.Event()
        workspace = Workspace(self._config.processing.temp_dir, "single", 1)
        self._services = build_services(self._config, MediaTools("ffmpeg", "ffprobe"), runner, workspace, stop)
        self._job = Job(self._services, TargetOptions(label=True, delete_superseded=True))

    def run_poll(self) -> None:
        """Run one poll and its jobs."""
        self._services.superseded.recover_deletions()
        found: list[MuxTarget] = []
        take = FakeSink(lambda one: not found.append(one))
        Poller(self._config, self._services.rws, Journal(None), CircuitBreaker(), take).poll()
        for target in found:
            self._job.run(target)


@pytest.fixture
def late(make_lab: Make, monkeypatch: pytest.MonkeyPatch) -> tuple[Lab, AddedCall, SequentialJobs]:
    """Return a lab with a call that was muxed before its second screen file existed, and the runner of its jobs."""
    monkeypatch.setattr(publish, "READ_BACK_DELAYS", (0.0,))
    lab = make_lab()
    (call,) = add_short(lab, [1], plan=TWO_SCREENS)
    second = (lab.store.get_screen(call.id) or {})["mediaFiles"][1]
    lab.store.delete_screen_media(call.id, second["mediaId"])
    jobs = SequentialJobs(lab)
    jobs.run_poll()
    lab.store.add_screen_media(call.id, lab.region, second)
    return lab, call, jobs


def published_ids(lab: Lab, call: AddedCall) -> list[str]:
    return [entry["mediaId"] for entry in muxed_entries(lab, call.id)]


def test_superseded_file_is_deleted_after_new_file_is_published_and_verified(
    late: tuple[Lab, AddedCall, SequentialJobs],
) -> None:
    lab, call, jobs = late
    [old], earlier = published_ids(lab, call), len(lab.store.served_requests)
    jobs.run_poll()
    [new] = published_ids(lab, call)
    assert stored_muxed(lab) == [new] != [old]
    seen = [f"{one.service} {one.method} {one.path}" for one in lab.store.served_requests[earlier:] if one.status < 400]
    expected = [
        *(f"dav {method} .*/part-.*{new}" for method in ("PUT", "PROPFIND", "MOVE")),
        f"dav PROPFIND .*/{new}",
        *("rws POST .*screen-recordings$", f"rws GET .*screen-recordings/{call.id}$", f"dav PROPFIND .*/{new}"),
        f"rws DELETE .*{old}",
    ]
    rest = iter(seen)
    for step in expected:
        assert any(re.fullmatch(step, one) for one in rest), (step, seen)
    assert not [one for one in seen if "DELETE" in one and old not in one]


@pytest.mark.parametrize("trouble", spread_variants(["full", "locked", "mangled", "replaced", "refused", "forgotten"], 3))
def test_nothing_is_deleted_when_publication_fails(
    late: tuple[Lab, AddedCall, SequentialJobs], monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    lab, call, jobs = late
    old, deletes, posts = published_ids(lab, call), lab.store.media_deletes, len(lab.store.screen_posts)
    folder = lab.site.media.folder / "screens"

    def corrupt_files(pattern: str) -> None:
        for path in folder.glob(pattern):
            if path.name not in old:
                path.write_bytes(path.read_bytes()[::-1] + b"x")

    match trouble:
        case "full":
            lab.store.fail_next("dav", "PUT", "screens", 507, times=9)
        case "locked":
            lab.store.fail_next("dav", "MOVE", "screens", 423, times=9)
        case "mangled":
            run_before_request(monkeypatch, lab, "dav PROPFIND .*/part-", 1, lambda: corrupt_files("part-*_muxed*"))
        case "replaced":
            run_before_request(
                monkeypatch, lab, "dav PROPFIND .*/(?!part-)[^/]*bin$", 2, lambda: corrupt_files("*_muxed*.bin")
            )
        case "refused":
            lab.store.fail_next("rws", "POST", "/screen-recordings", 500, times=9)
        case "forgotten":
            lab.store.fail_next("rws", "POST", "/screen-recordings", 200, times=9, body=b'{"statusCode": 0}')
    with pytest.raises(StoredByOtherMuxer if trouble == "replaced" else MuxerError):
        jobs.run_poll()
    assert (published_ids(lab, call), lab.store.media_deletes, len(lab.store.screen_posts)) == (old, deletes, posts)
    assert old[0] in stored_muxed(lab)
    assert not [name for name in stored_muxed(lab) if name.startswith("part-")]


def test_unpublished_file_is_remembered_when_sources_change_during_remux(
    make_lab: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [1], plan=TWO_SCREENS)
    second = (lab.store.get_screen(call.id) or {})["mediaFiles"][1]
    lab.store.delete_screen_media(call.id, second["mediaId"])
    jobs, upload = SequentialJobs(lab), WebdavStorage._upload_checked

    def add_screen_late(self: WebdavStorage, path: Path, place: MediaLocation) -> ObjectInfo:
        lab.store.add_screen_media(call.id, lab.region, second)
        return upload(self, path, place)

    with monkeypatch.context() as dying:
        dying.setattr(publish.Publisher, "publish_entry", lambda *_, **__: (_ for _ in ()).throw(ServiceUnavailable("down")))
        with pytest.raises(ServiceUnavailable):
            jobs.run_poll()
    with monkeypatch.context() as growing:
        growing.setattr(WebdavStorage, "_upload_checked", add_screen_late)
        with suppress(StoredByOtherMuxer):
            jobs.run_poll()
    for _ in range(2):
        jobs.run_poll()
    assert len(published_ids(lab, call)) == 1 and stored_muxed(lab) == published_ids(lab, call)
