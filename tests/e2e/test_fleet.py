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
from tests.support.calls import add_short, configure, muxed
from tests.support.commands import inside, run
from tests.support.copies import Copies
from tests.support.crew import QUEUE, SECONDS, Crew, Member, stopped
from tests.support.daemon import PACKAGE, PYTHON, Muxer, wait_until
from tests.support.namespaces import two_hosts
from tests.support.queues import VirtualHost
from tests.support.rabbitmq import RabbitNode
from tests.support.stand_in import waiting
from tests.support.tls import pem, self_signed

from muxer.lab.lab import Lab

Make = Callable[..., Lab]
PASSWORD = "se cret@:/%7 word"
BACKLOG = f"{QUEUE}.backlog"


@pytest.fixture
def odd(rabbit: RabbitNode) -> Iterator[VirtualHost]:
    """Return a virtual host whose account has a password that is written otherwise in an address."""
    rabbit.start()
    name = secrets.token_hex(4)
    rabbit.add(name, name, PASSWORD)
    yield VirtualHost(rabbit, name, PASSWORD)
    rabbit.remove(name, name)


def trusted(rabbit: RabbitNode, folder: Path) -> str:
    """Return the path of the certificate of a node."""
    assert rabbit.certificate is not None
    (folder / "ca.pem").write_bytes(pem(rabbit.certificate))
    return str(folder / "ca.pem")


def test_a_fleet_works_over_tls_and_tells_its_password_nowhere(
    make_lab: Make, odd: VirtualHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [0])
    monkeypatch.setenv("FLEET_BROKER_URL", odd.secure_url)
    options = {"fleet__trusted_ca": trusted(odd.node, tmp_path), "logfile__level": "debug"}
    with Crew(lab, "", "tls", **options) as crew:
        members = [crew.poller(), crew.worker()]
        wait_until(lambda: crew.tell("status")["targets"] == {"done": 1}, SECONDS, "the work", crew.log)
        lines = [Path(f"/proc/{one.process.pid}/cmdline").read_text() for one in members]
        texts = [*lines, *(str(inside(crew.config, name)) for name in ("config", "status", "check", "failed"))]
        assert stopped(*members) == [0, 0]
    assert len(muxed(lab, call.id)) == 1
    database = sqlite3.connect(crew.temp / "journal.sqlite3")
    texts += map(str, database.execute("SELECT * FROM targets").fetchall())
    database.close()
    texts += [path.read_bytes().decode("latin-1") for path in crew.folder.rglob("*") if path.is_file()]
    assert "[fleet]" in "".join(texts) and "Recording Muxer" in "".join(texts)
    told = [text for text in texts for form in (PASSWORD, quote(PASSWORD, "")) if form in text]
    assert told == []


def test_what_is_wrong_with_the_way_to_the_broker_is_told_and_mended_while_they_run(
    make_lab: Make, vhost: VirtualHost, tmp_path: Path
) -> None:
    lab, node, name = make_lab(), vhost.node, vhost.name
    copies = Copies(lab)
    (other := tmp_path / "other.pem").write_bytes(pem(self_signed("other", "elsewhere", authority=True)))
    later = VirtualHost(node, secrets.token_hex(4), vhost.password)
    with (
        Crew(lab, vhost.secure_url, "ca", fleet__trusted_ca=str(other)) as ca,
        Crew(lab, vhost.url.replace(vhost.password, "not-yet-the-password"), "password") as password,
        Crew(lab, later.url.replace(f"{later.name}:", f"{name}:"), "place") as place,
    ):
        expected = {ca: "MUX-204", password: "MUX-212", place: "MUX-213"}
        members = [member for crew in expected for member in (crew.poller(), crew.worker())]
        copies.add(2)
        for crew, code in expected.items():
            for out in (crew.polled, crew.said):
                wait_until(lambda out=out: out("RabbitMQ is out"), SECONDS, f"{code} in the log", crew.log)
                assert code in out("RabbitMQ is out")[0]["message"]
            wait_until(lambda crew=crew: trouble(crew), SECONDS, "what status says", crew.log)
            assert code in trouble(crew)[0]
        assert "not-yet-the-password" not in "".join(path.read_text() for path in password.folder.rglob("*.log"))
        assert len(copies.undone()) == 2
        user = f'<<"{name}">>'
        node.evaluate(f'rabbit_auth_backend_internal:change_password({user}, <<"not-yet-the-password">>, <<"test">>)')
        wait_until(lambda: not copies.undone(), SECONDS, "the work, with the right password", password.log)
        assert password.polled("RabbitMQ is back") and password.said("RabbitMQ is back")
        node.evaluate(f'rabbit_auth_backend_internal:change_password({user}, <<"{vhost.password}">>, <<"test">>)')
        node.add(later.name, later.name, "unused")
        everything = ", ".join(['<<".*">>'] * 3)
        node.evaluate(
            f'rabbit_auth_backend_internal:set_permissions({user}, <<"{later.name}">>, {everything}, <<"test">>)'
        )
        wait_until(lambda: place.polled("RabbitMQ is back") and place.said("RabbitMQ is back"), SECONDS, "the right")
        assert stopped(*members) == [0] * 6
    node.remove(later.name, later.name)


