"""The RabbitMQ of the tests. Its helpers import each other relative to the folder of the tests, as under pytest."""

import sys

from tests.bench.lab import ROOT

sys.path.append(str(ROOT / "tests"))

from tests.support.rabbitmq import RabbitNode

__all__ = ["RabbitNode"]
