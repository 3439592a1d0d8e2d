"""docs/reliability.md and docs/developer/reliability-tests.md agree with the program and with the tests that they name."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from muxer import errors
from muxer.errors import MuxerError, Permanent, Transient
from muxer.journal.journal import Journal, TargetKey
from muxer.journal.retry_policy import MAX_PERMANENT_ATTEMPTS
from tests.faults.kill_points import STEPS
from tests.faults.proxy import Fault

ROOT = Path(__file__).resolve().parents[2]
RETRIES = (ROOT / "docs" / "reliability.md", "What is retried")
FAULTS = (ROOT / "docs" / "developer" / "reliability-tests.md", "Faults")
FAMILIES = (MuxerError, Transient, Permanent)
RAISED = [
    one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, MuxerError) and one not in FAMILIES
]


def table_rows(page: Path, heading: str) -> list[list[str]]:
    """Return the cells of the table below a heading of a page, without its head."""
    section = page.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_type_of_error_has_its_row_and_no_other() -> None:
    named = [name for row in table_rows(*RETRIES) for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted([*(one.__name__ for one in RAISED), "OSError", "MemoryError"])


@pytest.mark.parametrize("kind", [one for one in RAISED if one is not errors.ConfigError])
def test_what_sets_a_recording_aside_is_as_the_table_says(kind: type[MuxerError]) -> None:
    (row,) = [row for row in table_rows(*RETRIES) if f"`{kind.__name__}`" in row[0]]
    journal = Journal(None)
    entries = [
        journal.record_failure(TargetKey("x", "C1"), kind("it failed"), 1000.0 * number)
        for number in range(MAX_PERMANENT_ATTEMPTS)
    ]
    ends = {entry.attempts: entry.retry_at is None for entry in entries}
    assert row[3] == ("at once" if ends[1] else "at the third" if ends[3] else "never")


def test_every_fault_and_every_step_has_its_row() -> None:
    first = [row[0] for row in table_rows(*FAULTS)]
    assert [fault for fault in Fault if fault.value not in first] == []
    (steps,) = [one for one in first if "each step" in one]
    assert all(step in steps for step in STEPS)


def test_every_row_of_faults_names_a_test_that_exists() -> None:
    named = [re.findall(r"`(tests/\S+)::(\w+)`", row[2]) for row in table_rows(*FAULTS)]
    assert all(found or row[2] == "the same" for found, row in zip(named, table_rows(*FAULTS), strict=True))
    for path, name in (one for found in named for one in found):
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