def trouble(crew: Crew) -> list[str]:
    """Return what status says is wrong with RabbitMQ."""
    told = crew.tell("status")
    return [one for one in told.get("trouble", []) if one.startswith("RabbitMQ is out")]


def migration(lab: Lab, vhost: VirtualHost, begin: datetime, **more: str) -> Crew:
    """Return a crew whose poller migrates the calls of three hours."""
    times = [int(1000 * one.timestamp()) for one in (begin, begin + timedelta(hours=3))]
    query = f"startTime={times[0]}&endTime={times[1]}&userData=SRSScreenRecordingStateStarted"
    constants = {"muxer.fleet.held.SETTLE_SECONDS": 3.0}
    return Crew(lab, vhost.url, "migration", constants, advanced__call_recording_query_string=query, **more)


def ended(member: Member) -> tuple[int, str]:
    """Wait for the end of a migration; return its exit code and what it says at last."""
    return member.process.wait(SECONDS), member.printed.splitlines()[-1]


def test_a_migration_goes_through_a_fleet_beside_its_poller(make_lab: Make, vhost: VirtualHost, tmp_path: Path) -> None:
    """Orders of both are deleted before any worker is there, and those of the poller are out when the migration ends."""
    lab, ago = make_lab(), timedelta(days=2)
    copies = Copies(lab)
    new, old = copies.add(1), copies.add(3, ago)
    slow = {"processing__openssl": str(waiting(tmp_path)), "advanced__worker_threads": "1"}
    with (
        Crew(lab, vhost.url, "day", {"muxer.fleet.held.SETTLE_SECONDS": 3.0}, **slow) as day,
        migration(lab, vhost, datetime.now(UTC) - ago - timedelta(hours=1)) as past,
    ):
        members = [day.poller(), day.worker()]
        wait_until((tmp_path / "waits").exists, SECONDS, "the work of the poller", day.log)
        run = past.poller()
        wait_until(lambda: vhost.ready(BACKLOG) == 3, SECONDS, "the orders of the migration", past.log)
        vhost.purge(BACKLOG)
        wait_until(lambda: vhost.ready(BACKLOG) == 3, SECONDS, "the same orders", past.log)
        assert len(past.polled("the order for a file has vanished")) == 3
        members.append(past.worker())
        assert ended(run) == (0, summary(3, 3, 0)), run.printed
        assert (copies.undone(old), copies.undone(new)) == ([], new)
        assert day.tell("status")["targets"]["running"] == 1
        (tmp_path / "go").touch()
        wait_until(lambda: not copies.undone(), SECONDS, "the work of the poller", day.log)
        # It ends once more, with nothing to do but to look.
        assert ended(past.poller()) == (0, summary(3, 0, 3))
        assert stopped(*members) == [0] * 3
    assert past.muxed == dict.fromkeys(old, 1) and day.muxed == dict.fromkeys(new, 1)


def summary(found: int, muxed: int, done: int) -> str:
    counts = f"{found} recordings found, {muxed} files muxed, {done} already done"
    return f"migration done: {counts}, 0 recordings without screen, 0 failed"


