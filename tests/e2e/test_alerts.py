"""`[alerts] command` next to the real muxer: called once per event, never waited for, and given no secret and no name."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lab.cases import Agent, CallPlan, ScreenPart
from lab.lab import Lab
from lab.service import ServiceAccount
from muxer.system.exit_codes import EXIT_SOME_FAILED
from tests.support.calls import add_short, log_messages, screen_file
from tests.support.commands import run_in_process
from tests.support.daemon import FAST_RETRY, MuxerProcess, run_muxer, wait_until
from tests.support.disk import small_disk
from tests.support.fleet_processes import FleetProcesses, stop_processes
from tests.support.muxer_runs import labelled_ids, write_config
from tests.support.queues import VirtualHost
from tests.support.tls import pem_bundle, self_signed

Make = Callable[..., Lab]
TIMEOUT_SECONDS = 90
SECRET = "Hq7-secret-ops%1"
MEGABYTE = 1 << 20
NAMED = CallPlan("named", 4, (ScreenPart(0, 4, Agent("quastenhuber", "Zoltan", "Quastenhuber", 1, "7001")),))


def write_hook(folder: Path, then: str = "") -> Path:
    """Write a program that stores its input, environment and arguments, and then does something else."""
    path = folder / "hook.sh"
    (folder / "events").mkdir(exist_ok=True)
    path.write_text(
        f'#!/bin/sh\ncd "{folder}/events" || exit 9\nname=$(mktemp x.XXXXXX)\n'
        f'cat >"$name.json"; env >"$name.env"; echo "$#" >"$name.args"; mv "$name.json" "$name.event"\n{then}\n'
    )
    path.chmod(0o755)
    return path


def read_events(folder: Path, kind: str = "") -> list[dict[str, Any]]:
    """Return the events of a kind that the program got, all without one, in the order of time."""
    paths = sorted((folder / "events").glob("*.event"), key=lambda path: path.stat().st_mtime_ns)
    events = [json.loads(path.read_text()) for path in paths]
    return [event for event in events if kind in ("", event["event"])]


def set_up(lab: Lab, folder: Path, then: str = "", **options: str) -> tuple[Path, Path]:
    hook = write_hook(folder, then)
    return write_config(
        lab, alerts__command=str(hook), alerts__service_minutes="0", advanced__incomplete_after="0", **options
    )


@pytest.fixture
def secret_lab(kept_lab: type[Lab], tmp_path: Path) -> Iterator[Lab]:
    running = kept_lab(tmp_path / "lab")
    running.site.rws_account = ServiceAccount("rws", SECRET)
    with running:
        yield running


def test_each_event_is_reported_once_without_secrets_and_names(secret_lab: Lab, tmp_path: Path) -> None:
    lab = secret_lab
    (rejected,), (bad,) = add_short(lab, [0]), add_short(lab, [1], plan=NAMED)
    screen_file(lab, bad).write_bytes(b"")
    echo = json.dumps({"statusCode": 1, "statusMessage": f"quastenhuber said {SECRET} at +49 89 55501234"}).encode()
    lab.store.fail_next("rws", "POST", "screen-recordings", 400, times=3, body=echo)
    config, log = set_up(lab, tmp_path)
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(lambda: len(read_events(tmp_path)) == 2, TIMEOUT_SECONDS, "the recordings that are set aside", log)
        lab.store.fail_next("rws", "GET", "recordings", 503, times=1_000_000)
        wait_until(lambda: read_events(tmp_path, "service_unavailable"), TIMEOUT_SECONDS, "the outage", log)
        lab.store._failures.clear()
        wait_until(lambda: read_events(tmp_path, "service_available"), TIMEOUT_SECONDS, "the end of the outage", log)
        assert muxer.stop() == 0
    events = read_events(tmp_path)
    assert [event["event"] for event in events[2:]] == ["service_unavailable", "service_available"]
    asides, (out, back) = {event["recording"]: event for event in events[:2]}, events[2:]
    assert set(asides) == {bad.id, rejected.id} and {event["event"] for event in events[:2]} == {"recording_set_aside"}
    aside, echoed = asides[bad.id], asides[rejected.id]
    assert "said *** at number-" in echoed["text"]
    assert (aside["version"], aside["instance"], aside["recording"], aside["code"]) == (1, "single", bad.id, "MUX-322")
    assert aside["text"].startswith("MUX-322 MediaError: person-") and "the file is empty" in aside["text"]
    assert (out["service"], out["code"][:4], back["service"], back["code"]) == ("RWS", "MUX-", "RWS", "")
    assert {event["lost"] for event in events} == {0} and datetime.fromisoformat(out["time"])
    texts = "".join(path.read_text() for path in (tmp_path / "events").iterdir())
    assert SECRET not in texts and "5550" not in texts.replace("number-", "")
    assert "quastenhuber" not in "".join(event["text"] for event in (aside, out, back)).lower()
    environments = [path.read_text().splitlines() for path in (tmp_path / "events").glob("*.env")]
    assert all("MUXER_INSTANCE=single" in lines for lines in environments)
    assert sorted(line for lines in environments for line in lines if line.startswith("MUXER_ALERT=")) == sorted(
        f"MUXER_ALERT={event['event']}" for event in events
    )
    assert sum("MUXER_CODE=MUX-322" in lines for lines in environments) == 1
    assert {path.read_text() for path in (tmp_path / "events").glob("*.args")} == {"0\n"}


def test_a_program_that_hangs_or_fails_delays_nothing(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    (bad,), (good,) = add_short(lab, [0], plan=NAMED), add_short(lab, [1])
    screen_file(lab, bad).write_bytes(b"")
    config, log = set_up(lab, tmp_path, "sleep 600")
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(lambda: read_events(tmp_path), TIMEOUT_SECONDS, "the event", log)
        wait_until(lambda: good.id in labelled_ids(lab), TIMEOUT_SECONDS, "the muxed file", log)
        (later,) = add_short(lab, [2])
        wait_until(lambda: later.id in labelled_ids(lab), TIMEOUT_SECONDS, "a later file", log)
        assert muxer.stop() == 0, "also the stop does not wait for its end"


@pytest.mark.long
def test_a_failing_program_is_a_warning_once(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    bad = add_short(lab, [0, 1, 2])
    for call in bad:
        screen_file(lab, call).write_bytes(b"")
    config, log = set_up(lab, tmp_path, 'echo "no mail server" >&2; exit 3')
    with MuxerProcess(config, **FAST_RETRY) as muxer:
        wait_until(lambda: len(read_events(tmp_path)) == 3, TIMEOUT_SECONDS, "all events", log)
        wait_until(lambda: "no mail server" in log.read_text(), TIMEOUT_SECONDS, "the warning", log)
        assert muxer.stop() == 0
    (warning,) = [text for text in log_messages(log) if "[alerts] command failed" in text]
    assert "status 3: no mail server" in warning
    assert {event["recording"] for event in read_events(tmp_path)} == {call.id for call in bad}


def test_a_full_disk_is_reported_with_its_end(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    with small_disk(tmp_path / "disk", "40m") as disk:
        (filler := disk / "filler").write_bytes(bytes(30 * MEGABYTE))
        config, log = set_up(lab, tmp_path, processing__temp_dir=str(disk), processing__min_free_megabytes="20")
        with MuxerProcess(config) as muxer:
            wait_until(lambda: read_events(tmp_path, "disk_full"), TIMEOUT_SECONDS, "the full disk", log)
            filler.unlink()
            wait_until(lambda: read_events(tmp_path, "disk_available"), TIMEOUT_SECONDS, "its end", log)
            assert muxer.stop() == 0
    assert [event["event"] for event in read_events(tmp_path)] == ["disk_full", "disk_available"]
    assert read_events(tmp_path)[0]["disk"] == os.uname().nodename


@pytest.mark.long
def test_a_migration_reports_its_failures_once(make_lab: Make, tmp_path: Path) -> None:
    lab = make_lab()
    bad = add_short(lab, [0, 1, 2])
    add_short(lab, [3])
    for call in bad:
        screen_file(lab, call).write_bytes(b"")
    config, _ = set_up(lab, tmp_path, advanced__call_recording_query_string="startTime=0")
    done = run_muxer(config, seconds=TIMEOUT_SECONDS, **FAST_RETRY)
    assert done.process.returncode == EXIT_SOME_FAILED, done.err
    (event,) = read_events(tmp_path)
    assert (event["event"], event["failed"]) == ("migration_failed", 3) and event["text"].startswith("3 recordings failed")


def test_the_poller_of_a_fleet_reports_what_its_workers_find(make_lab: Make, vhost: VirtualHost, tmp_path: Path) -> None:
    lab = make_lab()
    (bad,) = add_short(lab, [0], plan=NAMED)
    screen_file(lab, bad).write_bytes(b"")
    (ca := tmp_path / "ca.pem").write_bytes(pem_bundle(self_signed("ca", "ca", end=5)))
    constants = {
        "muxer.app.alert_hook.FIRST_CERTIFICATE_DELAY": 0.1,
        "muxer.journal.retry_policy.PERMANENT_DELAY_SECONDS": 0.2,
    }
    options = {"alerts__command": str(write_hook(tmp_path)), "htcc__trusted_ca": str(ca), "advanced__incomplete_after": "0"}
    with FleetProcesses(lab, vhost.url, constants=constants, **options) as crew:
        members = [crew.start_poller(), crew.start_worker()]
        wait_until(lambda: read_events(tmp_path, "recording_set_aside"), TIMEOUT_SECONDS, "the recording", crew.log)
        wait_until(lambda: read_events(tmp_path, "certificate_expires"), TIMEOUT_SECONDS, "the certificate", crew.log)
        assert stop_processes(*members) == [0, 0]
    (aside,), (expires,) = read_events(tmp_path, "recording_set_aside"), read_events(tmp_path, "certificate_expires")
    assert aside["recording"] == bad.id and "quastenhuber" not in aside["text"]
    assert expires["certificate"] == "trusted_ca htcc" and expires["text"].startswith("the certificate expires in ")
    assert len(read_events(tmp_path)) == 2, "a worker calls no program"


@pytest.mark.parametrize(("value", "mode"), [("/no/such/program", 0), ("hook --quiet", 0), ("{}", 0o644)])
def test_a_program_that_cannot_be_called_is_a_problem_of_the_configuration(
    make_lab: Make, tmp_path: Path, value: str, mode: int
) -> None:
    (program := tmp_path / "hook").write_text("#!/bin/sh\n")
    program.chmod(stat.S_IRUSR | mode)
    config, _ = write_config(make_lab(), alerts__command=value.format(program))
    code, _, err = run_in_process(config, "config")
    assert code == 2 and "[alerts] command" in err and "must be the path of a program" in err
