"""Regular audits of a running muxer: quiet when all is well, a warning and metrics when it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests

from lab.lab import Lab
from muxer.status.last_audit import AUDIT_FILE, read_last_audit
from tests.support.calls import add_short, log_messages, log_of, muxed_entries, write_config
from tests.support.commands import run_subprocess
from tests.support.daemon import MuxerProcess, log_lines, run_muxer, wait_until
from tests.support.ports import free_port
from tests.support.tiers import spread_variants

Make = Callable[..., Lab]
AGE = timedelta(minutes=30)
TIMEOUT_SECONDS = 60
REGULAR = {"audit__every": "7 days", "processing__window_past": "15", "audit__rate": "1000"}


@pytest.fixture
def lab(make_lab: Make) -> Lab:
    lab = make_lab()
    add_short(lab, range(3), AGE)
    done = run_muxer(write_config(lab, "migration", advanced__call_recording_query_string="startTime=0"))
    assert done.process.returncode == 0, done.err
    return lab


def read_page(url: str) -> str:
    return requests.get(url, timeout=TIMEOUT_SECONDS).text


def run_until_audited(config: Path) -> dict[str, Any]:
    """Run the muxer until an audit has ended. Returns the fields of its log line."""
    with MuxerProcess(config) as muxer:
        wait_until(lambda: read_last_audit(config.parent / "temp").has_ended, TIMEOUT_SECONDS, "an audit", log_of(config))
        wait_until(lambda: any("audit" in one for one in log_messages(log_of(config))), TIMEOUT_SECONDS, "its line")
        assert muxer.stop() == 0
    [line] = [
        line for line in log_lines(log_of(config)) if "the audit is" in line["message"] or "audit done" in line["message"]
    ]
    return line


def test_a_complete_audit_is_one_quiet_line_and_is_not_repeated(lab: Lab) -> None:
    config = write_config(lab, **REGULAR)
    line = run_until_audited(config)
    assert (line["level"], line["calls"], line["files"], line["findings"]) == ("info", 3, 3, 0)
    _, out, _ = run_subprocess(config, "status")
    assert "last audit: " in out and "3 calls, 3 muxed files: complete" in out
    before = (config.parent / "temp" / AUDIT_FILE).read_text()
    with MuxerProcess(config) as muxer:
        wait_until(lambda: log_messages(log_of(config)).count("poll done") >= 2, TIMEOUT_SECONDS, "a second run")
        assert muxer.stop() == 0
    assert (config.parent / "temp" / AUDIT_FILE).read_text() == before


def test_an_interval_without_calls_is_one_quiet_line(make_lab: Make) -> None:
    line = run_until_audited(write_config(make_lab(), **REGULAR))
    assert (line["level"], line["calls"], line["findings"]) == ("info", 0, 0)


def test_findings_are_a_warning_with_the_command_and_in_metrics_status_and_page(lab: Lab) -> None:
    call, port = add_short(lab, [7], AGE)[0], free_port()
    [other, *_] = lab.store.find_calls(lambda one: one["id"] != call.id)
    [entry] = muxed_entries(lab, other)
    (lab.site.media.folder / "screens" / entry["mediaId"]).unlink()
    config = write_config(lab, **REGULAR, monitoring__http_port=str(port))
    line = run_until_audited(config)
    assert line["level"] == "warning" and line["findings"] == 2
    assert "1 x no muxed file is published" in line["message"] and "recording-muxer audit --from" in line["message"]
    command = line["message"].partition("`recording-muxer audit ")[2].partition("`")[0].split()
    code, out, _ = run_subprocess(config, "audit", "--json", *command)
    assert code == 4 and json.loads(out)["findings"] == {"missing": 1, "file_missing": 1}
    with MuxerProcess(config) as muxer:
        wait_until(lambda: "poll done" in log_messages(log_of(config))[-3:], TIMEOUT_SECONDS, "a poll")
        metrics = read_page(f"http://127.0.0.1:{port}/metrics")
        page = read_page(f"http://127.0.0.1:{port}/")
        assert muxer.stop() == 0
    assert 'muxer_audit_findings{kind="missing"} 1.0' in metrics and "muxer_audit_complete 0.0" in metrics
    assert "Last audit" in page and "2 findings" in page


@pytest.mark.parametrize(("since", "findings"), spread_variants([("", {"not_encrypted": 1}), ("2100-01-01", {})], 2))
def test_what_is_known_of_earlier_times_counts_in_regular_audits(lab: Lab, since: str, findings: dict[str, int]) -> None:
    """A call was muxed unencrypted, while the certificates of the site were valid."""
    [recording, *_] = lab.store.find_calls(lambda one: True)
    [entry] = muxed_entries(lab, recording)
    lab.store.delete_screen_media(recording, entry["mediaId"])
    clear = {name: value for name, value in entry.items() if name not in ("pkcs7", "certAlias")}
    lab.store.add_screen_media(recording, lab.region, clear)
    config = write_config(lab, **REGULAR, audit__encrypted_since=since)
    run_until_audited(config)
    assert read_last_audit(config.parent / "temp").findings == findings


@pytest.mark.long
def test_former_certificates_count_in_regular_audits(lab: Lab, tmp_path: Path) -> None:
    """The site has changed its certificates; only the muxed files show those of earlier times."""
    former = tmp_path / "former.pem"
    former.write_text("".join(one.certificate_file.read_text() for one in lab.change_certificates()))
    config = write_config(lab, **REGULAR, audit__former_certificates=str(former))
    assert run_until_audited(config)["findings"] == 0


@pytest.mark.long
def test_a_failed_audit_is_continued_by_the_next_process(lab: Lab) -> None:
    config = write_config(lab, **REGULAR, audit__hours="", webdav__password="wrong")
    with MuxerProcess(config) as muxer:
        wait_until(
            lambda: any("the audit failed; it goes on" in one for one in log_messages(log_of(config))), TIMEOUT_SECONDS, "it"
        )
        assert muxer.stop() == 0
    planned = read_last_audit(config.parent / "temp")
    assert planned.planned_end and not planned.has_ended
    log_of(config).unlink()
    config = write_config(lab, **REGULAR)
    assert run_until_audited(config)["calls"] == 3
    assert read_last_audit(config.parent / "temp").end == planned.planned_end
