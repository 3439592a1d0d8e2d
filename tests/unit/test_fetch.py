"""thirdparty/fetch.py: the packages that it selects from a lock file for the target system."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

THIRDPARTY = Path(__file__).resolve().parents[2] / "thirdparty"


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch", THIRDPARTY / "fetch.py")
    assert spec and spec.loader
    module = sys.modules["fetch"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "version", "there", "absent"),
    [
        ("win_amd64", "3.11", {"pywin32", "colorama", "networkx==3.6"}, {"networkx==3.7"}),
        ("win_amd64", "3.13", {"pywin32", "colorama", "networkx==3.7"}, {"networkx==3.6"}),
        ("linux_x86_64", "3.12", {"networkx==3.7"}, {"pywin32", "colorama", "networkx==3.6"}),
        ("linux_x86_64", "3.11.5", {"networkx==3.6"}, {"pywin32", "colorama", "networkx==3.7"}),
    ],
)
def test_markers_are_evaluated_for_the_target_system(
    fetch: ModuleType, name: str, version: str, there: set[str], absent: set[str]
) -> None:
    lock = (THIRDPARTY / "requirements-test.txt").read_text()
    kept = fetch.for_target(lock, fetch.target_of(name, version))
    pins = re.findall(r"^(\S+==\S+)(?: \\)?$", kept, re.MULTILINE)
    assert ";" not in re.sub("#.*", "", kept)
    assert {word for word in there | absent if any(pin.startswith(word) for pin in pins)} == there
    assert all(re.search(rf"^{re.escape(pin)} \\\n    --hash=sha256:", kept, re.MULTILINE) for pin in pins)
    assert len(pins) > 80
