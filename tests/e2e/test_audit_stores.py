"""The audit on Apache as the Genesys guide sets it up, and on S3: findings that are made in the store itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lab.bucket import ExternalS3
from lab.lab import Lab
from lab.switches import Switches
from tests.support.apache import GENESYS_FOLDER, run_apache
from tests.support.calls import add_short, muxed_entries, write_config
from tests.support.commands import run_subprocess
from tests.support.daemon import run_muxer
from tests.support.moto_server import moto_server
from tests.support.s3 import BUCKET, KEY, SECRET, S3Server
from tests.support.s3_front import S3Request, SubstituteResponse, serve_front
from tests.support.tiers import spread_variants
from tests.support.tls import HOST

AGE = timedelta(days=3)
CLEAR = Switches(encryption_group="empty")


@dataclass
class Site:
    """A lab, and functions that change a file below `screens` in its store: write (None: delete)."""

    lab: Lab
    write: Callable[[str, bytes | None], None]
    read: Callable[[str], bytes]
    # The location of the folder, as a finding names it.
    folder: str


@contextmanager
def on_apache(kept_lab: type[Lab], folder: Path) -> Iterator[Site]:
    with run_apache(GENESYS_FOLDER) as dav, kept_lab(folder / "lab", CLEAR, dav=dav) as lab:
        place = dav.root / "screens"

        def write(name: str, content: bytes | None) -> None:
            if content is None:
                (place / name).unlink()
            else:
                (place / name).write_bytes(content)

        yield Site(lab, write, lambda name: (place / name).read_bytes(), f"{lab.dav_url}/screens")


@contextmanager
def on_s3(_: type[Lab], folder: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        url = stack.enter_context(moto_server(HOST))
        server = S3Server(url, KEY, SECRET, None, "us-east-1")
        server.client.create_bucket(Bucket=BUCKET)
        external = ExternalS3(url, KEY, SECRET, BUCKET, ("calls", "screens"), None, "us-east-1")
        lab = stack.enter_context(Lab(folder / "lab", CLEAR, s3=external))

        def write(name: str, content: bytes | None) -> None:
            if content is None:
                server.client.delete_object(Bucket=BUCKET, Key=f"screens/{name}")
            else:
                server.client.put_object(Bucket=BUCKET, Key=f"screens/{name}", Body=content)

        yield Site(lab, write, lambda name: server.read_object(f"screens/{name}"), f"{BUCKET}/screens")


STORES = {"apache of the Genesys guide": on_apache, "s3": on_s3}


@pytest.fixture(params=spread_variants(STORES, 2))
def site(request: pytest.FixtureRequest, kept_lab: type[Lab], tmp_path: Path) -> Iterator[Site]:
    with STORES[request.param](kept_lab, tmp_path) as site:
        yield site


def run_audit(config: Path, *arguments: str) -> dict[str, Any]:
    start = (datetime.now(UTC) - AGE - timedelta(hours=1)).isoformat()
    code, out, err = run_subprocess(config, "audit", "--json", "--rate", "1000", "--from", start, *arguments)
    assert out, err
    report: dict[str, Any] = json.loads(out)
    assert code == (4 if report["open_findings"] else 0), (out, err)
    return report


def test_keys_that_may_not_list_the_bucket_leave_orphans_unchecked_and_nothing_else(
    kept_lab: type[Lab], tmp_path: Path
) -> None:
    def deny_listing(asked: S3Request) -> SubstituteResponse | None:
        return SubstituteResponse(403, "AccessDenied") if asked.is_of_bucket else None

    with on_s3(kept_lab, tmp_path) as site, serve_front(deny_listing) as front:
        add_short(site.lab, range(2), AGE)
        done = run_muxer(write_config(site.lab, "migration", advanced__call_recording_query_string="startTime=0"))
        assert done.process.returncode == 0, done.err
        config = write_config(site.lab, s3__endpoint_url=front)
        assert run_audit(config)["list"] == []
        [finding] = run_audit(config, "--orphans")["list"]
    assert (finding["kind"], finding["file"]) == ("unchecked", f"{site.folder}/")
    assert "it cannot be listed" in finding["detail"] and "s3:ListBucket" in finding["detail"]


def test_what_is_wrong_in_the_store_is_found_and_repaired(site: Site) -> None:
    lab = site.lab
    gone, short, changed, sourceless = calls = add_short(lab, range(4), AGE)
    done = run_muxer(write_config(lab, "migration", advanced__call_recording_query_string="startTime=0"))
    assert done.process.returncode == 0, done.err
    config = write_config(lab)
    assert run_audit(config, "--deep")["list"] == []
    names = {call.id: muxed_entries(lab, call.id)[0]["mediaId"] for call in calls}
    site.write(names[gone.id], None)
    site.write(names[short.id], site.read(names[short.id])[:-1])
    content = bytearray(site.read(names[changed.id]))
    content[70] ^= 1  # In the index: a changed byte of the media may be accepted by a decoder, and then shows nothing.
    site.write(names[changed.id], bytes(content))
    site.write(sourceless.screens[0].media_id, None)
    stray = names[gone.id].replace("_muxed", "-7_muxed")
    site.write(stray, b"x" * 100)
    expected = {
        ("file_missing", names[gone.id]),
        ("wrong_length", names[short.id]),
        ("damaged", names[changed.id]),
        ("source_missing", sourceless.screens[0].media_id),
        ("orphan", f"{site.folder}/{stray}"),
    }
    assert {(one["kind"], one["file"]) for one in run_audit(config, "--deep", "--orphans")["list"]} == expected
    repaired = run_audit(config, "--deep", "--repair", "--yes")["list"]
    assert {(one["kind"], one["repair"]) for one in repaired if one["repair"]} == {
        ("file_missing", "repaired"),
        ("wrong_length", "repaired"),
        ("damaged", "repaired"),
    }
    assert {(one["kind"], one["file"]) for one in run_audit(config, "--deep")["list"]} == {
        ("source_missing", sourceless.screens[0].media_id),
    }