def test_a_job_that_lasts_longer_than_rabbitmq_waits_is_done_once(
    make_lab: Make, vhost: VirtualHost, tmp_path: Path
) -> None:
    lab = make_lab()
    (call,) = add_short(lab, [0])
    options = {"processing__openssl": str(waiting(tmp_path)), "advanced__worker_threads": "1"}
    vhost.node.acknowledge_within(1.0, tick=0.5)
    try:
        with Crew(lab, vhost.url, "long", {"muxer.fleet.worker.LOCK_PATIENCE_SECONDS": 1.0}, **options) as crew:
            members = [crew.poller(), crew.worker()]
            wait_until((tmp_path / "waits").exists, SECONDS, "the job", crew.log)
            wait_until(lambda: vhost.ready(QUEUE) == 1, SECONDS, "that RabbitMQ takes its order back", crew.log)
            members.append(crew.worker())
            wait_until(lambda: crew.said("another order for the same file"), SECONDS, "the look at the lock", crew.log)
            (tmp_path / "go").touch()
            wait_until(lambda: crew.tell("status")["targets"] == {"done": 1}, SECONDS, "the work", crew.log)
            assert crew.muxed == {call.id: 1} and len(muxed(lab, call.id)) == 1
            wait_until(lambda: not vhost.ready(QUEUE), SECONDS, "the end of the order", crew.log)
            assert vhost.ready(f"{QUEUE}.XQ") == 0
            assert stopped(*members) == [0] * 3
    finally:
        vhost.node.acknowledge_within(1800.0, tick=60.0)


def test_two_hosts_whose_cable_is_pulled(make_lab: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Broker, services and poller are on one, the worker on the other."""
    hasty = {"muxer.fleet.connection.HEARTBEAT_SECONDS": 2, "muxer.fleet.worker.LOCK_PATIENCE_SECONDS": 5.0}
    with two_hosts() as (near, far):
        for module in ("service", "dav"):
            monkeypatch.setattr(f"muxer.lab.{module}.HOST", near.address)
        with (
            near.entered(),  # the servers of the lab are threads
            RabbitNode(tmp_path / "rabbit", host=near.address, before=near.inside) as node,
        ):
            lab = make_lab()
            copies = Copies(lab)
            lost, kept = copies.add(2)
            with (
                Crew(lab, node.url(), "near", hasty, near.inside) as here,
                Crew(lab, node.url(), "far", hasty, far.inside, processing__openssl=str(waiting(tmp_path))) as there,
            ):
                members = [here.poller(), there.worker()]
                wait_until((tmp_path / "waits").exists, SECONDS, "a job on the other host", here.log)
                far.unplug()
                members.append(here.worker())
                wait_until(lambda: not copies.undone(), SECONDS, "the work of the worker that is left", here.log)
                far.plug()
                (tmp_path / "go").touch()
                (late,) = copies.add()
                wait_until(lambda: there.said("another muxer has published"), SECONDS, "the end of the first", here.log)
                wait_until(lambda: not copies.undone([lost, kept, late]), SECONDS, "the work", here.log)
                wait_until(lambda: here.tell("status")["targets"] == {"done": 3}, SECONDS, "the books", here.log)
                assert stopped(*members) == [0] * 3


@pytest.mark.skipif(sys.executable == PYTHON, reason="MUXER_RUNTIME_PYTHON is not set: no default installation")
def test_the_default_installation_has_no_fleet_and_says_what_it_lacks(make_lab: Make) -> None:
    """All tests of the running process use this installation."""
    for package in ("dramatiq", "pika"):
        assert subprocess.run([PYTHON, "-c", f"import {package}"], capture_output=True, check=False).returncode == 1
    config = configure(make_lab(), fleet__mode="broker", fleet__broker_url="amqp://muxer:secret-word@127.0.0.1")
    with Muxer(config) as muxer:
        assert muxer.wait(SECONDS) == 2
    code, _, err = run(config, "worker")
    assert code == 2
    for said in (muxer.err, err):
        assert re.search(r"\[fleet\] mode.*recording-muxer\[fleet\]", said.replace("\n", " ")), said
        assert "--fleet" in said and "Traceback" not in said and "secret-word" not in said
    assert not [log for log in config.parent.rglob("*.log") if "starts as" in log.read_text()]


def test_without_a_fleet_its_packages_are_not_loaded_even_where_they_are(make_lab: Make) -> None:
    """Of the Python that the tests run in, which has them."""
    lab = make_lab()
    (call,) = add_short(lab, [0])
    config = configure(lab, advanced__call_recording_query_string="startTime=0")
    for program in (("muxer/muxer_process.py",), ("-m", "muxer", "check")):
        line = [sys.executable, "-X", "importtime", *program, f"--config-file={config}"]
        done = subprocess.run(line, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
        told = [one for one in done.stderr.splitlines() if one.startswith("import time:")]
        loaded = {one.rpartition("|")[2].strip().partition(".")[0] for one in told}
        assert {"muxer", "httpx"} <= loaded and not loaded & {"dramatiq", "pika"}
    assert len(muxed(lab, call.id)) == 1
