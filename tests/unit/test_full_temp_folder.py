"""The temporary folder of the system is full, while temp_dir is on another disk: errors name it, and checks go on."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

from muxer.app.program_checks import program_problem
from muxer.app.service import report_config_error
from muxer.checks.suite import CheckSuite
from muxer.commands import support_bundle
from muxer.commands.support_bundle import main
from muxer.errors import Code, ConfigError, LocalResourceError, Problem
from muxer.pipeline.workspace import temp_folder_for
from muxer.system.exit_codes import EXIT_CONFIG, EXIT_FAILED, EXIT_OK
from muxer.system.files import system_temp_folder, temporary_folder
from muxer.system.process import Runner
from tests.support.log_handlers import restored_log_handlers

COMMAND = [sys.executable, "-c", ""]


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Fill the temporary folder of the system; return it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("TemporaryFile", "mkdtemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    return tmp_path


def test_a_program_that_cannot_be_run_names_the_folder(full: Path) -> None:
    with pytest.raises(LocalResourceError, match=f"no space left for temporary files in {re.escape(str(full))}") as caught:
        Runner().run(COMMAND, timeout=10)
    assert caught.value.code is Code.DISK_FULL
    problem = program_problem("ffmpeg", caught.value)
    assert problem.temporary and str(full) in problem.what


def test_a_folder_that_cannot_be_created_names_the_one_that_is_full(full: Path) -> None:
    with pytest.raises(LocalResourceError, match=f"in {re.escape(str(full))}"), temporary_folder("x"):
        pass


def test_an_instance_keeps_its_folder_when_it_is_full(monkeypatch: pytest.MonkeyPatch, full: Path) -> None:
    """tempfile would use the next folder, because it cannot write into this one."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/other")
    assert temp_folder_for(None, "single") == full / "recording-muxer-single"


def test_the_first_folder_is_used_when_none_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def find_none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", find_none)
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert system_temp_folder() == tmp_path


def test_a_folder_that_does_not_exist_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    monkeypatch.setenv("TEMP", str(tmp_path))
    assert system_temp_folder() == tmp_path


@pytest.mark.parametrize(
    ("others", "code"), [((), EXIT_FAILED), ((Problem("[htcc] base_uri", "is required"),), EXIT_CONFIG)]
)
def test_a_start_that_may_succeed_later_is_repeated_by_the_service(others: tuple[Problem, ...], code: int) -> None:
    full = Problem("[processing] ffmpeg", "cannot be used: no space left", temporary=True)
    with restored_log_handlers():
        logging.getLogger().addHandler(logging.NullHandler())
        assert report_config_error(ConfigError([full, *others]), logging_works=True) == code


def test_a_bundle_names_checks_that_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "muxer.cfg"
    config.write_text("[htcc]\nbase_uri = http://127.0.0.1:9\ncontact_center_id = c\npassword = abcdefgh\n")
    monkeypatch.setattr(CheckSuite, "create_checks", refuse)
    monkeypatch.setattr(support_bundle, "_program_version", lambda *_: "")
    assert main([f"--config-file={config}", f"--output={tmp_path / 'bundle.tar.gz'}"]) == EXIT_OK
    assert "not included: some checks: check failed: OSError: [Errno 28] No space left" in capsys.readouterr().err


def test_check_gives_its_findings(full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from muxer.commands.check import main as check

    config = tmp_path / "muxer.cfg"
    config.write_text(f"[htcc]\nbase_uri = http://127.0.0.1:9\ncontact_center_id = c\n[processing]\ntemp_dir = {full}\n")
    assert check([f"--config-file={config}"]) == EXIT_FAILED
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "\tfree space\t" in line]
    (program,) = [line for line in lines if "\topenssl\t" in line]
    assert f"no space left for temporary files in {full}" in program and "install a build" not in program
