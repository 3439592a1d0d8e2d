"""A fleet with a broker of three nodes, of which one fails, then two: nothing is lost, and the log says what is missing."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import outcome
from tests.faults.fault_lab import FaultLab, start_lab
from tests.faults.recording_factory import FaultRecording
from tests.faults.test_fleet import SHORT_DELAYS, check_recordings, has_muxed, write_slow_openssl
from tests.support.daemon import wait_until
from tests.support.fleet_processes import QUEUE, TIMEOUT_SECONDS, FleetProcesses, stop_processes
from tests.support.queues import VirtualHost
from tests.support.rabbitmq import RabbitNode
from tests.support.rabbitmq_cluster import running_cluster

pytestmark = pytest.mark.long
WAIT_SECONDS = 2 * TIMEOUT_SECONDS
NOT_CONFIRMED = "RabbitMQ has not confirmed a task within 2 s; most of its nodes must run to store one"


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[FaultLab]:
    with start_lab(tmp_path / "lab") as scene:
        yield scene


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[RabbitNode]]:
    with running_cluster(tmp_path / "cluster") as nodes:
        yield nodes


def add_recordings(scene: FaultLab, count: int) -> list[FaultRecording]:
    return [scene.factory.add_recording(closed=False) for _ in range(count)]


def test_two_of_three_nodes_fail_and_return(scene: FaultLab, nodes: list[RabbitNode], tmp_path: Path) -> None:
    name, password = secrets.token_hex(4), secrets.token_hex(8)
    nodes[0].add_vhost(name, name, password)
    url = ",".join(node.node_url(name, name, password) for node in nodes)
    options = {"processing__openssl": str(write_slow_openssl(tmp_path)), "advanced__worker_threads": "1"}
    recordings = add_recordings(scene, 8)
    constants = SHORT_DELAYS | {"muxer.fleet.broker.CONFIRM_SECONDS": 2.0}
    with FleetProcesses(scene.lab, url, "cluster", constants, **options) as crew:
        members = [crew.start_poller(), *crew.start_workers(2)]
        wait_until(lambda: has_muxed(scene, recordings, 3), WAIT_SECONDS, "some work", crew.log)
        nodes[2].kill()
        wait_until(lambda: has_muxed(scene, recordings, 8), WAIT_SECONDS, "the work without one node", crew.log)
        nodes[1].kill()
        late = add_recordings(scene, 4)
        wait_until(lambda: crew.poller_lines("the poll failed"), WAIT_SECONDS, "the failed poll", crew.log)
        assert NOT_CONFIRMED in crew.poller_lines("the poll failed")[0]["message"]
        wait_until(lambda: NOT_CONFIRMED in crew.run_json("status")["state"]["polls"]["error"], WAIT_SECONDS, "the status")
        assert not any(outcome.is_done(scene.lab, recording) for recording in late)
        for node in nodes[1:]:
            node.start()
        check_recordings(scene, recordings + late, crew)
        assert {member.process.poll() for member in members} == {None}
        vhost = VirtualHost(nodes[0], name, password)
        assert (vhost.ready_count(QUEUE), vhost.ready_count(f"{QUEUE}.XQ")) == (0, 0)
        assert stop_processes(*members) == [0] * 3
