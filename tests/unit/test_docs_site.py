"""The documentation: the site builds without a network, and the printed commands exist in the program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from muxer.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("thirdparty/*.md")])
# A command in the documentation, up to the end of its line or code span.
COMMAND = re.compile(r"(?:recording-muxer|python -m muxer) ([a-z]+(?:-[a-z]+)*)\b([^`\n]*)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site; a page outside the menu, a broken link and a broken anchor are errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_exists(site: Path) -> None:
    names = {ROOT / "README.md": "overview", ROOT / "thirdparty" / "README.md": "thirdparty"}
    for page in PAGES:
        inside = page.relative_to(ROOT / "docs").with_suffix("") if page.is_relative_to(ROOT / "docs") else page.stem
        assert (site / f"{names.get(page, inside)}.html").is_file()


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    loading = re.compile(r'<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)="(?:https?:)?//[^"]*"')
    found = {page.name: loading.findall(page.read_text(encoding="utf-8")) for page in site.rglob("*.html")}
    assert {name: links for name, links in found.items() if any("canonical" not in link for link in links)} == {}
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//", sheet.read_text(encoding="utf-8"))


def documented_commands() -> list[tuple[str, str, str]]:
    """Return the page, name and options of every command in the documentation."""
    return [(page.name, *found) for page in PAGES for found in COMMAND.findall(page.read_text(encoding="utf-8"))]


def help_text(command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "muxer", command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_printed_command_exists_with_its_options() -> None:
    assert {command for _, command, _ in documented_commands()} <= {*COMMANDS, "run"}
    known = {command: help_text(command) for command in {command for _, command, _ in documented_commands()}}
    for page, command, rest in documented_commands():
        for option in re.findall(r"--[a-z][a-z-]*", rest):
            assert option in known[command], f"{page}: {command} has no {option}"
