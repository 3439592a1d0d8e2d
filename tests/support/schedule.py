"""The distribution of tests over the workers of pytest-xdist, and their order.

``--dist loadgroup`` marks the groups by changed test names, which does not work with pytest 9.2: every worker then creates
every fixture of a module again (https://github.com/pytest-dev/pytest-xdist/issues/1386).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[2]


# Modules that use the RabbitMQ of their process stay together: its start takes as long as a hundred tests.
RABBITMQ_IMPORTS = ("from tests.support.rabbitmq import", "from tests.support.queues import")


@cache
def shared_scope(module: str) -> str | None:
    """Return what the tests of a module share with each other: the module itself, RabbitMQ, or None."""
    text = (ROOT / module).read_text(encoding="utf-8")
    if any(words in text for words in RABBITMQ_IMPORTS):
        return "RabbitMQ"
    return module if 'scope="module"' in text else None


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """A scheduler that keeps tests which share fixtures in one worker.

    Any other test goes to the next free worker. Tests that stay together come first, the largest group before all, so that
    single tests fill the end of the run.
    """

    def _split_scope(self, nodeid: str) -> str:
        return shared_scope(nodeid.partition("::")[0]) or nodeid
