"""``check`` and an S3 store that refuses something: the cause, the option or permission, and the advice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.bucket import ExternalS3
from lab.cases import Case
from lab.lab import Lab
from tests.support import swift
from tests.support.bucket import BUCKET_NAME, MotoBucket
from tests.support.checklist import Checklist, run_check, write_check_config
from tests.support.s3 import S3Server
from tests.support.s3_front import Rule, S3Request, SubstituteResponse, serve_front
from tests.support.s3rver import S3rver
from tests.support.swift import Swift
from tests.support.tiers import spread_variants
from tests.support.tls import HOST, pem_bundle, self_signed

pytestmark = pytest.mark.usefixtures("models_read_once", "no_keys_around")
DENIED = SubstituteResponse(403, "AccessDenied")
FOLDER = f"S3 bucket {BUCKET_NAME}/screens/"


@dataclass
class S3CheckLab:
    """A lab whose one screen file is in a bucket, and a folder for configurations."""

    lab: Lab
    bucket: MotoBucket
    folder: Path

    def run_checks(self, rule: Rule, *arguments: str) -> Checklist:
        """Run `check` with a front to the store that refuses the requests of `rule`."""
        keys = {"s3__access_key_id": self.bucket.key_id, "s3__secret_access_key": self.bucket.secret}
        with serve_front(rule) as url:
            return run_check(write_check_config(self.lab, self.folder, s3__endpoint_url=url, **keys), *arguments)


@pytest.fixture
def site(make_lab: Callable[..., Lab], tmp_path: Path) -> Iterator[S3CheckLab]:
    with MotoBucket() as bucket:
        lab = make_lab()
        (call,) = lab.add_case(Case.PLAIN)
        bucket.take_screen(lab, call)
        before = bucket.list_keys()
        yield S3CheckLab(lab, bucket, tmp_path)
        assert bucket.list_keys() == before


def test_store_that_refuses_nothing(site: S3CheckLab) -> None:
    found = site.run_checks(lambda _: None, "--write")
    assert "uploaded and deleted" in found.line_of(FOLDER).found and found.exit_code == 0
    assert [one.check for one in found.bad_lines if one.check.startswith("S3")] == []


def test_keys_without_the_right_to_list(site: S3CheckLab) -> None:
    def deny_missing(request: S3Request) -> SubstituteResponse | None:
        is_missing = request.path.strip("/").partition("/")[2] not in set(site.bucket.list_keys())
        return DENIED if request.method in ("GET", "HEAD") and is_missing else None

    found = site.run_checks(deny_missing, "--write")
    line = found.line_of(f"S3 rights in {BUCKET_NAME}")
    assert line.status == "warning" and "s3:ListBucket" in line.found and "s3:ListBucket" in line.advice
    assert "uploaded and deleted" in found.line_of(FOLDER).found and found.exit_code == 0


def test_keys_without_read_permission_are_not_reported_as_missing_file(site: S3CheckLab) -> None:
    line = site.run_checks(lambda request: DENIED if request.method in ("GET", "HEAD") else None).line_of(FOLDER)
    assert line.status == "warning" and "or the keys may not read it" in line.found and "s3:GetObject" in line.advice


@pytest.mark.parametrize(
    ("method", "query", "check", "right"),
    spread_variants(
        [
            ("PUT", "", FOLDER, "s3:PutObject"),
            ("POST", "uploads", f"S3 upload in parts to {BUCKET_NAME}", "s3:PutObject"),
            ("DELETE", "uploadId", f"S3 upload in parts to {BUCKET_NAME}", "s3:AbortMultipartUpload"),
        ],
        3,
    ),
)
def test_missing_write_permission_is_named(site: S3CheckLab, method: str, query: str, check: str, right: str) -> None:
    found = site.run_checks(
        lambda request: DENIED if request.method == method and query in request.query else None, "--write"
    )
    line = found.line_of(check)
    assert line.status == "failed" and right in line.found and found.exit_code == 1


@pytest.mark.parametrize(
    ("refusal", "found", "advice"),
    spread_variants(
        [
            (SubstituteResponse(403, "RequestTimeTooSkewed"), "the clock of this machine is wrong", "follow the text"),
            (SubstituteResponse(400, "AuthorizationHeaderMalformed"), "[s3] region", "follow the text"),
            (SubstituteResponse(400, text="Bad Request"), "[s3] endpoint_url", "follow the text"),
            (SubstituteResponse(403, "InvalidAccessKeyId"), "[s3] access_key_id", "S3_SECRET_ACCESS_KEY"),
        ],
        2,
    ),
    ids=["clock", "region", "no store", "keys"],
)
def test_refusal_of_store_is_named(site: S3CheckLab, refusal: SubstituteResponse, found: str, advice: str) -> None:
    checked = site.run_checks(lambda _: refusal)
    line = checked.line_of(FOLDER)
    assert line.status == "failed" and found in line.found and advice in line.advice and checked.exit_code == 1


def test_http_to_a_tls_port(site: S3CheckLab, tmp_path: Path) -> None:
    certificate = self_signed("store", HOST)
    (tmp_path / "ca.pem").write_bytes(pem_bundle(certificate))
    with S3rver(tmp_path / "s3rver", BUCKET_NAME, certificate=certificate) as rver:
        url = rver.url.replace("https", "http")
        keys = {"s3__access_key_id": "S3RVER", "s3__secret_access_key": "S3RVER"}
        line = run_check(write_check_config(site.lab, tmp_path, s3__endpoint_url=url, **keys)).line_of(FOLDER)
    assert line.status == "failed" and "the port speaks TLS: write https:// in [s3] endpoint_url" in line.found


@pytest.mark.parametrize("region", spread_variants(["eu-central-1", "", swift.REGION], 3), ids=["wrong", "empty", "right"])
@pytest.mark.long
def test_swift_region_is_checked(kept_lab: type[Lab], tmp_path: Path, region: str) -> None:
    with Swift(tmp_path / "swift") as running:
        server = S3Server(running.url, swift.KEY, swift.SECRET, region=swift.REGION)
        server.client.create_bucket(Bucket=BUCKET_NAME)
        where = ExternalS3(running.url, swift.KEY, swift.SECRET, BUCKET_NAME, ("screens",), region=swift.REGION)
        with kept_lab(tmp_path / "lab", s3=where) as lab:
            lab.add_case(Case.PLAIN)
            found = run_check(write_check_config(lab, tmp_path, s3__region=region), "--write")
    assert "uploaded and deleted" in found.line_of(FOLDER).found and found.exit_code == 0
    lines = [one for one in found.bad_lines if one.check == f"S3 region of {BUCKET_NAME}"]
    named = [(line.status, line.advice) for line in lines]
    assert named == ([] if region == swift.REGION else [("warning", f"set [s3] region = {swift.REGION}")])
