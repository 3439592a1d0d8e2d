"""Calls of a few seconds in the lab, for tests that need many, and the state of their muxed files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lab.build import AddedCall, build_calls
from lab.cases import BRUNO, CallPlan, Case, ScreenPart
from lab.lab import Lab
from tests.support.daemon import log_lines
from tests.support.media import CachedMediaLab

CALL_SECONDS = 4
SHORT_PLAN = CallPlan("short", CALL_SECONDS, (ScreenPart(0, CALL_SECONDS),))
TWO_AGENTS = CallPlan(
    "two-agents", 2 * CALL_SECONDS, (ScreenPart(0, CALL_SECONDS), ScreenPart(CALL_SECONDS, CALL_SECONDS, BRUNO))
)
CALL_AGE = timedelta(minutes=10)
# What the media of call 0 show; those of the next ones show a second more each.
SHOWN_TIME = datetime(2026, 1, 1, tzinfo=UTC)


def add_short(
    lab: Lab,
    serials: Sequence[int],
    ago: timedelta = CALL_AGE,
    plan: CallPlan = SHORT_PLAN,
    *,
    shows_its_time: bool = False,
) -> list[AddedCall]:
    """Add a short call for each serial number; the first one started `ago`, each next one a second later.

    All tests share the media, which differ between the calls of one list, unless a call `shows_its_time`.
    """
    first = (datetime.now(UTC) - ago).replace(microsecond=0)
    wanted = [(Case.PLAIN, plan, first + timedelta(seconds=number), serial) for number, serial in enumerate(serials)]
    if not wanted or shows_its_time or not isinstance(lab, CachedMediaLab):
        return build_calls(lab.site, wanted)[0]
    with lab.use_cached_makers(first - SHOWN_TIME - timedelta(seconds=serials[0])):
        return build_calls(lab.site, wanted)[0]


def muxed_entries(lab: Lab, recording_id: str) -> list[dict[str, Any]]:
    """Return the entries of muxed files in RWS for a recording."""
    media = (lab.store.get_screen(recording_id) or {"mediaFiles": []})["mediaFiles"]
    return [file for file in media if "muxed_mediaIds" in file["parameters"]]


def stored_muxed(lab: Lab) -> list[str]:
    """Return the sorted names of muxed files in the storage, complete and partial."""
    return sorted(path.name for path in (lab.site.media.folder / "screens").iterdir() if "_muxed" in path.name)


def screen_file(lab: Lab, call: AddedCall) -> Path:
    """Return the path of the first screen file of a call in the storage."""
    return lab.site.media.folder / "screens" / call.screens[0].media_id


def log_messages(log: Path) -> list[str]:
    """Return the messages of a JSON log."""
    return [line["message"] for line in log_lines(log)]


def muxed_by(log: Path) -> list[str]:
    """Return the ids of the recordings muxed according to a JSON log, one for each time."""
    return [line["recording"] for line in log_lines(log) if line["message"] == "recording muxed"]


def write_config(lab: Lab, name: str = "", **overrides: str) -> Path:
    """Write a configuration with separate folders for an instance of that name; return its path."""
    folder = lab.folder / name if name else lab.folder
    folder.mkdir(exist_ok=True)
    folders = {"processing.temp_dir": str(folder / "temp"), "logfile.logfile_path": str(folder / "log")}
    options = {key.replace("__", "."): value for key, value in overrides.items()}
    config = folder / "muxer.cfg"
    text = lab.config_text(**{"logfile.format": "json"} | folders | options)
    config.write_text(text, encoding="utf-8")
    return config


def log_of(config: Path, instance: str = "single") -> Path:
    """Return the path of the log of an instance with this configuration."""
    return config.parent / "log" / f"recording-muxer-{instance}.log"
