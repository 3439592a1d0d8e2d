"""The RabbitMQ of the tests. Its helpers import each other as pytest has it, from the folder of the tests."""

import sys

from tests.bench.lab import ROOT

sys.path.append(str(ROOT / "tests"))

from tests.support.rabbitmq import RabbitNode

__all__ = ["RabbitNode"]
