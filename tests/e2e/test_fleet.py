"""A fleet as an administrator sets it up: over TLS, with mistakes, for a migration, on two hosts, without its packages."""

from __future__ import annotations

import re
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from lab.lab import Lab
from tests.support.calls import add_short, muxed_entries, write_config
from tests.support.commands import run_in_process, run_subprocess
from tests.support.daemon import PACKAGE, PYTHON, MuxerProcess, wait_until
from tests.support.fake_program import write_waiting
from tests.support.fleet_processes import QUEUE, TIMEOUT_SECONDS, FleetProcess, FleetProcesses, stop_processes
from tests.support.namespaces import two_hosts
from tests.support.queues import VirtualHost
from tests.support.rabbitmq import RabbitNode
from tests.support.recording_copies import RecordingCopies
from tests.support.tls import pem_bundle, self_signed

Make = Callable[..., Lab]
PASSWORD = "se cret@:/%7 word"
BACKLOG = f"{QUEUE}.backlog"


@pytest.fixture
def odd(rabbit: RabbitNode) -> Iterator[VirtualHost]:
    """Return a virtual host whose account has a password that must be percent-encoded in a URL."""
    rabbit.start()
    name = secrets.token_hex(4)
    rabbit.add_vhost(name, name, PASSWORD)
    yield VirtualHost(rabbit, name, PASSWORD)
    rabbit.remove_vhost(name, name)


def write_certificate(rabbit: RabbitNode, folder: Path) -> str:
    """Return the path of the certificate of a node."""
    assert rabbit.certificate is not None
    (folder / "ca.pem").write_bytes(pem_bundle(rabbit.certificate))
    return str(folder / "ca.pem")


def test_fleet_works_over_tls_and_exposes_no_password(
    make_lab: Make, odd: VirtualHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [0])
    monkeypatch.setenv("FLEET_BROKER_URL", odd.secure_url)
    options = {"fleet__trusted_ca": write_certificate(odd.node, tmp_path), "logfile__level": "debug"}
    with FleetProcesses(lab, "", "tls", **options) as crew:
        members = [crew.start_poller(), crew.start_worker()]
        wait_until(lambda: crew.run_json("status")["targets"] == {"done": 1}, TIMEOUT_SECONDS, "the work", crew.log)
        lines = [Path(f"/proc/{one.process.pid}/cmdline").read_text() for one in members]
        texts = [*lines, *(str(run_in_process(crew.config, name)) for name in ("config", "status", "check", "failed"))]
        assert stop_processes(*members) == [0, 0]
    assert len(muxed_entries(lab, call.id)) == 1
    database = sqlite3.connect(crew.temp / "journal.sqlite3")
    texts += map(str, database.execute("SELECT * FROM targets").fetchall())
    database.close()
    texts += [path.read_bytes().decode("latin-1") for path in crew.folder.rglob("*") if path.is_file()]
    assert "[fleet]" in "".join(texts) and "Recording Muxer" in "".join(texts)
    exposed = [text for text in texts for form in (PASSWORD, quote(PASSWORD, "")) if form in text]
    assert exposed == []


@pytest.mark.long
def test_broker_connection_problems_are_reported_and_fixed_at_run_time(
    make_lab: Make, vhost: VirtualHost, tmp_path: Path
) -> None:
    lab, node, name = make_lab(), vhost.node, vhost.name
    copies = RecordingCopies(lab)
    (other := tmp_path / "other.pem").write_bytes(pem_bundle(self_signed("other", "elsewhere", authority=True)))
    later = VirtualHost(node, secrets.token_hex(4), vhost.password)
    with (
        FleetProcesses(lab, vhost.secure_url, "ca", fleet__trusted_ca=str(other)) as ca,
        FleetProcesses(lab, vhost.url.replace(vhost.password, "not-yet-the-password"), "password") as password,
        FleetProcesses(lab, later.url.replace(f"{later.name}:", f"{name}:"), "denied") as denied,
    ):
        expected = {ca: "MUX-204", password: "MUX-212", denied: "MUX-213"}
        members = [member for crew in expected for member in (crew.start_poller(), crew.start_worker())]
        copies.add_copies(2)
        for crew, code in expected.items():
            for out in (crew.poller_lines, crew.worker_lines):
                wait_until(lambda out=out: out("RabbitMQ is unavailable"), TIMEOUT_SECONDS, f"{code} in the log", crew.log)  # type: ignore[misc]
                assert code in out("RabbitMQ is unavailable")[0]["message"]
            wait_until(lambda crew=crew: broker_problem(crew), TIMEOUT_SECONDS, "the status", crew.log)  # type: ignore[misc]
            assert code in broker_problem(crew)[0]
        assert "not-yet-the-password" not in "".join(path.read_text() for path in password.folder.rglob("*.log"))
        assert len(copies.unfinished_ids()) == 2
        user = f'<<"{name}">>'
        node.evaluate_erlang(f'rabbit_auth_backend_internal:change_password({user}, <<"not-yet-the-password">>, <<"test">>)')
        wait_until(lambda: not copies.unfinished_ids(), TIMEOUT_SECONDS, "the work, with the right password", password.log)
        assert password.poller_lines("RabbitMQ is available again") and password.worker_lines("RabbitMQ is available again")
        node.evaluate_erlang(f'rabbit_auth_backend_internal:change_password({user}, <<"{vhost.password}">>, <<"test">>)')
        node.add_vhost(later.name, later.name, "unused")
        everything = ", ".join(['<<".*">>'] * 3)
        node.evaluate_erlang(
            f'rabbit_auth_backend_internal:set_permissions({user}, <<"{later.name}">>, {everything}, <<"test">>)'
        )
        wait_until(
            lambda: (
                denied.poller_lines("RabbitMQ is available again") and denied.worker_lines("RabbitMQ is available again")
            ),
            TIMEOUT_SECONDS,
            "the right",
        )
        assert stop_processes(*members) == [0] * 6
    node.remove_vhost(later.name, later.name)


