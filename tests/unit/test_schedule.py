"""How the tests are distributed over the workers of a run."""

from __future__ import annotations

import pytest

from tests.support.schedule import ModuleScheduling


@pytest.mark.parametrize(
    ("test", "scope"),
    [
        ("tests/e2e/test_install.py::test_usage[arguments0]", "tests/e2e/test_install.py"),
        ("tests/e2e/test_main_job.py::test_every_label_is_set_once[apache, clear]", "tests/e2e/test_main_job.py"),
        ("tests/integration/test_rabbitmq_node.py::test_a_thing", "RabbitMQ"),
        ("tests/e2e/test_running.py::test_a_thing[a::b]", "tests/e2e/test_running.py::test_a_thing[a::b]"),
    ],
)
def test_tests_with_shared_fixtures_stay_in_one_worker(test: str, scope: str) -> None:
    assert ModuleScheduling._split_scope(ModuleScheduling.__new__(ModuleScheduling), test) == scope


def test_the_run_uses_this_scheduler(pytestconfig: pytest.Config) -> None:
    scheduler = pytestconfig.hook.pytest_xdist_make_scheduler(config=FakeConfig(), log=None)
    assert isinstance(scheduler, ModuleScheduling)


class FakeConfig:
    """The part of a configuration that a scheduler reads."""

    @staticmethod
    def getvalue(name: str) -> list[str]:
        return {"tx": ["2*popen"]}[name]
