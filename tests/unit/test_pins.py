"""Every third-party package is pinned with the hashes of its files (docs/developer/dependencies.md)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

THIRDPARTY = Path(__file__).resolve().parents[2] / "thirdparty"
LOCKS = sorted(THIRDPARTY.glob("requirements*.txt"))


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_requirement_has_a_version_and_hashes(path: Path) -> None:
    text = re.sub(r"\\\n", " ", path.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(lines) > 5
    assert [line for line in lines if not re.match(r"[a-z0-9-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


@pytest.mark.parametrize(("small", "large"), [("", "-fleet"), ("", "-lab"), ("-fleet", "-test"), ("-lab", "-test")])
def test_a_lock_file_contains_every_requirement_of_the_smaller_one(small: str, large: str) -> None:
    texts = [(THIRDPARTY / f"requirements{value}.txt").read_text() for value in (small, large)]
    fewer, more = (set(re.findall(r"^[a-z0-9-]+==\S+", text, re.MULTILINE)) for text in texts)
    assert fewer < more


def test_the_packages_of_a_fleet_are_installed_only_on_request() -> None:
    with_it = [path.name for path in LOCKS if re.search(r"^(dramatiq|pika)==", path.read_text(), re.MULTILINE)]
    assert with_it == ["requirements-fleet.txt", "requirements-test.txt"]
