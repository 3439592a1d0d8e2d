"""The monitoring port of the real muxer on the lab: its metrics match RWS, its health follows the services."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from muxer.monitoring.metrics import MuxerCollector
from tests.support.daemon import PYTHON, MuxerProcess, run_muxer, wait_until
from tests.support.monitoring import HOST, create_certificate, parse_samples, readiness_reasons, send_request
from tests.support.muxer_runs import labelled_ids, muxed_entries, write_config
from tests.support.populated_sources import populated_fleet_sources
from tests.support.ports import free_port
from tests.support.requirements import require_program

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 60
RULES = Path(__file__).resolve().parents[1] / "promtool" / "alerts_test.yml"
DOCS = RULES.parents[2] / "docs"


def run_promtool(*arguments: object, text: str = "") -> subprocess.CompletedProcess[str]:
    program = require_program("promtool")
    return subprocess.run(
        [program, *map(str, arguments)], input=text, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )


def is_answering(port: int, path: str = "/livez") -> bool:
    try:
        return send_request(port, path).status == 200
    except OSError:
        return False


def test_metrics_match_rws_and_health_follows_services(make_lab: Make) -> None:
    """promtool accepts the metrics of a real run, and a client that hangs does not delay the stop. One run of
    the muxer for all of this, with a poll that fails and the delay after it."""
    lab, port = make_lab(), free_port()
    calls = [call for case in (Case.GAPS, Case.ENCRYPTED) for call in lab.add_case(case)]
    config, log = write_config(lab, monitoring__http_port=str(port), htcc__rws_timeout="30")
    with MuxerProcess(config) as muxer:
        wait_until(lambda: is_answering(port, "/readyz"), TIMEOUT_SECONDS, "a muxer that is ready", log)
        wait_until(lambda: {call.id for call in calls} <= labelled_ids(lab), TIMEOUT_SECONDS, "the labels", log)
        found = _settled_metrics(port, len(calls))
        files = [entry for call in calls for entry in muxed_entries(lab, call.id)]
        assert found['muxer_targets_total{outcome="muxed"}'] == len(files) == len(calls)
        assert found['muxer_results_total{method="copy"}'] + found['muxer_results_total{method="re-encode"}'] == len(files)
        length = sum(int(file["duration"]) for file in files) / 1000
        assert found["muxer_muxed_seconds_total"] == pytest.approx(length, abs=0.1)
        stored = [value for name, value in found.items() if name.startswith('muxer_moved_bytes_total{direction="stored"')]
        assert sum(stored) == sum(int(file["size"]) for file in files)
        assert found['muxer_journal_targets{state="done"}'] == len(files)
        assert found['muxer_last_poll_recordings{kind="found"}'] == len(calls)
        assert found['muxer_step_duration_seconds_count{step="publish"}'] == len(files)
        assert found["muxer_oldest_unmuxed_age_seconds"] == 0 and found["muxer_ready"] == 1
        assert any(name.startswith('muxer_certificate_expiry_timestamp_seconds{kind="recipient"') for name in found)
        checked = run_promtool("check", "metrics", text=send_request(port, "/metrics").body)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")

        lab.store.fail_next("rws", "GET", "/", 503, times=3)
        wait_until(lambda: readiness_reasons(port)[0] == 503, TIMEOUT_SECONDS, "the outage", log)
        assert any(one.startswith("RWS is unavailable since ") for one in readiness_reasons(port)[1])
        assert (
            is_answering(port) and parse_samples(send_request(port, "/metrics").body)['muxer_service_up{service="RWS"}'] == 0
        )
        wait_until(lambda: is_answering(port, "/readyz"), TIMEOUT_SECONDS, "the end of the outage", log)

        with socket.create_connection((HOST, port)) as open_, socket.create_connection((HOST, port)) as slow:
            open_.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
            slow.sendall(b"GET /metrics HTTP/1.1\r\n")
            started = time.monotonic()
            assert muxer.stop() == 0
            assert time.monotonic() - started < 10
    assert not is_answering(port)


def _settled_metrics(port: int, count: int) -> dict[str, float]:
    """Return the metrics after `count` targets are done and a poll has seen them done."""
    found: dict[str, float] = {}

    def is_settled() -> bool:
        found.update(parse_samples(send_request(port, "/metrics").body))
        ended = found['muxer_targets_total{outcome="muxed"}'] == count
        return ended and found.get('muxer_last_poll_targets{kind="already_done"}') == count

    wait_until(is_settled, TIMEOUT_SECONDS, "a poll that finds everything done")
    return found


def test_promtool_accepts_fleet_metrics(tmp_path: Path) -> None:
    text = MuxerCollector(populated_fleet_sources(tmp_path)).render_exposition("")[0].decode()
    assert text.count("# TYPE muxer_fleet_") == 11
    checked = run_promtool("check", "metrics", text=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


@pytest.mark.long
def test_promtool_accepts_alert_rules_and_they_fire() -> None:
    checked = run_promtool("check", "rules", DOCS / "alerts.yml")
    assert checked.returncode == 0 and "19 rules found" in checked.stdout, checked.stderr
    tested = run_promtool("test", "rules", RULES)
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_monitoring_libraries_are_not_imported_without_port(make_lab: Make, tmp_path: Path) -> None:
    """Neither the start nor a poll nor a job imports them."""
    lab = make_lab()
    (call,) = lab.add_case(Case.PLAIN)
    config, log = write_config(lab)
    report = tmp_path / "modules"
    script = tmp_path / "run.py"
    script.write_text(
        "import atexit, sys\nfrom pathlib import Path\n"
        "import os\nleave = os._exit\n"
        f"def write_report(): Path({str(report)!r}).write_text(' '.join(sys.modules))\n"
        "atexit.register(write_report)\nos._exit = lambda code: (write_report(), leave(code))\n"
        f"sys.path.insert(0, {str(DOCS.parent)!r})\nfrom muxer.app.cli import run_muxer as run\n"
        f"sys.exit(run(['--config-file={config}']))\n"
    )
    with subprocess.Popen([PYTHON, str(script)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: call.id in labelled_ids(lab), TIMEOUT_SECONDS, "the label", log)
        process.terminate()
        process.wait(TIMEOUT_SECONDS)
    loaded = {name.partition(".")[0] for name in report.read_text().split()}
    assert "requests" in loaded and not loaded & {"cheroot", "prometheus_client", "jinja2", "rich"}
    assert not any(name.startswith("muxer.monitoring") for name in report.read_text().split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"http_address": "0.0.0.0"}, "[monitoring] http_address = '0.0.0.0': other machines can reach it"),
        ({"certificate": "FOLDER/muxer.pem", "key": "FOLDER/other.key"}, "[monitoring] key = "),
        ({"http_port": "taken"}, "cannot listen"),
    ],
)
def test_forbidden_or_unavailable_port_is_refused(
    make_lab: Make, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    lab = make_lab()
    create_certificate(tmp_path)
    (tmp_path / "other.key").write_bytes(b"no key")
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1] if options.get("http_port") else free_port())
        given = {f"monitoring__{name}": value.replace("FOLDER", str(tmp_path)) for name, value in options.items()}
        config, _ = write_config(lab, **given | {"monitoring__http_port": port})
        done = run_muxer(config, seconds=TIMEOUT_SECONDS)
    assert done.process.returncode == 2 and message in done.err
    assert not lab.store.served_requests
