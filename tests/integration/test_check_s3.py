"""``check`` and an S3 store that refuses something: what is wrong, which option or right, and what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support import swift
from tests.support.bucket import NAME, Bucket
from tests.support.checking import Checklist, configured, run
from tests.support.s3 import Server
from tests.support.s3_door import Asked, Refusal, Rule, door
from tests.support.s3rver import S3rver
from tests.support.swift import Swift
from tests.support.tls import HOST, pem, self_signed

from muxer.lab.bucket import ExternalS3
from muxer.lab.cases import Case
from muxer.lab.lab import Lab

pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")
DENIED = Refusal(403, "AccessDenied")
FOLDER = f"S3 bucket {NAME}/screens/"


@dataclass
class Site:
    """A lab whose one screen file is in a bucket, and a folder for configurations."""

    lab: Lab
    bucket: Bucket
    folder: Path

    def check(self, rule: Rule, *arguments: str) -> Checklist:
        """Run `check` with a door to the store that refuses what `rule` says."""
        keys = {"s3__access_key_id": self.bucket.key_id, "s3__secret_access_key": self.bucket.secret}
        with door(rule) as url:
            return run(configured(self.lab, self.folder, s3__endpoint_url=url, **keys), *arguments)


@pytest.fixture
def site(make_lab: Callable[..., Lab], tmp_path: Path) -> Iterator[Site]:
    with Bucket() as bucket:
        lab = make_lab()
        (call,) = lab.add_case(Case.PLAIN)
        bucket.take_screen(lab, call)
        before = bucket.keys()
        yield Site(lab, bucket, tmp_path)
        assert bucket.keys() == before


def test_a_store_that_refuses_nothing(site: Site) -> None:
    found = site.check(lambda _: None, "--write")
    assert "uploaded and deleted" in found.of(FOLDER).found and found.exit_code == 0
    assert [one.check for one in found.bad if one.check.startswith("S3")] == []


def test_keys_without_the_right_to_list(site: Site) -> None:
    def rule(asked: Asked) -> Refusal | None:
        is_missing = asked.path.strip("/").partition("/")[2] not in set(site.bucket.keys())
        return DENIED if asked.method in ("GET", "HEAD") and is_missing else None

    found = site.check(rule, "--write")
    line = found.of(f"S3 rights in {NAME}")
    assert line.status == "warning" and "s3:ListBucket" in line.found and "s3:ListBucket" in line.advice
    assert "uploaded and deleted" in found.of(FOLDER).found and found.exit_code == 0


def test_keys_that_may_not_read_are_not_told_that_the_file_is_missing(site: Site) -> None:
    line = site.check(lambda asked: DENIED if asked.method in ("GET", "HEAD") else None).of(FOLDER)
    assert line.status == "warning" and "or the keys may not read it" in line.found and "s3:GetObject" in line.advice


@pytest.mark.parametrize(
    ("method", "query", "check", "right"),
    [
        ("PUT", "", FOLDER, "s3:PutObject"),
        ("POST", "uploads", f"S3 upload in parts to {NAME}", "s3:PutObject"),
        ("DELETE", "uploadId", f"S3 upload in parts to {NAME}", "s3:AbortMultipartUpload"),
    ],
)
def test_a_right_that_lacks_for_writing(site: Site, method: str, query: str, check: str, right: str) -> None:
    found = site.check(lambda asked: DENIED if asked.method == method and query in asked.query else None, "--write")
    line = found.of(check)
    assert line.status == "failed" and right in line.found and found.exit_code == 1


@pytest.mark.parametrize(
    ("refusal", "found", "advice"),
    [
        (Refusal(403, "RequestTimeTooSkewed"), "the clock of this machine is wrong", "do what the text says"),
        (Refusal(400, "AuthorizationHeaderMalformed"), "[s3] region", "do what the text says"),
        (Refusal(400, text="Bad Request"), "[s3] endpoint_url", "do what the text says"),
        (Refusal(403, "InvalidAccessKeyId"), "[s3] access_key_id", "S3_SECRET_ACCESS_KEY"),
    ],
    ids=["clock", "region", "no store", "keys"],
)
def test_what_the_store_refuses_is_named(site: Site, refusal: Refusal, found: str, advice: str) -> None:
    checked = site.check(lambda _: refusal)
    line = checked.of(FOLDER)
    assert line.status == "failed" and found in line.found and advice in line.advice and checked.exit_code == 1


def test_http_to_a_tls_port(site: Site, tmp_path: Path) -> None:
    certificate = self_signed("store", HOST)
    (tmp_path / "ca.pem").write_bytes(pem(certificate))
    with S3rver(tmp_path / "s3rver", NAME, certificate=certificate) as rver:
        url = rver.url.replace("https", "http")
        keys = {"s3__access_key_id": "S3RVER", "s3__secret_access_key": "S3RVER"}
        line = run(configured(site.lab, tmp_path, s3__endpoint_url=url, **keys)).of(FOLDER)
    assert line.status == "failed" and "the port speaks TLS: write https:// in [s3] endpoint_url" in line.found


@pytest.mark.parametrize("region", ["", "eu-central-1", swift.REGION], ids=["empty", "wrong", "right"])
def test_the_region_of_swift(kept_lab: type[Lab], tmp_path: Path, region: str) -> None:
    with Swift(tmp_path / "swift") as running:
        server = Server(running.url, swift.KEY, swift.SECRET, region=swift.REGION)
        server.client.create_bucket(Bucket=NAME)
        where = ExternalS3(running.url, swift.KEY, swift.SECRET, NAME, ("screens",), region=swift.REGION)
        with kept_lab(tmp_path / "lab", s3=where) as lab:
            lab.add_case(Case.PLAIN)
            found = run(configured(lab, tmp_path, s3__region=region), "--write")
    assert "uploaded and deleted" in found.of(FOLDER).found and found.exit_code == 0
    lines = [one for one in found.bad if one.check == f"S3 region of {NAME}"]
    named = [(one.status, one.advice) for one in lines]
    assert named == ([] if region == swift.REGION else [("warning", f"set [s3] region = {swift.REGION}")])
