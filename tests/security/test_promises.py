"""docs/developer/promises.md: each promise of SECURITY.md names the tests that prove it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "developer" / "promises.md").read_text(encoding="utf-8")


def test_every_named_test_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`", TEXT)
    assert len(named) > 15
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_promise_has_a_test_and_every_attack_a_promise() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith("| promise")]
    assert len(rows) > 8 and all("`tests/" in row for row in rows)
    attempts = {path.name for path in Path(__file__).parent.glob("test_*.py")} - {Path(__file__).name}
    assert [name for name in attempts if f"tests/security/{name}" not in TEXT] == []
