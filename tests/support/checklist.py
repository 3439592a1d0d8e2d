"""The command ``check``, run in this process, and its parsed checklist."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.lab import Lab
from muxer.commands import check


@dataclass(frozen=True)
class ChecklistLine:
    """One line of a checklist."""

    status: str
    check: str
    found: str
    advice: str


class Checklist:
    """The output of ``check`` and its exit code."""

    def __init__(self, text: str, exit_code: int) -> None:
        self.text, self.exit_code = text, exit_code
        self.lines = [ChecklistLine(**item) for item in json.loads(text)["checks"]]

    def line_of(self, name: str) -> ChecklistLine:
        """Return the only line whose check starts with `name`."""
        found = [line for line in self.lines if line.check.startswith(name)]
        assert len(found) == 1, f"{name}: {self.bad_lines or self.text}"
        return found[0]

    def all_of(self, status: str) -> list[str]:
        """Return the names of the checks with a status."""
        return [line.check for line in self.lines if line.status == status]

    @property
    def bad_lines(self) -> list[ChecklistLine]:
        """The lines that are neither ok nor skipped."""
        return [line for line in self.lines if line.status in ("warning", "failed")]


def write_check_config(lab: Lab, folder: Path, **overrides: str) -> Path:
    """Write a configuration for a lab, with private folders; ``section__option`` overrides it. Return its path."""
    for name in ("temp", "log"):
        (lab.folder / name).mkdir(mode=0o700, exist_ok=True)
    path = folder / "muxer.cfg"
    path.touch(mode=0o600)
    path.write_text(lab.config_text(**{name.replace("__", ".", 1): value for name, value in overrides.items()}))
    return path


def run_check(config: Path, *arguments: str) -> Checklist:
    """Run ``check`` and return its checklist."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), _root_handlers():
        code = check.main([f"--config-file={config}", "--json", *arguments])
    return Checklist(out.getvalue(), code)


@contextlib.contextmanager
def _root_handlers() -> Iterator[None]:
    """Restore the log handlers at the end."""
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        yield
    finally:
        root.handlers[:] = before
