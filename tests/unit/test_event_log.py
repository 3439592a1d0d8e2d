"""The Windows event log, with its package simulated, and what every output does when it cannot be written."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest

from muxer.config.schema import LogfileOptions
from muxer.log import setup
from muxer.log.outputs import find_output_problem
from tests.support.daemon import wait_until
from tests.support.log_handlers import restored_log_handlers

log = logging.getLogger("muxer.test")
TIMEOUT_SECONDS = 30


@pytest.fixture
def clean_root() -> Iterator[None]:
    with restored_log_handlers():
        yield


def options_for(output: str) -> LogfileOptions:
    return LogfileOptions(None, "info", "text", 0, 1, output=output)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Simulate pywin32; return what it was asked to report."""
    reported: list[tuple[Any, ...]] = []
    util, constants = ModuleType("win32evtlogutil"), ModuleType("win32evtlog")
    for module in (util, constants):
        module.__spec__ = ModuleSpec(module.__name__, None)
        module.__file__ = "C:/python/site-packages/win32/x.pyd"
        monkeypatch.setitem(sys.modules, module.__name__, module)
    util.AddSourceToRegistry = lambda *_: None  # type: ignore[attr-defined]
    util.ReportEvent = lambda *event: reported.append(event)  # type: ignore[attr-defined]
    for number, name in enumerate(("ERROR", "WARNING", "INFORMATION")):
        setattr(constants, f"EVENTLOG_{name}_TYPE", number)
    return reported


def test_the_event_log_gets_masked_lines_with_their_level(events: list[tuple[Any, ...]], clean_root: None) -> None:
    setup.set_up_logging(options_for("eventlog"), "single", ("geheim-und-mehr",))
    log.info("started")
    log.error("refused %s", "geheim-und-mehr")
    logging.shutdown()
    assert [(source, kind) for source, _, _, kind, _ in events] == [("Recording Muxer", 2), ("Recording Muxer", 0)]
    assert events[1][4][0].endswith("refused ***")


@pytest.mark.posix
def test_the_event_log_needs_its_package() -> None:
    problem = find_output_problem(options_for("eventlog"))
    assert problem is not None and "pywin32" in problem.what


def test_a_failure_of_the_event_log_is_reported_once_without_the_line(
    events: list[tuple[Any, ...]], clean_root: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    setup.set_up_logging(options_for("eventlog"), "single", ())

    def refuse(*_: object) -> None:
        raise OSError("the log is full")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["win32evtlogutil"], "ReportEvent", refuse)
        log.info("lost secret")
        log.info("lost secret")
        logging.shutdown()
    log.info("kept")
    wait_until(lambda: len(events) == 2, TIMEOUT_SECONDS, "the line, and the report of what was lost")
    written = capsys.readouterr().err
    assert written.count("the Windows event log cannot be written, lines are lost: the log is full") == 1
    assert "is written again" in written and "secret" not in written and "Traceback" not in written
