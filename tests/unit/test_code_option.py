"""`failed --code` and `retry --code`: how an error code may be written."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from muxer.commands import failed, retry
from muxer.errors import PathForbidden
from muxer.journal.journal import JOURNAL_FILE, Journal, TargetKey


@pytest.fixture
def config_option(tmp_path: Path) -> str:
    """Return the option for a configuration whose journal has a failure with the code MUX-214."""
    journal = Journal(tmp_path / JOURNAL_FILE)
    journal.record_failure(TargetKey("a_muxed.mp4", "call-a"), PathForbidden("403"), time.time())
    journal.close()
    path = tmp_path / "muxer.cfg"
    path.write_text(f"[htcc]\nbase_uri = http://rws\ncontact_center_id = c\n[processing]\ntemp_dir = {tmp_path}\n")
    return f"--config-file={path}"


@pytest.mark.parametrize("code", ["MUX-214", "mux-214", "214", " 214"])
def test_a_code_needs_neither_its_prefix_nor_capitals(
    config_option: str, capsys: pytest.CaptureFixture[str], code: str
) -> None:
    assert failed.main([config_option, f"--code={code}"]) == 0 and "call-a" in capsys.readouterr().out
    assert failed.main([config_option, "--code=322"]) == 0 and "no failures" in capsys.readouterr().out
    assert retry.main([config_option, "--all", "--code=322"]) == 1
    assert "there is no failure with code MUX-322" in capsys.readouterr().err
    assert retry.main([config_option, "--all", f"--code={code}"]) == 0 and "1 requeued" in capsys.readouterr().out


@pytest.mark.parametrize("code", ["21", "MUX-MUX-214", "PathForbidden", ""])
def test_what_is_no_code_is_refused(config_option: str, capsys: pytest.CaptureFixture[str], code: str) -> None:
    for main, options in ((failed.main, []), (retry.main, ["--all"])):
        with pytest.raises(SystemExit) as end:
            main([config_option, *options, f"--code={code}"])
        captured = capsys.readouterr()
        assert end.value.code == 2 and not captured.out and "is no error code" in captured.err
