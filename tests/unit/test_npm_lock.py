"""The lock file of the npm packages of the tests: pinned with hashes, and without registry addresses."""

from __future__ import annotations

import json
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "s3rver" / "package-lock.json"


def test_every_package_has_a_hash_and_no_address() -> None:
    packages = {name: one for name, one in json.loads(LOCK.read_text())["packages"].items() if name}
    assert "node_modules/s3rver" in packages
    assert not [name for name, one in packages.items() if not one["integrity"].startswith("sha512-")]
    assert not [name for name, one in packages.items() if "resolved" in one]
