"""The import contracts hold, a violated one is detected, and the diagram is drawn from the contracts."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import rooms

ROOT = Path(__file__).resolve().parents[2]
LINTER = Path(sys.executable).with_name("lint-imports")


def check_contracts(folder: Path) -> str:
    """Return the report of the linter about the source in `folder`."""
    done = subprocess.run([LINTER, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout if done.returncode else ""


@pytest.fixture
def copied_source(tmp_path: Path) -> Path:
    """Return a folder with the source of the muxer and the lab."""
    for name in ("muxer", "lab"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("muxer/system/masking.py", "from muxer.gir import models", "a room imports only rooms below it"),
        ("muxer/gir/models.py", "import lab.site", "the muxer and the lab do not know each other"),
        ("lab/site.py", "import muxer.errors", "the lab imports nothing of the muxer"),
        ("muxer/polling/window.py", "import pika", "only fleet/ imports pika and dramatiq"),
        ("muxer/gir/models.py", "from muxer.gir import targets", "no circles"),
    ],
)
def test_a_violated_contract_is_detected(copied_source: Path, module: str, line: str, contract: str) -> None:
    source = copied_source / module
    text = source.read_text(encoding="utf-8")
    source.write_text(
        text.replace("\nimport ", f"\n{line}\nimport ", 1).replace("\nfrom ", f"\n{line}\nfrom ", 1), encoding="utf-8"
    )
    report = check_contracts(copied_source)
    assert [text for text in report.splitlines() if text.startswith(contract) and text.endswith("BROKEN")]


def test_the_source_keeps_all_contracts() -> None:
    assert check_contracts(ROOT) == ""


def test_the_diagram_matches_the_contracts() -> None:
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.render_picture()
