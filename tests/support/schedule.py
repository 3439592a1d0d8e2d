"""Which tests run in one worker of pytest-xdist, and in which order.

Its own ``--dist loadgroup`` tells the groups by a change of the tests' names, which pytest 9.2 does not let through: every
worker then makes every fixture of a module again (https://github.com/pytest-dev/pytest-xdist/issues/1386).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[2]


@cache
def shares_resources(module: str) -> bool:
    """Given the path of a module of tests, return whether tests in it share what a fixture has made, or a RabbitMQ."""
    text = (ROOT / module).read_text(encoding="utf-8")
    shared = ('scope="module"', "from tests.support.rabbitmq import", "from tests.support.queues import")
    return any(words in text for words in shared)


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives a module whose tests share something to one worker; any other test goes where there is room.

    The modules come first, those with most tests before all, so that single tests are left to fill the end of the run.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if shares_resources(module) else nodeid