def broker_problem(crew: FleetProcesses) -> list[str]:
    """Return the RabbitMQ problems that `status` reports."""
    status = crew.run_json("status")
    return [one for one in status.get("trouble", []) if one.startswith("RabbitMQ is unavailable")]


def create_migration(lab: Lab, vhost: VirtualHost, begin: datetime, **more: str) -> FleetProcesses:
    """Return a crew whose poller migrates the calls of three hours."""
    times = [int(1000 * one.timestamp()) for one in (begin, begin + timedelta(hours=3))]
    query = f"startTime={times[0]}&endTime={times[1]}&userData=SRSScreenRecordingStateStarted"
    constants = {"muxer.fleet.outstanding_orders.SETTLE_SECONDS": 3.0}
    return FleetProcesses(lab, vhost.url, "migration", constants, advanced__call_recording_query_string=query, **more)


def wait_for_end(member: FleetProcess) -> tuple[int, str]:
    """Wait for the end of a migration. Returns its exit code and its summary."""
    return member.process.wait(TIMEOUT_SECONDS), member.printed_text.splitlines()[-1]


def test_migration_uses_fleet_next_to_running_poller(make_lab: Make, vhost: VirtualHost, tmp_path: Path) -> None:
    """Tasks of both are deleted before any worker starts; the poller's tasks are unfinished when the migration ends."""
    lab, ago = make_lab(), timedelta(days=2)
    copies = RecordingCopies(lab)
    new, old = copies.add_copies(1), copies.add_copies(3, ago)
    slow = {"processing__openssl": str(write_waiting(tmp_path)), "advanced__worker_threads": "1"}
    with (
        FleetProcesses(lab, vhost.url, "day", {"muxer.fleet.outstanding_orders.SETTLE_SECONDS": 3.0}, **slow) as day,
        create_migration(lab, vhost, datetime.now(UTC) - ago - timedelta(hours=1)) as past,
    ):
        members = [day.start_poller(), day.start_worker()]
        wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "the work of the poller", day.log)
        run = past.start_poller()
        wait_until(lambda: vhost.ready_count(BACKLOG) == 3, TIMEOUT_SECONDS, "the tasks of the migration", past.log)
        vhost.purge_queue(BACKLOG)
        wait_until(lambda: vhost.ready_count(BACKLOG) == 3, TIMEOUT_SECONDS, "the same tasks", past.log)
        assert len(past.poller_lines("the task of a file is lost in RabbitMQ")) == 3
        members.append(past.start_worker())
        assert wait_for_end(run) == (0, expected_summary(3, 3, 0)), run.printed_text
        assert (copies.unfinished_ids(old), copies.unfinished_ids(new)) == ([], new)
        assert day.run_json("status")["targets"]["running"] == 1
        (tmp_path / "go").touch()
        wait_until(lambda: not copies.unfinished_ids(), TIMEOUT_SECONDS, "the work of the poller", day.log)
        # A second run ends with nothing to do.
        assert wait_for_end(past.start_poller()) == (0, expected_summary(3, 0, 3))
        assert stop_processes(*members) == [0] * 3
    assert past.muxed_counts == dict.fromkeys(old, 1) and day.muxed_counts == dict.fromkeys(new, 1)


def expected_summary(found: int, muxed: int, done: int) -> str:
    counts = f"{found} recordings found, {muxed} files muxed, {done} already done"
    return f"migration done: {counts}, 0 recordings without screen, 0 failed"


