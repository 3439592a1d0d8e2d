"""The lab's RWS, called with requests: every endpoint and every switch of docs/gir-api.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from lab.keys import Recipient, load_recipients
from lab.rws import RwsApplication
from lab.service import LabServer
from lab.site import CALLS, SCREENS, LabSite, MediaRoot
from lab.switches import Switches


class LabClient:
    """A client that keeps cookies, sends the CSRF token it last saw, and follows links on the server's own host."""

    def __init__(self, site: LabSite) -> None:
        self.site = site
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.auth = (site.rws_account.username, site.rws_account.password)
        self.ops = f"/api/v2/ops/contact-centers/{site.ccid}"
        self.internal = f"/internal-api/contact-centers/{site.ccid}/screen-recordings"

    def get(self, path: str) -> requests.Response:
        response = self.session.get(self.site.rws_url + path, timeout=10)
        if "X-CSRF-HEADER" in response.headers:
            self.session.headers[response.headers["X-CSRF-HEADER"]] = response.headers["X-CSRF-TOKEN"]
        return response

    def post(self, path: str, body: Any) -> requests.Response:
        return self.session.post(self.site.rws_url + path, json=body, timeout=10)

    def delete(self, path: str) -> requests.Response:
        return self.session.delete(self.site.rws_url + path, timeout=10)

    def with_token(self) -> LabClient:
        self.get("/api/v2/diagnostics/version")
        return self

    def find_ids(self, query: str) -> list[str]:
        return [recording["id"] for recording in self.get(f"{self.ops}/recordings?{query}").json()["recordings"]]

    def read_pages(self, query: str) -> list[list[str]]:
        pages, path = [], f"{self.ops}/recordings?{query}"
        while path:
            response = self.get(path)
            assert response.status_code == 200, response.text
            content = response.json()
            pages.append([recording["id"] for recording in content["recordings"]])
            link = urlsplit(content.get("paging", {}).get("next") or content.get("nextUri") or content.get("next") or "")
            path = f"{link.path}?{link.query}" if link.path else ""
        return pages


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipient, ...]:
    return load_recipients(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def site(tmp_path: Path, keys: tuple[Recipient, ...]) -> Iterator[LabSite]:
    for collection in (CALLS, SCREENS):
        (tmp_path / collection).mkdir()
    site = LabSite(MediaRoot("http://storage.invalid/dav", tmp_path), keys)
    server = LabServer(RwsApplication(site), site.store)
    site.rws_url = server.url
    server.start()
    yield site
    server.stop()


@pytest.fixture
def client(site: LabSite) -> Iterator[LabClient]:
    client = LabClient(site).with_token()
    yield client
    client.session.close()


def a_call(id: str = "C1", second: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "region": "r1",
        "startTime": f"2024-01-02T10:00:{second:02d}.000+0000",
        "stopTime": f"2024-01-02T10:01:{second:02d}.000+0000",
        "mediaFiles": [],
        "eventHistory": [],
        **more,
    }


def a_media(id: str, **more: Any) -> dict[str, Any]:
    return {"mediaId": id, "type": "video/mp4", "parameters": {"region": "r1"}, **more}


def status_codes(response: requests.Response) -> tuple[int, int]:
    return response.status_code, response.json()["statusCode"]


# access


def test_version_needs_no_credentials(site: LabSite) -> None:
    response = requests.get(f"{site.rws_url}/api/v2/diagnostics/version", timeout=10)
    assert response.json() == {"statusCode": 0, "version": "8.5.205.40"}


def test_version_can_be_invalid(site: LabSite, client: LabClient) -> None:
    site.switches = Switches(version="")
    response = client.get("/api/v2/diagnostics/version")
    assert response.status_code == 200
    with pytest.raises(ValueError):
        response.json()


@pytest.mark.parametrize("auth", [None, ("ops", "wrong"), ("nobody", "ops%lab")])
def test_everything_else_needs_credentials(site: LabSite, client: LabClient, auth: tuple[str, str] | None) -> None:
    for path in (f"{client.ops}/recordings?limit=1", f"{client.internal}?ids=a", f"{client.internal}/a"):
        response = requests.get(site.rws_url + path, auth=auth, timeout=10)
        assert status_codes(response) == (401, 20)
        assert "X-CSRF-TOKEN" in response.headers


def test_another_contact_center_and_unknown_paths_are_not_found(client: LabClient) -> None:
    assert status_codes(client.get("/api/v2/ops/contact-centers/other/recordings?limit=1")) == (404, 6)
    assert status_codes(client.get("/api/v2/nothing")) == (404, 6)
    assert status_codes(client.delete(f"{client.ops}/recordings")) == (405, 2)


def test_connections_are_kept_alive_and_responses_have_lengths(client: LabClient) -> None:
    response = client.get("/api/v2/diagnostics/version")
    assert response.raw.version == 11
    assert int(response.headers["Content-Length"]) == len(response.content)


# CSRF


def test_a_write_without_the_token_is_refused(site: LabSite, client: LabClient) -> None:
    stranger = LabClient(site)
    response = stranger.post(f"{client.ops}/recording-label-definitions", {"name": "x"})
    assert status_codes(response) == (403, 3)
    assert response.json()["statusMessage"] == "Missing or invalid Csrf token"
    assert stranger.with_token().post(f"{client.ops}/recording-label-definitions", {"name": "x"}).status_code == 201


def test_a_token_belongs_to_its_session(site: LabSite, client: LabClient) -> None:
    thief = LabClient(site).with_token()
    thief.session.headers.update({k: v for k, v in client.session.headers.items() if k.startswith("X-LAB")})
    assert status_codes(thief.post(f"{client.ops}/recording-label-definitions", {"name": "x"})) == (403, 3)


def test_a_token_can_expire(site: LabSite, client: LabClient) -> None:
    site.switches = Switches(csrf_expires_after=2)
    path = f"{client.ops}/recording-label-definitions"
    assert [client.post(path, {"name": str(i)}).status_code for i in range(3)] == [201, 201, 403]
    assert client.with_token().post(path, {"name": "2"}).status_code == 201


def test_csrf_can_be_off(site: LabSite) -> None:
    site.switches = Switches(csrf=False)
    client = LabClient(site)
    assert "X-CSRF-HEADER" not in client.get("/api/v2/diagnostics/version").headers
    assert client.post(f"{client.ops}/recording-label-definitions", {"name": "x"}).status_code == 201


# call recordings


def test_one_recording(site: LabSite, client: LabClient) -> None:
    site.store.add_call(a_call())
    assert client.get(f"{client.ops}/recordings/C1").json() == {"statusCode": 0, "recording": a_call()}
    assert status_codes(client.get(f"{client.ops}/recordings/C2")) == (404, 6)


def test_a_query_needs_a_parameter_and_valid_numbers(client: LabClient) -> None:
    assert status_codes(client.get(f"{client.ops}/recordings")) == (400, 1)
    for query in ("limit=0", "limit=x", "startTime=yesterday", "endTime=-5", "limit=1&offset=z"):
        assert status_codes(client.get(f"{client.ops}/recordings?{query}")) == (400, 2), query


def test_the_window_is_started_from_and_ended_until(site: LabSite, client: LabClient) -> None:
    for second in (0, 10, 20):
        site.store.add_call(a_call(f"C{second}", second))
    start, stop = 1704189600000, 1704189660000
    assert client.find_ids(f"startTime={start + 10_000}&endTime={stop + 10_000}") == ["C10"]
    assert client.find_ids(f"startTime={start}") == ["C0", "C10", "C20"]
    assert client.find_ids(f"startTime={start + 1}&endTime={stop + 9_999}") == []


def test_another_region_is_invisible(site: LabSite, client: LabClient) -> None:
    site.store.add_call(a_call(region="r2"))
    site.store.add_screen_media("C1", "r2", a_media("m"))
    assert client.find_ids("limit=5") == []
    assert status_codes(client.get(f"{client.ops}/recordings/C1")) == (404, 6)
    assert status_codes(client.get(f"{client.internal}/C1")) == (404, 6)


@pytest.mark.parametrize(("form", "path"), [("paging", ("paging", "next")), ("nextUri", ("nextUri",)), ("next", ("next",))])
def test_plain_pages(site: LabSite, client: LabClient, form: str, path: tuple[str, ...]) -> None:
    site.switches = Switches(link_form=form)
    for second in range(5):
        site.store.add_call(a_call(f"C{second}", second))
    assert client.read_pages("limit=2&startTime=1") == [["C0", "C1"], ["C2", "C3"], ["C4"]]
    link: Any = client.get(f"{client.ops}/recordings?limit=2").json()
    for key in path:
        link = link[key]
    assert urlsplit(link).hostname == "rws-node-2.lab.invalid"
    site.switches = Switches(link_form=form, foreign_links=False)
    assert site.rws_url in client.get(f"{client.ops}/recordings?limit=2").text


def test_scan_with_all_deviations(site: LabSite, client: LabClient) -> None:
    expected = {f"C{second}" for second in range(7)}
    for id in expected:
        site.store.add_call(a_call(id))
    pages = client.read_pages("limit=3&scanAndScroll=true")
    ids = [id for page in pages for id in page]
    assert pages[0] == [] and set(ids) == expected and len(ids) > len(expected)
    assert all(len(page) <= 3 for page in pages)
    site.switches = Switches(scroll_empty_first_page=False, scroll_repeats_ids=False)
    pages = client.read_pages("limit=3&scanAndScroll=true")
    assert [len(page) for page in pages] == [3, 3, 1]
    assert {id for page in pages for id in page} == expected
    assert len(client.read_pages("limit=1&scanAndScroll=true")) == 7


def test_following_a_scroll_link_twice_gives_the_same_page(site: LabSite, client: LabClient) -> None:
    site.store.add_call(a_call())
    link = client.get(f"{client.ops}/recordings?scanAndScroll=true").json()["paging"]["next"]
    path = f"{urlsplit(link).path}?{urlsplit(link).query}"
    assert "scrollId=" in path
    assert client.get(path).json() == client.get(path).json()
    assert status_codes(client.get(f"{client.ops}/recordings?scrollId=unknown")) == (404, 6)


def test_a_scroll_expires_once(site: LabSite, client: LabClient) -> None:
    site.switches = Switches(scroll_expires_once=True)
    site.store.add_call(a_call())
    with pytest.raises(AssertionError, match="expired"):
        client.read_pages("scanAndScroll=true")
    assert client.read_pages("scanAndScroll=true") == [[], ["C1"]]


# screen recordings


def test_screens_one_by_one_and_in_bulk(site: LabSite, client: LabClient) -> None:
    site.store.add_screen_media("C1", "r1", a_media("a"))
    site.store.add_screen_media("C2", "r1", a_media("b"))
    one = client.get(f"{client.internal}/C1").json()
    assert one == {"statusCode": 0, "recording": {"id": "C1", "region": "r1", "mediaFiles": [a_media("a")]}}
    assert status_codes(client.get(f"{client.internal}/C3")) == (404, 6)
    response = client.get(f"{client.internal}?ids=C1,C3,C2")
    assert status_codes(response) == (200, 7)
    assert [recording["id"] for recording in response.json()["recordings"]] == ["C1", "C2"]
    assert status_codes(client.get(f"{client.internal}?ids=C1,C2")) == (200, 0)
    assert status_codes(client.get(client.internal)) == (400, 1)
    site.switches = Switches(partial_code=False)
    assert status_codes(client.get(f"{client.internal}?ids=C1,C3")) == (200, 0)


@pytest.mark.parametrize(("status", "code"), [(404, 6), (400, 2), (405, 2)])
def test_bulk_can_be_missing(site: LabSite, client: LabClient, status: int, code: int) -> None:
    site.switches = Switches(bulk=False, bulk_refusal=status)
    site.store.add_screen_media("C1", "r1", a_media("a"))
    assert status_codes(client.get(f"{client.internal}?ids=C1")) == (status, code)
    assert client.get(f"{client.internal}/C1").status_code == 200


@pytest.mark.parametrize(("replacing", "kept"), [(False, ["a", "b"]), (True, ["b"])])
def test_a_post_merges_or_replaces(site: LabSite, client: LabClient, replacing: bool, kept: list[str]) -> None:
    site.switches = Switches(replacing_post=replacing)
    site.store.add_screen_media("C1", "r1", a_media("a"))
    place = {"storage": "webDAV", "path": "b", "data": {"storagePath": "http://storage.invalid/dav/screens/"}}
    body = {"id": "C1", "region": "r1", "mediaFiles": [a_media("b", mediaDescriptor=place)]}
    for _ in range(2):
        assert status_codes(client.post(client.internal, body)) == (200, 0)
    files = client.get(f"{client.internal}/C1").json()["recording"]["mediaFiles"]
    assert [media["mediaId"] for media in files] == kept
    assert files[-1] == a_media("b", originalMediaDescriptor=place)
    assert site.store.screen_posts == [body, body]


@pytest.mark.parametrize(
    "wrong",
    [
        {"region": None},
        {"region": "r2"},
        {"id": ""},
        {"mediaFiles": []},
        {"mediaFiles": [{"type": "video/mp4"}]},
        {"mediaFiles": [a_media("b", originalMediaDescriptor={})]},
    ],
)
def test_a_bad_post_is_refused(site: LabSite, client: LabClient, wrong: dict[str, Any]) -> None:
    body = {"id": "C1", "region": "r1", "mediaFiles": [a_media("b")], **wrong}
    assert status_codes(client.post(client.internal, {k: v for k, v in body.items() if v is not None})) == (400, 10)
    assert site.store.get_screen("C1") is None and site.store.screen_posts == []


def test_a_write_must_be_json(site: LabSite, client: LabClient) -> None:
    url = site.rws_url + client.internal
    assert status_codes(client.session.post(url, data=b"{}", timeout=10)) == (415, 2)
    declared = {"Content-Type": "application/json"}
    for body in (b"", b"[]", b"{"):
        assert status_codes(client.session.post(url, data=body, headers=declared, timeout=10)) == (400, 10)


def test_delete_removes_metadata_and_file(site: LabSite, client: LabClient) -> None:
    path = site.media.folder / SCREENS / "a b#.mp4"
    path.write_bytes(b"x")
    site.store.add_screen_media(
        "C1", "r1", a_media(path.name, originalMediaDescriptor=site.media.screen_descriptor(path.name))
    )
    assert status_codes(client.delete(f"{client.internal}/C1/content/other")) == (404, 6)
    assert path.exists()
    assert status_codes(client.delete(f"{client.internal}/C1/content/a%20b%23.mp4")) == (200, 0)
    assert not path.exists()
    assert client.get(f"{client.internal}/C1").json()["recording"]["mediaFiles"] == []
    assert site.store.media_deletes == [("C1", path.name)]
    assert status_codes(client.delete(f"{client.internal}/C1/content/a%20b%23.mp4")) == (404, 6)


# labels


def test_a_label_is_added_once(site: LabSite, client: LabClient) -> None:
    site.store.add_call(a_call())
    path = f"{client.ops}/recordings/C1/labels"
    assert status_codes(client.post(path, {"name": "screenRecording"})) == (201, 0)
    assert status_codes(client.post(path, {"name": "screenRecording"})) == (409, 18)
    assert status_codes(client.post(path, {})) == (400, 1)
    assert status_codes(client.post(f"{client.ops}/recordings/C9/labels", {"name": "screenRecording"})) == (404, 6)
    assert client.get(f"{client.ops}/recordings/C1").json()["recording"]["labels"] == [{"name": "screenRecording"}]
    assert site.store.label_posts == [("C1", "screenRecording")]


@pytest.mark.parametrize(("status", "code"), [(404, 6), (400, 2)])
def test_a_label_needs_its_definition(site: LabSite, client: LabClient, status: int, code: int) -> None:
    site.switches = Switches(label_definition=False, label_missing_answer=status)
    site.store.add_call(a_call())
    label, definition = f"{client.ops}/recordings/C1/labels", f"{client.ops}/recording-label-definitions"
    response = client.post(label, {"name": "screenRecording"})
    assert status_codes(response) == (status, code)
    assert ("definition" in response.json()["statusMessage"]) == (status == 404)
    full = {"name": "screenRecording", "displayName": "Screen", "description": "has a screen"}
    assert [status_codes(client.post(definition, full)) for _ in range(2)] == [(201, 0), (409, 18)]
    assert status_codes(client.post(label, {"name": "screenRecording"})) == (201, 0)


def test_the_built_in_definition_exists(client: LabClient) -> None:
    response = client.post(f"{client.ops}/recording-label-definitions", {"name": "screenRecording"})
    assert status_codes(response) == (409, 18)


def test_labels_can_be_forbidden(site: LabSite, client: LabClient) -> None:
    site.switches = Switches(label_forbidden=True)
    site.store.add_call(a_call())
    assert status_codes(client.post(f"{client.ops}/recordings/C1/labels", {"name": "screenRecording"})) == (403, 5)
    assert site.store.label_posts == []


# settings, failures


def test_the_encryption_settings(site: LabSite, client: LabClient, keys: tuple[Recipient, ...]) -> None:
    path = f"{client.ops}/settings/screen-recording-encryption"
    content = client.get(path).json()
    assert content["key"] == "name"
    settings = {one["name"]: one["value"] for one in content["settings"]}
    assert set(settings) == {f"{kind}-{n}" for kind in ("certificatealias", "certificate") for n in (1, 2)}
    assert settings["certificatealias-2"] == keys[1].alias and settings["certificatealias-1"].startswith("rcs_lab:1:")
    assert settings["certificate-1"].startswith("-----BEGIN CERTIFICATE-----\r\n")
    site.switches = Switches(encryption_group="empty")
    assert client.get(path).json()["settings"] == []
    site.switches = Switches(encryption_group="missing")
    assert status_codes(client.get(path)) == (404, 6)


def test_failures_can_hide_in_the_envelope(site: LabSite, client: LabClient) -> None:
    site.switches = Switches(error_in_envelope=True)
    assert status_codes(client.get(f"{client.ops}/recordings")) == (200, 1)
    assert status_codes(client.get(f"{client.internal}/C9")) == (200, 6)
    assert status_codes(requests.get(site.rws_url + f"{client.internal}/C9", timeout=10)) == (200, 20)
