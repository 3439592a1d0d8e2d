"""The configuration loader, compared with the option table and section 2 of the behaviour."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from muxer.config import LoadedConfig, load_config
from muxer.config.schema import SECTIONS, all_options
from muxer.config.types import MAX_WINDOWS_TEMP_LENGTH, parse_temp_folder
from muxer.errors import ConfigError

REQUIRED = "[htcc]\nbase_uri = https://rws:8081\ncontact_center_id = cc-1\n"
SECRET = "S3cr3t-Pa55"

Load = Callable[..., LoadedConfig]


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    def load_text(
        text: str | bytes, command_line: Mapping[str, str] | None = None, environ: Mapping[str, str] | None = None
    ) -> LoadedConfig:
        path = tmp_path / "muxer.cfg"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_config(path, command_line or {}, environ or {})

    return load_text


@pytest.fixture
def refused(loaded: Load) -> Callable[..., ConfigError]:
    def load_refused(text: str | bytes, **sources: Mapping[str, str]) -> ConfigError:
        with pytest.raises(ConfigError) as caught:
            loaded(text, **sources)
        return caught.value

    return load_refused


Refused = Callable[..., ConfigError]

DEFAULTS: dict[str, dict[str, Any]] = {
    "htcc": {"username": "ops", "password": "ops", "trusted_ca": False, "rws_timeout": 30},
    "rcs": {"base_uri": None, "username": "", "password": "", "trusted_ca": False},
    "webdav": {"username": "", "password": "", "trusted_ca": False},
    "s3": {"endpoint_url": None, "access_key_id": "", "secret_access_key": "", "region": "", "addressing_style": None},
    "processing": {
        "window_past": 720,
        "window_past_older_than": 0,
        "min_poll_interval": 5,
        "poll_whole_window": False,
        "temp_dir": None,
        "auto_clean_temp_folder": True,
        "clean_temp_folder_timeout": 43200,
        "batch_read_screen_recording_metadata": True,
        "query_slice_size": 100,
        "muxer_id": -1,
        "total_muxers": 1,
        "muxer_type": "primary",
    },
    "advanced": {
        "worker_threads": 5,
        "pagination": 100,
        "concurrent_queries": 4,
        "max_overlap_allowed": 2,
        "video_padding_slice_length_ms": 5000,
        "mark_screen_recording_label": True,
        "call_recording_extra_query_string": "",
        "call_recording_query_string": "",
        "delete_superseded": True,
        "blank_paused": False,
        "audio_codec": "copy",
    },
    "logfile": {"logfile_path": None, "level": "info", "format": "text", "max_bytes": 10485760, "backup_count": 10}
    | {"output": "file", "syslog_address": "/dev/log"},
    "alerts": {"command": None, "service_minutes": 10},
    "audit": {"every": 0, "hours": None, "rate": 10, "encrypted_since": None, "former_certificates": None},
}


@pytest.mark.parametrize("section", DEFAULTS)
def test_every_option_has_the_default_of_the_specification(loaded: Load, section: str) -> None:
    values = getattr(loaded(REQUIRED).config, section)
    assert {name: getattr(values, name) for name in DEFAULTS[section]} == DEFAULTS[section]


@pytest.mark.parametrize("section", DEFAULTS)
def test_an_empty_value_means_the_default(loaded: Load, section: str) -> None:
    own = "" if section == "htcc" else f"[{section}]\n"
    lines = "".join(f"{name} =\n" for name in DEFAULTS[section])
    values = getattr(loaded(f"{REQUIRED}{own}{lines}").config, section)
    assert {name: getattr(values, name) for name in DEFAULTS[section]} == DEFAULTS[section]


@pytest.mark.posix
def test_the_programs_default_to_their_names_on_the_path(loaded: Load) -> None:
    processing = loaded(REQUIRED).config.processing
    paths = [Path(processing.ffmpeg), Path(processing.ffprobe), Path(processing.openssl)]
    assert [path.name for path in paths] == ["ffmpeg", "ffprobe", "openssl"]
    assert all(path.is_absolute() for path in paths)


@pytest.mark.parametrize(
    ("section", "option", "value", "read"),
    [
        ("processing", "min-poll_interval", "0.5", 0.5),
        ("processing", "window_past", "7.5", 7.5),
        ("processing", "clean_temp_folder_timeout", "-1", -1),
        ("processing", "clean_temp_folder", "60", 60),
        ("processing", "batch_read_screen_recording_metadata", "7", False),
        ("processing", "auto_clean_temp_folder", "0", False),
        ("processing", "MUXER-ID", "0", 0),
        ("advanced", "Max_Overlap_Allowed", "0.5", 0.5),
        ("advanced", "delete-superseded", "0", False),
        ("advanced", "mark_screen_recording_label", "0", False),
        ("advanced", "audio_codec", "AAC", "aac"),
        ("logfile", "format", "JSON", "json"),
        ("logfile", "output", "Journald", "journald"),
        ("logfile", "syslog_address", "[fd00::1]:514", "[fd00::1]:514"),
        ("logfile", "max_bytes", "0", 0),
        ("logfile", "level", "DEBUG", "debug"),
        ("s3", "endpoint_url", "http://minio:9000", "http://minio:9000"),
        ("s3", "addressing-style", "path", "path"),
        ("webdav", "trusted-ca", "True", True),
    ],
)
def test_a_value_is_read(loaded: Load, section: str, option: str, value: str, read: object) -> None:
    config = loaded(f"{REQUIRED}[{section}]\n{option} = {value}\n").config
    name = option.lower().replace("-", "_")
    name = "clean_temp_folder_timeout" if name == "clean_temp_folder" else name
    assert getattr(getattr(config, section), name) == read


@pytest.mark.posix
@pytest.mark.parametrize(
    ("section", "option", "value", "valid"),
    [
        ("rcs", "base_uri", "rcs:8008", "https://"),
        ("rcs", "base_uri", "https://rcs:99999", "port"),
        ("rcs", "base_uri", "ftp://rcs", "https://"),
        ("rcs", "base_uri", "https://rcs/?a=b", "query"),
        ("webdav", "trusted_ca", "/no/such/file.pem", "PEM"),
        ("s3", "addressing_style", "none", "virtual"),
        ("processing", "window_past", "0", "> 0"),
        ("processing", "window_past", "nan", "number"),
        ("processing", "window_past", "inf", "number"),
        ("processing", "window_past_older_than", "-1", ">= 0"),
        ("processing", "min_poll_interval", "five", "number"),
        ("processing", "temp_dir", "/no/such/folder", "exists"),
        ("processing", "clean_temp_folder_timeout", "-2", ">= -1"),
        ("processing", "auto_clean_temp_folder", "yes", "1 = on"),
        ("processing", "batch_read_screen_recording_metadata", "true", "whole number"),
        ("processing", "query_slice_size", "0", ">= 1"),
        ("processing", "muxer_id", "1.5", "whole number"),
        ("processing", "ffmpeg", "/no/such/ffmpeg", "executable"),
        ("processing", "openssl", "no-such-openssl", "PATH"),
        ("advanced", "worker_threads", "0", ">= 1"),
        ("advanced", "pagination", "0", ">= 1"),
        ("advanced", "max_overlap_allowed", "-0.1", ">= 0"),
        ("advanced", "video_padding_slice_length_ms", "0", ">= 1"),
        ("advanced", "audio_codec", "mp3", "copy, aac"),
        ("logfile", "logfile_path", "/no/such/folder", "exists"),
        ("logfile", "format", "xml", "text, json"),
        ("logfile", "level", "loud", "debug"),
        ("logfile", "max_bytes", "10MB", "whole number"),
        ("logfile", "output", "kafka", "file, stderr, journald, syslog, eventlog"),
        ("logfile", "syslog_address", "loghost", "/dev/log, or host:port"),
        ("logfile", "syslog_address", "udp://loghost:514", "/dev/log, or host:port"),
        # The look fails, as below a folder that is closed to the account.
        ("monitoring", "key", f"/{'x' * 300}", "may read"),
        ("alerts", "command", f"/{'x' * 300}", "may execute"),
    ],
)
def test_a_problem_names_section_option_value_and_the_valid_values(
    refused: Refused, section: str, option: str, value: str, valid: str
) -> None:
    (problem,) = refused(f"{REQUIRED}[{section}]\n{option} = {value}\n").problems
    assert problem.where == f"[{section}] {option} = {value!r}"
    assert valid in problem.what


def test_rws_timeout_is_at_least_30(loaded: Load, refused: Refused) -> None:
    assert loaded(f"{REQUIRED}rws_timeout = 31\n").config.htcc.rws_timeout == 31
    assert ">= 30" in str(refused(f"{REQUIRED}rws_timeout = 29\n"))


def test_every_problem_is_reported_at_once(refused: Refused) -> None:
    text = (
        "[htcc]\nrws_timeout = 5\ntrusted_ca = /no/such.pem\n[processing]\nwindow_past = x\nmuxer_id = 4\n"
        "total_muxers = 2\nffprobe = /none\n[advanced]\npagination = 0\n[logfile]\nformat = xml\nlogfile_path = /none\n"
    )
    reported = [problem.where.split(" = ")[0] for problem in refused(text).problems]
    assert sorted(reported) == sorted(
        [
            "[htcc] base_uri",
            "[htcc] contact_center_id",
            "[htcc] rws_timeout",
            "[htcc] trusted_ca",
            "[processing] window_past",
            "[processing] ffprobe",
            "[processing] muxer_id",
            "[advanced] pagination",
            "[logfile] format",
            "[logfile] logfile_path",
        ]
    )


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("[procesing]", "did you mean processing"),
        ("[htcc]\npasword = x", "did you mean password"),
        ("[htcc]\nbase_url = x", "did you mean base_uri"),
    ],
)
def test_an_unknown_name_is_a_warning_with_did_you_mean(loaded: Load, line: str, hint: str) -> None:
    text = REQUIRED.replace("[htcc]", line, 1) if line.startswith("[htcc]") else f"{REQUIRED}{line}\n"
    assert any("unknown" in warning and hint in warning for warning in loaded(text).warnings)


def test_an_unknown_name_that_resembles_no_option_gets_no_hint(loaded: Load) -> None:
    (warning,) = [item for item in loaded(f"{REQUIRED}zzzqqq = 1\n").warnings if "zzzqqq" in item]
    assert "did you mean" not in warning


@pytest.mark.parametrize("header", ["[rsc]", "[RSC]", "[Rsc]"])
def test_the_section_rsc_is_read_as_rcs_with_a_warning(loaded: Load, header: str) -> None:
    result = loaded(f"{REQUIRED}{header}\nbase_uri = http://rcs:8008\n")
    assert result.config.rcs.base_uri == "http://rcs:8008"
    assert any(header in warning and "[rcs]" in warning for warning in result.warnings)


def test_rsc_and_rcs_together_are_both_read(loaded: Load) -> None:
    rcs = loaded(f"{REQUIRED}[rsc]\nusername = u\n[rcs]\npassword = geheim99\n").config.rcs
    assert (rcs.username, rcs.password) == ("u", "geheim99")


CASES = st.sampled_from([str.lower, str.upper, str.title])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    spelled=st.sampled_from([("processing", "query_slice_size"), ("advanced", "video_padding_slice_length_ms")]),
    dashes=st.lists(st.booleans(), min_size=8, max_size=8),
    case_of_section=CASES,
    case_of_option=CASES,
)
def test_case_dash_and_underscore_do_not_matter_in_names(
    loaded: Load,
    spelled: tuple[str, str],
    dashes: list[bool],
    case_of_section: Callable[[str], str],
    case_of_option: Callable[[str], str],
) -> None:
    section, name = spelled
    parts = name.split("_")
    written = parts[0] + "".join(("-" if dash else "_") + part for dash, part in zip(dashes, parts[1:], strict=False))
    result = loaded(f"{REQUIRED}[{case_of_section(section)}]\n{case_of_option(written)} = 17\n")
    assert getattr(getattr(result.config, section), name) == 17
    assert not [warning for warning in result.warnings if "unknown" in warning]


SECRET_OPTIONS = [
    ("htcc", "password", "HTCC_PASSWORD"),
    ("rcs", "password", "RCS_PASSWORD"),
    ("webdav", "password", "WEBDAV_PASSWORD"),
    ("s3", "secret_access_key", "S3_SECRET_ACCESS_KEY"),
    ("monitoring", "password", "MONITORING_PASSWORD"),
]


@pytest.mark.parametrize(("section", "option", "variable"), SECRET_OPTIONS)
def test_the_environment_overrides_the_file(loaded: Load, section: str, option: str, variable: str) -> None:
    text = f"{REQUIRED}{'' if section == 'htcc' else f'[{section}]'}\n{option} = from-file\n"
    assert getattr(getattr(loaded(text).config, section), option) == "from-file"
    given = loaded(text, environ={variable: "from-environment"}).config
    assert getattr(getattr(given, section), option) == "from-environment"
    assert "from-environment" in given.secret_values


def test_an_empty_variable_does_not_override_the_file(loaded: Load) -> None:
    assert loaded(f"{REQUIRED}password = p\n", environ={"HTCC_PASSWORD": ""}).config.htcc.password == "p"


def test_a_password_in_the_environment_that_is_not_one_line_of_utf_8_is_refused_without_showing_it(refused: Refused) -> None:
    for end, reason in (
        ("\udce9", "is not UTF-8 text"),
        ("\n", "contains a line break"),
    ):  # how Python represents the byte E9
        [problem] = refused(REQUIRED, environ={"HTCC_PASSWORD": SECRET + end}).problems
        assert str(problem).startswith(f"[htcc] password: {reason}") and SECRET not in str(problem)


def test_the_command_line_overrides_the_file(loaded: Load) -> None:
    text = f"{REQUIRED}[processing]\nmuxer_id = 0\ntotal_muxers = 2\nmuxer_type = primary\n"
    command_line = {"muxer_id": "2", "total_muxers": "4", "muxer_type": "backup"}
    processing = loaded(text, command_line=command_line).config.processing
    assert (processing.muxer_id, processing.total_muxers, processing.muxer_type) == (2, 4, "backup")


def test_an_empty_argument_does_not_override_the_file(loaded: Load) -> None:
    text = f"{REQUIRED}[processing]\nmuxer_id = 1\ntotal_muxers = 2\n"
    assert loaded(text, command_line={"muxer_id": "", "total_muxers": ""}).config.processing.muxer_id == 1


def test_the_command_line_overrides_the_three_sharding_options_only() -> None:
    assert {name for _, name, option in all_options() if option.command_line} == {"muxer_id", "total_muxers", "muxer_type"}


def test_an_invalid_argument_is_a_problem_like_an_invalid_line(refused: Refused) -> None:
    error = refused(REQUIRED, command_line={"muxer_id": "two"})
    assert "[processing] muxer_id = 'two'" in str(error)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    password=st.text(st.sampled_from("%abc$(){}[]#;=:'\"\\&üß€ *+"), min_size=1, max_size=30).filter(
        lambda text: text == text.strip()
    )
)
def test_a_password_is_plain_text(loaded: Load, password: str) -> None:
    assert loaded(f"{REQUIRED}password = {password}\n").config.htcc.password == password


@pytest.mark.parametrize("password", ["100%", "%(username)s", "%%", "%40", "a;b #c"])
def test_a_percent_sign_or_a_comment_sign_in_a_password_is_text(loaded: Load, password: str) -> None:
    assert loaded(f"{REQUIRED}password = {password}\n").config.htcc.password == password


def test_a_file_with_a_byte_order_mark_and_windows_line_ends_is_read(loaded: Load) -> None:
    text = b"\xef\xbb\xbf" + f"{REQUIRED}username = k\u00f6nig\n".replace("\n", "\r\n").encode()
    assert loaded(text).config.htcc.username == "k\u00f6nig"


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (b"[htcc]\nusername = \xff\xfe\n", "line 2"),
        (f"{REQUIRED}trusted-ca = true\ntrusted_ca = false\n", "trusted_ca is given twice"),
        (f"{REQUIRED}[rcs]\n[rcs]\n", "[rcs] is given twice"),
        (f"base_uri = x\n{REQUIRED}", "line 1"),
        (f"{REQUIRED}what is this\n", "line 4"),
    ],
)
def test_a_problem_names_the_unreadable_file(refused: Refused, text: str | bytes, reported: str) -> None:
    assert reported in str(refused(text))


def test_an_option_in_two_spellings_of_one_section_is_a_duplicate(refused: Refused) -> None:
    assert "twice" in str(refused(f"{REQUIRED}username = a\n[HTCC]\nusername = b\n"))


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.cfg", {}, {})


@pytest.mark.parametrize(
    ("lines", "where"),
    [
        ("window_past = 10\nwindow_past_older_than = 10\n", "window_past_older_than"),
        ("window_past = 10\nwindow_past_older_than = 11\n", "window_past_older_than"),
        ("muxer_id = 2\ntotal_muxers = 2\n", "muxer_id"),
        ("muxer_id = 1\n", "muxer_id"),
    ],
)
def test_contradictions_are_problems(refused: Refused, lines: str, where: str) -> None:
    (problem,) = refused(f"{REQUIRED}[processing]\n{lines}").problems
    assert problem.where.startswith(f"[processing] {where}")


@pytest.mark.parametrize(
    "lines",
    ["muxer_id = 0\ntotal_muxers = 1\nmuxer_type = backup\n", "muxer_id =\ntotal_muxers = 3\n", "muxer_id = -1\n"],
)
def test_these_sharding_options_do_not_contradict_each_other(loaded: Load, lines: str) -> None:
    assert loaded(f"{REQUIRED}[processing]\n{lines}").config.processing.total_muxers >= 1


BAD_SHARDING = [
    ("total_muxers", "many", "whole number"),
    ("total_muxers", "0", ">= 1"),
    ("muxer_type", "secondary", "primary, backup"),
]


@pytest.mark.parametrize(("name", "value", "valid"), BAD_SHARDING)
def test_an_invalid_sharding_option_is_refused_when_sharding_is_on(
    refused: Refused, name: str, value: str, valid: str
) -> None:
    (problem,) = refused(f"{REQUIRED}[processing]\nmuxer_id = 0\n{name} = {value}\n").problems
    assert problem.where == f"[processing] {name} = {value!r}" and valid in problem.what


@pytest.mark.parametrize("off", ["", "-1"])
@pytest.mark.parametrize(
    ("name", "value"), [("total_muxers", "4"), ("muxer_type", "backup"), *((name, value) for name, value, _ in BAD_SHARDING)]
)
def test_without_sharding_its_other_options_are_ignored_with_a_warning(
    loaded: Load, off: str, name: str, value: str
) -> None:
    result = loaded(f"{REQUIRED}[processing]\nmuxer_id = {off}\n{name} = {value}\n")
    assert not result.config.is_sharded
    (warning,) = [item for item in result.warnings if name in item]
    assert repr(value) in warning and "ignored" in warning and "muxer_id" in warning


def test_an_invalid_muxer_id_hides_no_other_problem(refused: Refused) -> None:
    reported = [problem.where for problem in refused(f"{REQUIRED}[processing]\nmuxer_id = x\ntotal_muxers = 0\n").problems]
    assert reported == ["[processing] muxer_id = 'x'", "[processing] total_muxers = '0'"]


@pytest.mark.parametrize(
    ("window_past", "older_than", "warned"),
    [("720", "0", False), ("721", "0", True), ("1440", "725", False), ("1440", "719", True)],
)
def test_a_window_longer_than_720_minutes_is_a_warning(
    loaded: Load, window_past: str, older_than: str, warned: bool
) -> None:
    text = f"{REQUIRED}[processing]\nwindow_past = {window_past}\nwindow_past_older_than = {older_than}\n"
    assert any("720" in warning for warning in loaded(text).warnings) is warned


@pytest.mark.parametrize(("since", "warned"), [("2100-01-01", True), ("2020-01-01", False)])
def test_a_site_that_encrypts_only_in_the_future_is_a_warning(loaded: Load, since: str, warned: bool) -> None:
    warnings = loaded(f"{REQUIRED}[audit]\nencrypted_since = {since}\n").warnings
    assert any("encrypted_since is in the future" in one for one in warnings) is warned


@pytest.mark.parametrize("name", ["call_recording_extra_query_string", "call_recording_query_string"])
def test_the_misprint_of_the_guide_is_repaired_with_a_warning(loaded: Load, name: str) -> None:
    result = loaded(f"{REQUIRED}[advanced]\n{name} = userData=SRSScreenRecordingStateStarted>anAndScroll=true\n")
    assert getattr(result.config.advanced, name) == "userData=SRSScreenRecordingStateStarted&scanAndScroll=true"
    assert any(name in warning for warning in result.warnings)


@pytest.mark.parametrize("name", ["startTime", "endTime", "limit", "STARTTIME", " limit", "start%54ime"])
def test_an_extra_query_must_not_set_the_window(refused: Refused, name: str) -> None:
    query = f"userData=a&{name}=5"
    (problem,) = refused(f"{REQUIRED}[advanced]\ncall_recording_extra_query_string = {query}\n").problems
    assert problem.where == f"[advanced] call_recording_extra_query_string = {query!r}"
    assert "window_past" in problem.what and "pagination" in problem.what


def test_values_and_the_migration_query_may_contain_the_names_of_the_window_parameters(loaded: Load) -> None:
    queries = "call_recording_extra_query_string = userData=limit\ncall_recording_query_string = startTime=0&limit=5\n"
    assert not [warning for warning in loaded(f"{REQUIRED}[advanced]\n{queries}").warnings if "query" in warning]


def test_disable_is_not_valid_as_a_migration_query(refused: Refused) -> None:
    (problem,) = refused(f"{REQUIRED}[advanced]\ncall_recording_query_string = disable\n").problems
    assert "name=value" in problem.what


@pytest.mark.parametrize("option", ["call_recording_extra_query_string", "call_recording_query_string"])
@pytest.mark.parametrize(
    ("name", "hint"), [("username", "did you mean userName?"), ("callerNumber", "did you mean"), ("zzz", "ignore it")]
)
def test_a_query_parameter_unknown_to_the_guide_is_a_warning(loaded: Load, option: str, name: str, hint: str) -> None:
    (warning,) = [item for item in loaded(f"{REQUIRED}[advanced]\n{option} = {name}=x\n").warnings if "query" in item]
    assert option in warning and repr(name) in warning and hint in warning


@pytest.mark.parametrize("query", ["disable", "DISABLE", "userData=a&scanAndScroll=true"])
def test_a_valid_extra_query_gets_no_warning(loaded: Load, query: str) -> None:
    text = f"{REQUIRED}[advanced]\ncall_recording_extra_query_string = {query}\n"
    assert not [warning for warning in loaded(text).warnings if "query" in warning]


@pytest.mark.parametrize(
    "text",
    [
        f"[htcc]\npassword = {SECRET}\npassword = {SECRET}\n",
        f"password = {SECRET}\n",
        f"{REQUIRED}pasword = {SECRET}\nrws_timeout = 1\n",
        f"{REQUIRED}password {SECRET}\n",
        f"{REQUIRED}[s3]\nsecret_access_key = {SECRET}\naddressing_style = x\n",
    ],
)
def test_a_message_never_contains_a_secret(refused: Refused, text: str) -> None:
    error = refused(text)
    assert SECRET not in str(error)
    assert SECRET not in "".join(map(str, error.problems))


def test_an_indented_password_is_not_in_the_message_about_the_option_above(refused: Refused) -> None:
    error = refused(f"{REQUIRED}rws_timeout = 30\n  password = {SECRET}\n")
    assert SECRET not in str(error)


def test_an_indented_line_is_not_silently_added_to_the_value_above(refused: Refused) -> None:
    error = refused(f"{REQUIRED}username = ops\n  password = {SECRET}\n")
    assert "[htcc] username" in str(error)
    assert SECRET not in str(error)


@pytest.mark.parametrize("option", ["base_uri", "endpoint_url"])
def test_credentials_in_an_address_are_refused_without_showing_the_password(refused: Refused, option: str) -> None:
    section = "rcs" if option == "base_uri" else "s3"
    error = refused(f"{REQUIRED}[{section}]\n{option} = https://user:{SECRET}@host:1\n")
    assert f"[{section}] {option}" in str(error)
    assert SECRET not in str(error)


def test_a_warning_never_contains_a_secret(loaded: Load) -> None:
    result = loaded(f"{REQUIRED}pasword = {SECRET}\n[webdaf]\npassword = {SECRET}\n")
    assert len(result.warnings) >= 2
    assert not [warning for warning in result.warnings if SECRET in warning]


def test_the_secret_options_are_those_that_contain_a_secret() -> None:
    secret = {(section, name, option.env) for section, name, option in all_options() if option.secret}
    assert secret == {*SECRET_OPTIONS, ("fleet", "broker_url", "FLEET_BROKER_URL")}


def test_the_guide_lists_all_options_except_ours() -> None:
    ours = {f"{section}.{name}" for section, name, option in all_options() if option.origin == "ours"}
    assert {our for our in ours if not our.startswith(("s3.", "monitoring.", "fleet."))} == {
        "processing.min_free_megabytes",
        "processing.poll_whole_window",
        "webdav.hosts",
        "advanced.concurrent_queries",
        "advanced.delete_superseded",
        "advanced.blank_paused",
        "advanced.audio_codec",
        "advanced.incomplete_after",
        "logfile.level",
        "logfile.format",
        "logfile.max_bytes",
        "logfile.backup_count",
        "logfile.output",
        "logfile.syslog_address",
        "alerts.command",
        "alerts.service_minutes",
        "audit.every",
        "audit.hours",
        "audit.rate",
        "audit.encrypted_since",
        "audit.former_certificates",
    }


@pytest.mark.parametrize(
    ("base_uri", "read"), [("https://rws:8081/", "https://rws:8081"), ("http://[::1]:80/x/", "http://[::1]:80/x")]
)
def test_a_slash_at_the_end_of_an_address_does_not_matter(loaded: Load, base_uri: str, read: str) -> None:
    assert loaded(REQUIRED.replace("https://rws:8081", base_uri)).config.htcc.base_uri == read


def test_unchecked_certificates_are_a_warning(loaded: Load) -> None:
    assert any("[htcc] trusted_ca" in warning for warning in loaded(REQUIRED).warnings)
    assert not loaded(f"{REQUIRED}trusted_ca = true\npassword = geheim99\n").warnings


def test_a_temp_dir_that_leaves_no_room_for_names_is_refused_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = (
        Path(f"{tmp_path}/{'x' * (length - len(str(tmp_path)) - 1)}")
        for length in (MAX_WINDOWS_TEMP_LENGTH, MAX_WINDOWS_TEMP_LENGTH + 1)
    )
    short.mkdir()
    long.mkdir()
    monkeypatch.setattr(sys, "platform", "linux")
    assert parse_temp_folder(str(long)) == long
    monkeypatch.setattr(sys, "platform", "win32")
    assert parse_temp_folder(str(short)) == short
    with pytest.raises(ValueError, match=f"must have at most {MAX_WINDOWS_TEMP_LENGTH}"):
        parse_temp_folder(str(long))


def test_an_existing_temp_dir_and_log_folder_are_accepted(loaded: Load, tmp_path: Path) -> None:
    text = f"{REQUIRED}[processing]\ntemp_dir = {tmp_path}\n[logfile]\nlogfile_path = {tmp_path}\n"
    config = loaded(text).config
    assert config.processing.temp_dir == config.logfile.logfile_path == tmp_path


def test_a_file_is_not_accepted_as_a_folder(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "exists" in str(refused(f"{REQUIRED}[processing]\ntemp_dir = {tmp_path / 'file'}\n"))


@pytest.mark.parametrize(
    ("lines", "name"),
    [("", "single"), ("muxer_id = 2\ntotal_muxers = 4", "primary-2"), ("muxer_id = 0\nmuxer_type = backup", "backup-0")],
)
def test_each_instance_has_its_own_name(loaded: Load, lines: str, name: str) -> None:
    assert loaded(f"{REQUIRED}[processing]\n{lines}\n").config.instance_name == name


def test_the_time_since_when_a_site_encrypts_is_one_in_utc(loaded: Load, refused: Refused) -> None:
    options = loaded(f"{REQUIRED}[audit]\nencrypted_since = 2025-06-01T02:00:00+02:00\n").config.audit
    assert options.encrypted_since == datetime(2025, 6, 1, tzinfo=UTC)
    assert "[audit] encrypted_since" in str(refused(f"{REQUIRED}[audit]\nencrypted_since = yesterday\n"))


def test_former_certificates_are_read_at_the_start(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    text = f"{REQUIRED}[audit]\nformer_certificates = {tmp_path / 'empty.pem'}\n"
    assert "[audit] former_certificates" in str(refused(text))


def test_the_sections_match_the_specification() -> None:
    assert list(SECTIONS)[:7] == ["htcc", "rcs", "webdav", "s3", "processing", "advanced", "logfile"]
    assert list(SECTIONS)[7:] == ["monitoring", "alerts", "audit", "fleet"]