@pytest.mark.long
def test_job_longer_than_consumer_timeout_is_done_once(make_lab: Make, vhost: VirtualHost, tmp_path: Path) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [0])
    options = {"processing__openssl": str(write_waiting(tmp_path)), "advanced__worker_threads": "1"}
    vhost.node.acknowledge_within(1.0, tick=0.5)
    try:
        constants = {"muxer.fleet.worker.LOCK_WAIT_SECONDS": 1.0, "muxer.fleet.connection.MAX_JOB_MILLISECONDS": 1000}
        with FleetProcesses(lab, vhost.url, "long", constants, **options) as crew:
            members = [crew.start_poller(), crew.start_worker()]
            wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "the job", crew.log)
            wait_until(lambda: vhost.ready_count(QUEUE) == 1, TIMEOUT_SECONDS, "the requeued task", crew.log)
            members.append(crew.start_worker())
            wait_until(
                lambda: crew.worker_lines("another worker is processing the same file"),
                TIMEOUT_SECONDS,
                "the look at the lock",
                crew.log,
            )
            (tmp_path / "go").touch()
            wait_until(lambda: crew.run_json("status")["targets"] == {"done": 1}, TIMEOUT_SECONDS, "the work", crew.log)
            assert crew.muxed_counts == {call.id: 1} and len(muxed_entries(lab, call.id)) == 1
            wait_until(lambda: not vhost.ready_count(QUEUE), TIMEOUT_SECONDS, "the end of the task", crew.log)
            assert vhost.ready_count(f"{QUEUE}.XQ") == 0
            assert stop_processes(*members) == [0] * 3
    finally:
        vhost.node.acknowledge_within(1800.0, tick=60.0)


@pytest.mark.long
def test_network_failure_between_two_hosts(make_lab: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broker, services and poller run on one host, the worker on the other."""
    hasty = {"muxer.fleet.connection.HEARTBEAT_SECONDS": 2, "muxer.fleet.worker.LOCK_WAIT_SECONDS": 5.0}
    with two_hosts() as (near, far):
        for module in ("service", "dav"):
            monkeypatch.setattr(f"lab.{module}.HOST", near.address)
        with (
            near.enter_namespace(),  # the servers of the lab are threads
            RabbitNode(tmp_path / "rabbit", host=near.address, before=near.command_prefix) as node,
        ):
            lab = make_lab()
            copies = RecordingCopies(lab)
            lost, kept = copies.add_copies(2)
            with (
                FleetProcesses(lab, node.node_url(), "near", hasty, near.command_prefix) as here,
                FleetProcesses(
                    lab, node.node_url(), "far", hasty, far.command_prefix, processing__openssl=str(write_waiting(tmp_path))
                ) as there,
            ):
                members = [here.start_poller(), there.start_worker()]
                wait_until((tmp_path / "waits").exists, TIMEOUT_SECONDS, "a job on the other host", here.log)
                far.disconnect_cable()
                members.append(here.start_worker())
                wait_until(
                    lambda: not copies.unfinished_ids(), TIMEOUT_SECONDS, "the work of the remaining worker", here.log
                )
                far.connect_cable()
                (tmp_path / "go").touch()
                (late,) = copies.add_copies()
                wait_until(
                    lambda: there.worker_lines("another muxer has published"),
                    TIMEOUT_SECONDS,
                    "the end of the first",
                    here.log,
                )
                wait_until(lambda: not copies.unfinished_ids([lost, kept, late]), TIMEOUT_SECONDS, "the work", here.log)
                wait_until(
                    lambda: here.run_json("status")["targets"] == {"done": 3}, TIMEOUT_SECONDS, "the status", here.log
                )
                assert stop_processes(*members) == [0] * 3


@pytest.mark.skipif(sys.executable == PYTHON, reason="MUXER_RUNTIME_PYTHON is not set: no default installation")
def test_default_installation_reports_missing_fleet_packages(make_lab: Make) -> None:
    """The default installation is the one that all tests of the process use."""
    for package in ("dramatiq", "pika"):
        assert subprocess.run([PYTHON, "-c", f"import {package}"], capture_output=True, check=False).returncode == 1
    config = write_config(make_lab(), fleet__mode="broker", fleet__broker_url="amqp://muxer:secret-word@127.0.0.1")
    with MuxerProcess(config) as muxer:
        assert muxer.wait(TIMEOUT_SECONDS) == 2
    code, _, err = run_subprocess(config, "worker")
    assert code == 2
    for output in (muxer.err, err):
        assert re.search(r"\[fleet\] mode.*recording-muxer\[fleet\]", output.replace("\n", " ")), output
        assert "--fleet" in output and "Traceback" not in output and "secret-word" not in output
    assert not [log for log in config.parent.rglob("*.log") if "starts as" in log.read_text()]


@pytest.mark.long
def test_fleet_packages_are_not_imported_without_a_fleet(make_lab: Make) -> None:
    """The Python environment of the tests has these packages installed."""
    lab = make_lab()
    (call,) = add_short(lab, [0])
    config = write_config(lab, advanced__call_recording_query_string="startTime=0")
    for program in (("muxer/muxer_process.py",), ("-m", "muxer", "check")):
        line = [sys.executable, "-X", "importtime", *program, f"--config-file={config}"]
        done = subprocess.run(line, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
        import_lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
        loaded = {one.rpartition("|")[2].strip().partition(".")[0] for one in import_lines}
        assert {"muxer", "httpx"} <= loaded and not loaded & {"dramatiq", "pika"}
    assert len(muxed_entries(lab, call.id)) == 1
