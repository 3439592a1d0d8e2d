"""Started and stopped as LCA does it on Linux: ``env``, arguments without a shell, the working directory, SIGTERM."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.lab import Lab
from tests.support.daemon import PACKAGE, PYTHON, wait_until

TIMEOUT_SECONDS = 60


def own_openssl(folder: Path) -> Path:
    """Write an openssl that starts only when the loader path contains the folder of its libraries."""
    (folder / "libraries").mkdir()
    program = folder / "openssl"
    program.write_text(
        f'#!/bin/sh\ncase ":$LD_LIBRARY_PATH:" in *:{folder}/libraries:*) exec openssl "$@";; esac\n'
        "echo 'error while loading shared libraries' >&2; exit 127\n"
    )
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("form", ["$LD_LIBRARY_PATH:{}", "{}:$LD_LIBRARY_PATH"], ids=["GAX", "command line"])
def test_the_command_line_of_the_guide_starts_it_and_sigterm_stops_it(
    make_lab: Callable[..., Lab], tmp_path: Path, form: str
) -> None:
    lab, installed = make_lab(), tmp_path / "site" / "muxer"
    shutil.copytree(PACKAGE, installed, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.cfg", "*.log*"))
    openssl = own_openssl(tmp_path)
    (installed / "muxer.cfg").write_text(lab.config_text(**{"processing.openssl": str(openssl)}))
    library_path = f"LD_LIBRARY_PATH={form.format(tmp_path / 'libraries')}"
    command = ["env", library_path, PYTHON, "muxer_process.py", "--config-file=muxer.cfg"]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LD_"))}
    log = lab.folder / "log" / "recording-muxer-single.log"
    with subprocess.Popen(command, cwd=installed, env=clean, stderr=subprocess.PIPE, text=True) as muxer:
        try:
            wait_until(lambda: log.exists() and "poll done" in log.read_text(), TIMEOUT_SECONDS, "a poll", log)
            muxer.send_signal(signal.SIGTERM)
            _, errors = muxer.communicate(timeout=20)
        finally:
            muxer.kill()
    assert muxer.returncode == 0, errors
    assert log.read_text().splitlines()[-1].endswith(" stopped")
