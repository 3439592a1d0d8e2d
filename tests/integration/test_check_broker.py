"""``check`` and the broker of a fleet: each mistake is explained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.cases import Case
from lab.lab import Lab
from tests.support.checklist import Checklist, run_check, write_check_config
from tests.support.queues import VirtualHost
from tests.support.rabbitmq import RabbitNode

Make = Callable[..., Lab]


@pytest.fixture
def check(make_lab: Make, tmp_path: Path) -> Callable[[str], Checklist]:
    lab = make_lab()
    lab.add_case(Case.PLAIN)
    return lambda url: run_check(write_check_config(lab, tmp_path, fleet__mode="broker", fleet__broker_url=url))


def test_no_problems(check: Callable[[str], Checklist], vhost: VirtualHost) -> None:
    found = check(vhost.url)
    assert found.line_of("RabbitMQ login").status == "ok"
    assert "not created yet" in found.line_of("RabbitMQ queues").found
    assert vhost.queue_counts("recording-muxer") is None  # nothing is created there
    assert not [line for line in found.lines if line.check.startswith("RabbitMQ") and line.status in ("failed", "skipped")]


def test_each_mistake_is_explained(check: Callable[[str], Checklist], vhost: VirtualHost, rabbit: RabbitNode) -> None:
    login = check(rabbit.node_url(password="not-the-password")).line_of("RabbitMQ login")
    assert login.status == "failed" and "[fleet] broker_url" in login.advice
    assert "not-the-password" not in f"{login}"
    unknown = check(rabbit.node_url(vhost="nowhere")).line_of("RabbitMQ login")
    assert unknown.status == "failed" and "virtual host" in unknown.found
    closed = check("amqp://muxer:secret-word@127.0.0.1:1")
    assert "nothing listens on port 1" in closed.line_of("RabbitMQ address").advice
    plain = check(vhost.url.replace("amqp://", "amqps://"))
    assert plain.line_of("RabbitMQ TLS").status == "failed"
