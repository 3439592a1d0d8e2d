"""The test environment of the fleet: a separate RabbitMQ node, a proxy connection that fails, two hosts."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.adapters.utils.connection_workflow import AMQPConnectorStackTimeout
from pika.exceptions import AMQPConnectionError, AMQPError, ChannelClosedByBroker

from muxer.fleet.connection import MAX_DELIVERIES, declare_queues
from tests.support.namespaces import NAMESPACE_PREFIX, NETNS_FOLDER, NetworkHost, two_hosts
from tests.support.queues import QueueCounts, VirtualHost, wait_until
from tests.support.rabbitmq import RabbitNode
from tests.support.tcp_proxy import TcpProxy
from tests.support.tls import HOST, pem_bundle

ROOT = Path(__file__).resolve().parents[2]
QUORUM = {"x-queue-type": "quorum"}
DURABLE = pika.BasicProperties(delivery_mode=2)


def publish_durable(channel: BlockingChannel, *bodies: bytes) -> None:
    """Publish messages to a durable quorum queue."""
    channel.confirm_delivery()
    channel.queue_declare("orders", durable=True, arguments=QUORUM)
    for body in bodies:
        channel.basic_publish("", "orders", body, DURABLE)


def connect_through(vhost: VirtualHost, line: TcpProxy, **settings: float) -> pika.BlockingConnection:
    """Connect to a virtual host through the TCP proxy `line`."""
    parameters = pika.URLParameters(vhost.url)
    parameters.port, parameters.connection_attempts = line.port, 1
    for name, value in settings.items():
        setattr(parameters, name, value)
    return pika.BlockingConnection(parameters)


def processes_in(folder: Path) -> list[int]:
    """Return all processes whose working directory is in a folder."""
    found = []
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and (process / "cwd").samefile(folder):
                found.append(int(process.name))
    return found


@pytest.mark.long
def test_confirmed_messages_survive_a_kill(vhost: VirtualHost) -> None:
    with vhost.open_channel() as channel:
        publish_durable(channel, b"first", b"second")
    port = vhost.node.port
    vhost.node.flush_to_disk()
    vhost.node.kill()
    with pytest.raises(AMQPConnectionError):
        vhost.queue_counts("orders")
    vhost.node.start()
    assert vhost.node.port == port
    wait_until(lambda: vhost.ready_count("orders") == 2)
    assert vhost.message_bodies("orders") == vhost.message_bodies("orders") == [b"first", b"second"]
    assert vhost.queue_counts("orders") == QueueCounts(ready=2, consumers=0)
    vhost.purge_queue("orders")
    assert (vhost.ready_count("orders"), vhost.queue_counts("no such queue")) == (0, None)


def test_node_listens_on_loopback_only_without_epmd_and_plugins(rabbit: RabbitNode) -> None:
    rabbit.start()
    sockets = rabbit.evaluate_erlang("[{inet:ntoa(A), N} || P <- erlang:ports(), {ok, {A, N}} <- [inet:sockname(P)]]")
    assert f'{{"{HOST}", {rabbit.port}}}' in sockets
    assert set(re.findall(r'"([^"]+)"', sockets)) == {HOST}
    assert rabbit.evaluate_erlang("{erl_epmd:names(), rabbit_plugins:active()}") == "{{error, address}, []}"
    assert rabbit.evaluate_erlang("whereis(rabbit_epmd_monitor)") == "undefined", "it would start an epmd after a minute"


def test_an_account_of_one_virtual_host_sees_no_other(rabbit: RabbitNode, vhost: VirtualHost) -> None:
    pika.BlockingConnection(pika.URLParameters(rabbit.node_url())).close()
    forbidden = vhost.url.rpartition("/")[0] + "/%2F"
    for refused in (forbidden, rabbit.node_url(password="another")):
        with pytest.raises(AMQPConnectionError):
            pika.BlockingConnection(pika.URLParameters(refused))


def test_a_node_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = "import sys, time; from pathlib import Path; from tests.support.rabbitmq import RabbitNode; "
    program += "RabbitNode(Path(sys.argv[1])).start(); print('up', flush=True); time.sleep(600)"
    folder = tmp_path / "node"
    with subprocess.Popen([sys.executable, "-c", program, folder], cwd=ROOT, stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None and starter.stdout.readline() == b"up\n"
        assert processes_in(folder)
        starter.kill()
    wait_until(lambda: not processes_in(folder), "nothing is left of the node")


def test_node_that_cannot_start_reports_cause(tmp_path: Path) -> None:
    node = RabbitNode(tmp_path / "node", before=("sh", "-c", "echo the reason; exit 1"))
    with pytest.raises(AssertionError, match="does not start:\nthe reason"):
        node.start()
    assert not processes_in(tmp_path / "node")


@pytest.fixture
def impatient(vhost: VirtualHost) -> Iterator[VirtualHost]:
    """Limit the acknowledgement timeout of consumers to half a second."""
    vhost.node.acknowledge_within(0.5, tick=0.5)
    yield vhost
    vhost.node.acknowledge_within(1800, tick=60)


def test_late_acknowledgement_closes_channel_and_keeps_message(impatient: VirtualHost) -> None:
    """A message from basic.get is treated like one that was delivered to a consumer."""
    with pika.BlockingConnection(pika.URLParameters(impatient.url)) as connection:
        channel = connection.channel()
        publish_durable(channel, b"late")
        assert channel.basic_get("orders")[2] == b"late"
        with pytest.raises(ChannelClosedByBroker, match="delivery acknowledgement on channel 1 timed out"):
            wait_until(lambda: channel.queue_declare("orders", passive=True) is None)
        again = connection.channel().basic_get("orders")
        assert again[0].redelivered and again[2] == b"late"


def test_tasks_have_their_own_acknowledgement_timeout_since_rabbitmq_3_12(impatient: VirtualHost) -> None:
    version = tuple(map(int, impatient.node.version.split(".")[:2]))
    with impatient.open_channel() as tasks, impatient.open_channel() as others:
        declare_queues(tasks, "muxing")
        publish_durable(others, b"late")
        tasks.basic_publish("", "muxing", b"task", DURABLE)
        wait_until(lambda: tasks.basic_get("muxing")[2] == b"task")
        assert others.basic_get("orders")[2] == b"late"
        with pytest.raises(ChannelClosedByBroker, match="timed out"):
            wait_until(lambda: others.queue_declare("orders", passive=True) is None)
        if version >= (3, 12):
            tasks.queue_declare("muxing", passive=True)
        else:
            with pytest.raises(ChannelClosedByBroker, match="timed out"):
                wait_until(lambda: tasks.queue_declare("muxing", passive=True) is None)


def test_tasks_have_their_own_delivery_limit(vhost: VirtualHost) -> None:
    """That of RabbitMQ 4 is 20, and earlier versions have none."""
    with vhost.open_channel() as channel:
        declare_queues(channel, "muxing")
        channel.confirm_delivery()
        channel.basic_publish("", "muxing", b"task", DURABLE)
    for _ in range(MAX_DELIVERIES + 1):
        with vhost.open_channel() as channel:
            wait_until(lambda channel=channel: channel.basic_get("muxing")[2] == b"task", "the task")  # type: ignore[misc]
    wait_until(lambda: vhost.ready_count("muxing.XQ") == 1, "the dead letter")
    assert vhost.ready_count("muxing") == 0


def test_node_presents_its_certificate_over_tls(vhost: VirtualHost, tmp_path: Path) -> None:
    assert vhost.node.certificate is not None
    (tmp_path / "ca.pem").write_bytes(pem_bundle(vhost.node.certificate))
    parameters = pika.URLParameters(vhost.secure_url)
    parameters.ssl_options = pika.SSLOptions(ssl.create_default_context(cafile=str(tmp_path / "ca.pem")), HOST)
    pika.BlockingConnection(parameters).close()
    parameters.ssl_options = pika.SSLOptions(ssl.create_default_context(), HOST)
    with pytest.raises(ssl.SSLCertVerificationError):
        pika.BlockingConnection(parameters)


def test_cut_or_refused_connection_is_noticed_at_once(vhost: VirtualHost) -> None:
    with TcpProxy(vhost.node.port) as line:
        connection = connect_through(vhost, line)
        line.reset_connections()
        with pytest.raises(AMQPError):
            connection.channel()
        connect_through(vhost, line)
        line.refuse_connections()
        with pytest.raises(AMQPConnectionError):
            connect_through(vhost, line)
        line.restore_connections()
        with connect_through(vhost, line) as connection:
            publish_durable(connection.channel(), b"through")
        assert line.accepted == 3
        wait_until(lambda: line.connection_count == 0)
    assert vhost.message_bodies("orders") == [b"through"]


def test_stalled_connection_delivers_its_data_when_it_recovers(vhost: VirtualHost) -> None:
    with TcpProxy(vhost.node.port) as line:
        connection = connect_through(vhost, line)
        channel = connection.channel()
        channel.queue_declare("orders", durable=True, arguments=QUORUM)
        line.drop_silently()
        channel.basic_publish("", "orders", b"held", DURABLE)
        with pytest.raises(AMQPConnectorStackTimeout):
            connect_through(vhost, line, stack_timeout=0.3, socket_timeout=0.3)
        assert connection.is_open and vhost.ready_count("orders") == 0
        line.restore_connections()
        wait_until(lambda: vhost.ready_count("orders") == 1)
        connection.close()


def test_two_hosts_reach_each_other_only_by_address(tmp_path: Path) -> None:
    ask = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).recv(2)"
    serve = "import socket; s = socket.create_server(('', 7000)); print('up', flush=True)\n"
    serve += "while True: s.accept()[0].send(b'ok')"
    with two_hosts() as (one, other):
        server = subprocess.Popen([*one.command_prefix, sys.executable, "-c", serve], stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None and server.stdout.readline() == "up\n"

        def can_reach(host: NetworkHost, address: str) -> bool:
            command = [*host.command_prefix, sys.executable, "-c", ask, address, "7000"]
            return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=20, check=False).returncode == 0

        assert can_reach(other, one.address) and can_reach(one, HOST)
        assert not can_reach(other, HOST)
        one.disconnect_cable()
        assert not can_reach(other, one.address)
        one.connect_cable()
        wait_until(lambda: can_reach(other, one.address))
        left_over = f"{NAMESPACE_PREFIX}{server.pid}-0"  # of a process that is about to end
        subprocess.run(["ip", "netns", "add", left_over], check=True)
    assert server.wait(10) == -signal.SIGKILL, "what runs in a host ends with it"
    with two_hosts():
        assert not (NETNS_FOLDER / left_over).exists() and (NETNS_FOLDER / one.name).exists()
    assert not (NETNS_FOLDER / one.name).exists() and not (NETNS_FOLDER / other.name).exists()
