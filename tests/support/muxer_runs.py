"""Helpers for tests of the running process: a configuration, the state of recordings, programs that hang."""

from __future__ import annotations

from pathlib import Path

from lab.lab import Lab
from tests.support.daemon import log_lines
from tests.support.fake_program import write_wrapper


def write_config(lab: Lab, **overrides: str) -> tuple[Path, Path]:
    """Write a configuration for a lab with a short poll interval; return its path and that of the log."""
    config = lab.folder / "muxer.cfg"
    settings = {"logfile.format": "json", "processing.min_poll_interval": "0.01"}
    config.write_text(lab.config_text(**settings | {k.replace("__", "."): v for k, v in overrides.items()}))
    return config, lab.folder / "log" / "recording-muxer-single.log"


def muxed_entries(lab: Lab, recording_id: str) -> list[dict]:
    media = (lab.store.get_screen(recording_id) or {"mediaFiles": []})["mediaFiles"]
    return [file for file in media if "muxed_mediaIds" in file["parameters"]]


def labelled_ids(lab: Lab) -> set[str]:
    return {one for one, _ in lab.store.label_posts}


def log_messages(log: Path) -> list[str]:
    return [line["message"] for line in log_lines(log)]


def write_slow_program(folder: Path, name: str) -> Path:
    """Write a program that acts like `name` but hangs before it muxes or encrypts."""
    path = folder / f"slow-{name}"
    return write_wrapper(path, name, "*excerpts*|*-encrypt*", f'touch "{hanging_mark(path)}"; sleep 600')


def hanging_mark(program: Path) -> Path:
    """Return the path of the file that exists as soon as a slow program hangs."""
    return program.with_name(f"{program.name}-hangs")
