"""docs/developer/conformance.md: each statement of the guide names an existing test, and no option is missing."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from muxer.config.schema import all_options

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "developer" / "conformance.md").read_text(encoding="utf-8")
REFERENCE = re.compile(r"`([\w/]+\.py)::(\w+)`")
REASON = re.compile(r"Does not apply: \w.{20,}\.")
TABLE_HEAD = ["the guide", "here", "shown by"]
SECTIONS = (
    *("Prerequisites", "Installing on Windows", "Installing on Linux", "Passwords", "Connection to RWS, section [htcc]"),
    *("Connection to RCS, section [rcs]", "Processing commands, section [processing]", "Sharding", "High availability"),
    *("Connection to WebDAV, section [webdav]", "Advanced options, section [advanced]"),
    *("Genesys Administrator Extension and LCA", "TLS", "Starting, and the log file"),
)


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of each table row, without the header and separator rows."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return [row for row in cells if row != TABLE_HEAD and not re.fullmatch(r"-+", "".join(row))]


@cache
def names_in(file: str) -> frozenset[str]:
    """Return the names of the tests in a file below ``tests/`` without importing it."""
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def test_every_section_of_the_guide_has_its_table() -> None:
    parts = dict(re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL))
    assert tuple(parts) == SECTIONS
    assert all(len(table_rows(part)) >= 3 for part in parts.values())


@pytest.mark.parametrize("row", table_rows(TEXT), ids=lambda row: row[0][:60])
def test_no_cell_is_empty_and_each_statement_has_a_test_or_a_reason(row: list[str]) -> None:
    assert len(row) == 3 and all(re.search(r"\w", cell) for cell in row)
    without = REFERENCE.sub("", row[2]).strip(" ,")
    assert bool(REASON.fullmatch(row[2])) != (bool(REFERENCE.search(row[2])) and not without), row[2]


@pytest.mark.parametrize("file", sorted({file for file, _ in REFERENCE.findall(TEXT)}))
def test_every_named_test_exists_in_its_file(file: str) -> None:
    assert {name for found, name in REFERENCE.findall(TEXT) if found == file} - names_in(file) == set()


def test_every_option_of_the_guide_exists() -> None:
    documented = {word for row in table_rows(TEXT) for word in re.findall(r"`([^`]+)`", f"{row[0]} {row[1]}")}
    guide = [(name, option) for _, name, option in all_options() if option.origin == "guide"]
    needed = {word for name, option in guide for word in (name, *option.aliases, option.env or name)}
    assert needed - documented == set()
