"""The distribution of tests over the workers of pytest-xdist, and their order.

``--dist loadgroup`` marks the groups by changed test names, which does not work with pytest 9.2: every worker then creates
every fixture of a module again (https://github.com/pytest-dev/pytest-xdist/issues/1386).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

ROOT = Path(__file__).resolve().parents[2]


@cache
def shares_resources(module: str) -> bool:
    """Return whether the tests of a module share a fixture with module scope or a RabbitMQ."""
    text = (ROOT / module).read_text(encoding="utf-8")
    shared = ('scope="module"', "from tests.support.rabbitmq import", "from tests.support.queues import")
    return any(words in text for words in shared)


class ModuleScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """A scheduler that keeps a module with shared fixtures in one worker.

    Any other test goes to the next free worker. Modules come first, the largest before all, so that single tests fill the
    end of the run.
    """

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if shares_resources(module) else nodeid
