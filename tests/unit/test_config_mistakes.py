"""Mistakes in muxer.cfg that once passed, or whose report showed a password."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from muxer.commands.config import effective_settings
from muxer.config import ConfigReading, inspect_config
from muxer.system.masking import mask_credentials

REQUIRED = "[htcc]\nbase_uri = https://rws:8081\ncontact_center_id = c\npassword = secretsecret\n"


def read_config(
    folder: Path, text: str, environ: Mapping[str, str] | None = None, required: str = REQUIRED
) -> ConfigReading:
    path = folder / "muxer.cfg"
    path.write_text(required + text, encoding="utf-8")
    return inspect_config(path, {}, environ or {})


def problems_of(reading: ConfigReading) -> str:
    return "\n".join(problem.full_text for problem in reading.problems)


@pytest.mark.parametrize("older", [0, 700])
def test_a_window_that_is_not_longer_than_the_poll_interval_is_warned_of(tmp_path: Path, older: int) -> None:
    window = f"[processing]\nwindow_past = {older + 10}\nwindow_past_older_than = {older}\nmin_poll_interval = "
    migration = "[advanced]\ncall_recording_query_string = startTime=0\n"
    expected = "min_poll_interval is not less than the window of 10 minutes"
    assert expected in "".join(read_config(tmp_path, f"{window}10\n").warnings)
    assert expected not in "".join(read_config(tmp_path, f"{window}9\n").warnings)
    assert expected not in "".join(read_config(tmp_path, f"{window}60\n{migration}").warnings)


@pytest.mark.parametrize(
    "address",
    [
        "https://ops:pa/ssword1@rws:8081",
        "https://ops:8/ssword1@rws:8081",
        "https://ops:pa ssword1@rws",
        "https://ops:pa#ssword1@rws",
        "https://ops:p@ssword1@rws",
        "ops:password1@rws",
        "//ops:password1@rws:8081",
        "https;//ops;pssword1@rws",
        "ops/pssword1@rws",
        "https://ops:pssword1\uff20rws",
    ],
)
@pytest.mark.parametrize("option", ["[htcc]\ncontact_center_id = c\nbase_uri", "[rcs]\nbase_uri", "[s3]\nendpoint_url"])
def test_a_password_in_a_mistyped_address_is_never_shown(tmp_path: Path, option: str, address: str) -> None:
    reading = read_config(tmp_path, f"{option} = {address}\n", required="" if "htcc" in option else REQUIRED)
    shown = problems_of(reading) + "".join(reading.warnings)
    shown += "".join(str(setting) for setting in effective_settings(reading.config, reading.origins))
    assert "@rws" in shown and "ssword1" not in shown
    assert "must not contain a user name or password" in shown


@pytest.mark.parametrize("name", ["http_address", "syslog_address"])
def test_a_password_in_the_address_of_this_machine_is_never_shown(tmp_path: Path, name: str) -> None:
    section = "[monitoring]\nhttp_port = 9477" if name == "http_address" else "[logfile]\noutput = syslog"
    shown = problems_of(read_config(tmp_path, f"{section}\n{name} = ops:pa/ssword1@here:514\n"))
    assert "***@here:514" in shown and "ssword1" not in shown


def test_other_values_are_shown_as_they_are() -> None:
    for text in ("https://rws:8081", "/srv/logs@here", "user@here"):
        assert mask_credentials(text) == text
    assert mask_credentials("https://ops@rws") == "https://***@rws"


def test_an_option_and_its_other_name_are_refused_together(tmp_path: Path) -> None:
    both = "[processing]\nclean_temp_folder_timeout = {}\nclean_temp_folder = {}\n"
    assert "is given twice" in problems_of(read_config(tmp_path, both.format(43200, -1)))
    for first, second in (("", 100), (100, "")):
        reading = read_config(tmp_path, both.format(first, second))
        assert not reading.problems and reading.config.processing.clean_temp_folder_timeout == 100


def test_text_behind_a_section_is_refused(tmp_path: Path) -> None:
    for text in ("[rcs] username = bob\n", "[htcc]\nusername = bob\n[rcs]x\n"):
        assert "text behind [rcs]" in problems_of(read_config(tmp_path, text, required=""))
    assert not read_config(tmp_path, "[rcs] ; the crypto server\nusername = [x] y\n [z] a\n").config.rcs.base_uri


def test_a_line_break_in_the_environment_is_not_that_of_the_file(tmp_path: Path) -> None:
    shown = problems_of(read_config(tmp_path, "", {"HTCC_PASSWORD": "secretsecret\n"}))
    assert "remove it from the value in the environment HTCC_PASSWORD" in shown and "of the file" not in shown


@pytest.mark.parametrize("value", ["", ",", " , "])
def test_a_fleet_needs_an_address_of_its_broker(tmp_path: Path, value: str) -> None:
    shown = problems_of(read_config(tmp_path, f"[fleet]\nmode = broker\nbroker_url = {value}\n"))
    assert "[fleet] broker_url: is required with mode = broker" in shown


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("[logfile]\nmax_bytes = 10\n", "[logfile] max_bytes is less than 65536"),
        ("[webdav]\npassword = abcdefghij\n", "[webdav] username not set, although password is"),
        ("[s3]\naccess_key_id = AKIA\n", "[s3] secret_access_key not set, although access_key_id is"),
        ("[s3]\nsecret_access_key = abcdefghij\n", "[s3] access_key_id not set, although secret_access_key is"),
        ("[rcs]\nbase_uri = https://rcs\npassword = abcdefghij\n", "[rcs] username not set, although base_uri is"),
    ],
)
def test_what_is_only_odd_is_a_warning(tmp_path: Path, text: str, warning: str) -> None:
    reading = read_config(tmp_path, text)
    assert not reading.problems
    assert [one for one in reading.warnings if warning in one]


def test_a_log_that_another_program_rotates_is_not_odd(tmp_path: Path) -> None:
    assert not [one for one in read_config(tmp_path, "[logfile]\nmax_bytes = 0\n").warnings if "max_bytes" in one]
