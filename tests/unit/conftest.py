"""Fixture that lets the fast tests run on machines without ffmpeg and openssl."""

from __future__ import annotations

import os

import pytest

from tests.support.requirements import missing_programs


@pytest.fixture(scope="session", autouse=True)
def programs_on_path(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put a placeholder that always fails on PATH for each missing program, which the configuration requires."""
    if missing := missing_programs(("ffmpeg", "ffprobe", "openssl")):
        folder = tmp_path_factory.mktemp("programs")
        for name in missing:
            (folder / name).write_text("#!/bin/sh\nexit 127\n")
            (folder / name).chmod(0o755)
        os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{folder}"
