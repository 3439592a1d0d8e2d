"""The origin of each option value, as the loader stores it and ``config`` shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muxer.commands import config as command
from muxer.commands import failed, retry, status
from muxer.config import inspect_config, keystore, load_config
from muxer.config.load import KEYSTORE_UNUSABLE_TEXT
from muxer.config.schema import all_options
from muxer.errors import ConfigError

CONFIG_TEXT = """\
# a comment
[htcc]
base-uri = https://rws:8081

contact_center_id = cc
password = a-secret-of-the-file
[rsc]
username = robot
[processing]
clean_temp_folder = 5
muxer_id = 1
total_muxers = 4
window_past = 720
[advanced]
mark_screen_recording_label = 2
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    keystore.save_keystore(tmp_path, {("rcs", "password"): "a-secret-of-the-keystore"})
    config_path = tmp_path / "muxer.cfg"
    config_path.write_text(CONFIG_TEXT)
    return config_path


def test_each_origin_is_reported(path: Path) -> None:
    environ = {"WEBDAV_PASSWORD": "a-secret-of-the-environment"}
    origins = load_config(path, {"muxer_id": "2"}, environ).origins
    assert origins["htcc", "base_uri"] == "file, line 3"
    assert origins["htcc", "contact_center_id"] == "file, line 5"
    assert origins["htcc", "username"] == "default"
    assert origins["rcs", "username"] == "file, line 8, as [rsc] username"
    assert origins["rcs", "password"] == "keystore"
    assert origins["webdav", "password"] == "environment WEBDAV_PASSWORD"
    assert origins["processing", "clean_temp_folder_timeout"] == "file, line 10, as [processing] clean_temp_folder"
    assert origins["processing", "muxer_id"] == "command line --muxer-id"
    assert set(origins) == {(section, name) for section, name, _ in all_options()}


def test_an_ignored_value_is_not_reported_as_the_origin(tmp_path: Path) -> None:
    path = tmp_path / "muxer.cfg"
    path.write_text("[htcc]\nbase_uri = https://rws\ncontact_center_id = cc\n[processing]\ntotal_muxers = many\n")
    assert load_config(path, {}, {}).origins["processing", "total_muxers"] == "default"


@pytest.mark.parametrize("between", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_line_breaks_end_a_line(tmp_path: Path, between: str) -> None:
    path = tmp_path / "muxer.cfg"
    path.write_text(f"[htcc]\npassword = a{between}b\nbase_uri = https://rws\ncontact_center_id = cc\n", encoding="utf-8")
    found = load_config(path, {}, {})
    assert found.config.htcc.password == f"a{between}b"
    assert found.origins["htcc", "base_uri"] == "file, line 3"


def test_valid_values_are_read_despite_problems(tmp_path: Path) -> None:
    path = tmp_path / "muxer.cfg"
    text = "[htcc]\nbase_uri = https://rws\nrws_timeout = 5\n[processing]\nmuxer_id = 3\nwindow_past_older_than = 900\n"
    path.write_text(text)
    reading = inspect_config(path, {}, {})
    assert [problem.where.partition(" = ")[0] for problem in reading.problems] == [
        "[htcc] contact_center_id",
        "[htcc] rws_timeout",
        "[processing] window_past_older_than",
        "[processing] muxer_id",
    ]
    assert reading.config.htcc.base_uri == "https://rws" and reading.has_value("htcc", "base_uri")
    assert reading.config.htcc.rws_timeout == 30 and not reading.has_value("htcc", "rws_timeout")
    assert reading.config.instance_name == "single" and not reading.has_value("processing", "muxer_id")


def run_command(path: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, str]:
    assert command.main([f"--config-file={path}", *arguments]) == 0
    out, err = capsys.readouterr()
    return out, err


def test_config_shows_every_option_and_no_secret(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEBDAV_PASSWORD", "a-secret-of-the-environment")
    out, err = run_command(path, capsys)
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["section", "option", "value", "from"]
    assert len(rows) == 1 + len(list(all_options()))
    assert ["[rcs]", "password", "********", "keystore"] in rows
    assert ["[webdav]", "password", "********", "environment WEBDAV_PASSWORD"] in rows
    assert ["[s3]", "secret_access_key", "(not set)", "default"] in rows
    assert ["[rcs]", "username", "robot", "file, line 8, as [rsc] username"] in rows
    assert ["[advanced]", "mark_screen_recording_label", "0", "file, line 15"] in rows
    assert ["[htcc]", "trusted_ca", "false", "default"] in rows
    assert "section [rsc] is read as [rcs]" in err
    assert "a-secret" not in out + err


def test_config_changed_as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = run_command(path, capsys, "--changed", "--json")
    found = json.loads(out)
    names = {(setting["section"], setting["option"]) for setting in found["settings"]}
    assert ("processing", "muxer_id") in names and ("advanced", "mark_screen_recording_label") in names
    assert ("processing", "window_past") not in names, "it is given, and is the default"
    assert ("htcc", "username") not in names
    assert any("[rsc]" in warning for warning in found["warnings"])
    assert "a-secret" not in out


def test_config_reports_the_problems(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "muxer.cfg"
    path.write_text("[htcc]\nbase_uri = rws\n")
    assert command.main([f"--config-file={path}"]) == 2
    assert "[htcc] contact_center_id: is required" in capsys.readouterr().err


@pytest.mark.posix  # Windows has no key in a file
def test_commands_that_need_no_secret_work_without_the_key(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With a key in systemd, an administrator has only what the service does not need to keep to itself."""
    (path.parent / keystore.KEY_FILE).unlink()
    out, err = run_command(path, capsys)
    rows = [line.split("\t") for line in out.splitlines()]
    assert ["[rcs]", "password", "(unknown)", KEYSTORE_UNUSABLE_TEXT] in rows
    assert ["[htcc]", "password", "********", "file, line 6"] in rows and "muxer.keystore.key: is missing" in err
    for name, main in (("status", status.main), ("failed", failed.main), ("retry", retry.main)):
        assert main([f"--config-file={path}", *(["--all"] if name == "retry" else [])]) == 1
        shown = "".join(capsys.readouterr())
        assert "keystore" not in shown and ("no instance runs" in shown or "there is no journal" in shown), name
    with pytest.raises(ConfigError):
        load_config(path, {}, {})
    path.write_text(CONFIG_TEXT.replace("720", "soon"))
    assert status.main([f"--config-file={path}"]) == 2, "every other problem is one"
    assert "[processing] window_past" in capsys.readouterr().err
