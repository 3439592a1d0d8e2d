"""Locations of media: the descriptors of gir-api, sections 3 to 5."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muxer.errors import MetadataError
from muxer.storage.base import MediaLocation, parse_descriptor, quote_url

Json = dict[str, Any]


def webdav_descriptor(path: str, base: str | None = None) -> Json:
    return {"storage": "webDAV", "path": path} | ({} if base is None else {"data": {"storagePath": base}})


@pytest.mark.parametrize(
    ("descriptor", "url"),
    [
        (webdav_descriptor("http://dav/recordings/C1.mp3"), "http://dav/recordings/C1.mp3"),
        (webdav_descriptor("scr1.mp4", "http://dav/recordings/screen/"), "http://dav/recordings/screen/scr1.mp4"),
        (webdav_descriptor("scr1.mp4", "http://dav/recordings/screen"), "http://dav/recordings/screen/scr1.mp4"),
        (webdav_descriptor("/2024/01/scr 1.mp4", "https://dav:8443/r"), "https://dav:8443/r/2024/01/scr%201.mp4"),
        (webdav_descriptor("a#b?c%.mp4", "http://dav/r/"), "http://dav/r/a%23b%3Fc%25.mp4"),
        (webdav_descriptor("http://dav/a%20b/ü 1.mp3"), "http://dav/a%20b/%C3%BC%201.mp3"),
        (webdav_descriptor("http://dav/r/a%23b.mp3"), "http://dav/r/a%23b.mp3"),
        (webdav_descriptor("http://dav/r/50%.mp3"), "http://dav/r/50%25.mp3"),
        ({"storage": "WEBDAV", "path": "HTTP://dav/r/x.mp3"}, "http://dav/r/x.mp3"),
    ],
)
def test_the_address_of_a_webdav_file(descriptor: Json, url: str) -> None:
    assert parse_descriptor(descriptor).url == url


def test_credentials_in_an_address_are_removed() -> None:
    assert parse_descriptor(webdav_descriptor("http://user:pa55@dav/r/x.mp3")).url == "http://dav/r/x.mp3"
    assert quote_url("https://user:p@ss@dav/r/") == "https://dav/r/"


def test_an_s3_file_is_bucket_and_key() -> None:
    location = parse_descriptor({"storage": "awsS3", "path": "a/b/C1.mp3", "data": {"bucket": "rec"}})
    assert (location.storage, location.bucket, location.folder, location.name) == ("awsS3", "rec", "a/b/", "C1.mp3")


def test_each_bucket_and_each_webdav_server_is_a_separate_service() -> None:
    buckets = [
        parse_descriptor({"storage": "awsS3", "path": "k", "data": {"bucket": name}}).service_name for name in ("old", "new")
    ]
    assert buckets == ["S3 bucket old", "S3 bucket new"]
    assert parse_descriptor(webdav_descriptor("s.mp4", "http://user@dav:81/r/")).service_name == "WebDAV http://dav:81"


def test_a_sibling_is_in_the_same_folder_or_bucket_and_prefix() -> None:
    assert parse_descriptor(webdav_descriptor("s.mp4", "http://dav/r/")).sibling("m.mp4").media_descriptor == {
        "storage": "webDAV",
        "path": "m.mp4",
        "data": {"storagePath": "http://dav/r/"},
    }
    s3 = parse_descriptor({"storage": "awsS3", "path": "p/s.mp4", "data": {"bucket": "b"}})
    assert s3.sibling("m.mp4").media_descriptor == {"storage": "awsS3", "path": "p/m.mp4", "data": {"bucket": "b"}}


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1, max_size=12)


@given(NAMES.filter(lambda name: name not in (".", "..")), st.sampled_from(["webDAV", "awsS3"]))
def test_a_published_location_is_found_by_its_descriptor(name: str, storage: str) -> None:
    location = MediaLocation(
        storage, "http://dav/r/" if storage == "webDAV" else "k/", name, "" if storage == "webDAV" else "b"
    )
    assert parse_descriptor(location.media_descriptor) == location


@pytest.mark.parametrize(
    "descriptor",
    [
        {},
        {"storage": "webDAV"},
        {"storage": "webDAV", "path": 7},
        {"storage": "ftp", "path": "x"},
        {"storage": None, "path": "http://dav/x.mp3"},
        webdav_descriptor("x.mp4"),
        webdav_descriptor("x.mp4", ""),
        webdav_descriptor("x.mp4", "ftp://dav/"),
        webdav_descriptor("x.mp4", "/local/folder"),
        webdav_descriptor("file:///etc/passwd", ""),
        webdav_descriptor("http://dav:99999/x.mp3"),
        webdav_descriptor("http:///x.mp3"),
        {"storage": "webDAV", "path": "x.mp4", "data": "http://dav/"},
    ],
)
def test_a_descriptor_without_a_location_is_refused(descriptor: Json) -> None:
    with pytest.raises(MetadataError):
        parse_descriptor(descriptor)


@pytest.mark.parametrize(
    "descriptor",
    [
        webdav_descriptor("../x.mp4", "http://dav/r/"),
        webdav_descriptor("a/../../x.mp4", "http://dav/r/"),
        webdav_descriptor("..", "http://dav/r/"),
        webdav_descriptor("/", "http://dav/r/"),
        webdav_descriptor("http://dav/r/../x.mp3"),
        webdav_descriptor("http://dav/r/.."),
        webdav_descriptor("http://dav/r/%2e%2e"),
        webdav_descriptor("x.mp4", "http://dav/r/../"),
    ],
)
def test_a_path_outside_its_folder_is_refused(descriptor: Json) -> None:
    with pytest.raises(MetadataError):
        parse_descriptor(descriptor)


@pytest.mark.parametrize(
    "descriptor",
    [
        webdav_descriptor("http://dav/recordings/"),
        webdav_descriptor("http://dav"),
        {"storage": "awsS3", "path": "k/", "data": {"bucket": "b"}},
    ],
)
def test_a_folder_is_not_accepted_as_a_file(descriptor: Json) -> None:
    with pytest.raises(MetadataError):
        parse_descriptor(descriptor)


def test_an_s3_file_without_a_bucket_is_refused() -> None:
    with pytest.raises(MetadataError):
        parse_descriptor({"storage": "awsS3", "path": "k/x.mp3"})
