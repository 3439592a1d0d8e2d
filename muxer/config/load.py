"""Reads muxer.cfg, the environment and the command line into a :class:`Config`, or reports all problems at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from muxer.config import fleet_options, monitoring_address
from muxer.config.file import GivenOption, did_you_mean, read_file
from muxer.config.keystore import open_keystore
from muxer.config.odd_values import describe_oddity
from muxer.config.option import Option
from muxer.config.query_string import DISABLED, KNOWN_PARAMETERS, parameter_names, repair_extra_query
from muxer.config.schema import FILE_OUTPUT, SECTIONS, AdvancedOptions, Config, all_options
from muxer.errors import ConfigError, Problem
from muxer.system.masking import mask_credentials

RECOMMENDED_WINDOW_MINUTES = 720
RECOMMENDED_LOG_BYTES = 65_536

QUERY_OPTIONS = ("call_recording_extra_query_string", "call_recording_query_string")

# The guide: without a muxer_id these are ignored, even if malformed; its formula for total_muxers gives 0 then.
SHARDING_OPTIONS = ("total_muxers", "muxer_type")
NOT_SHARDED_TEXT = "it is ignored, because without a muxer_id of 0 or more sharding is off"

# The addresses of WebDAV servers come from the metadata; the WebDAV client logs this text at the first one.
UNCHECKED_TLS_TEXT = "[{}] trusted_ca = false: TLS certificates are not checked"

KEYSTORE_UNUSABLE_TEXT = "the keystore cannot be used, and may hold it"

# Origins of values, besides the command line and the environment.
FILE, KEYSTORE, DEFAULT = "file", "keystore", "default"

OptionKey = tuple[str, str]
_OPTION = re.compile(r"\[(\w+)\] (\w+)")


@dataclass(frozen=True)
class LoadedConfig:
    """A usable configuration, its warnings, and the origin of each value by (section, name)."""

    config: Config
    warnings: tuple[str, ...]
    origins: Mapping[OptionKey, str]


@dataclass
class ConfigReading:
    """The valid values of a configuration, usable or not, with their origins, and its problems and warnings."""

    values: dict[str, dict[str, Any]] = field(default_factory=lambda: {section: {} for section in SECTIONS})
    origins: dict[OptionKey, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    # Those of the problems that only hide secrets.
    keystore_problems: list[Problem] = field(default_factory=list)
    # Why an option has no valid value, if its own value is not the reason.
    unknown: dict[OptionKey, str] = field(default_factory=dict)

    def has_value(self, section: str, name: str) -> bool:
        """Whether an option has a valid value."""
        return name in self.values[section]

    @property
    def config(self) -> Config:
        """The configuration; an option with an invalid value has its default, None where that is invalid too."""
        values = {section: dict(valid) for section, valid in self.values.items()}
        for section, name, option in all_options():
            if not self.has_value(section, name):
                values[section][name] = default_value(option)
        return Config(**{section: cls(**values[section]) for section, cls in SECTIONS.items()}, origins=self.origins)


def load_config(
    path: Path, command_line: Mapping[str, str], environ: Mapping[str, str], *, needs_secrets: bool = True
) -> LoadedConfig:
    """Return the configuration; `command_line` values are by name (empty: not given). Raises ConfigError with all problems.

    Precedence: command line, environment, file, keystore, default. Without `needs_secrets`, a keystore that cannot be used
    here is a warning: only the account of the service may have its key.
    """
    reading = inspect_config(path, command_line, environ)
    hidden = [] if needs_secrets else reading.keystore_problems
    if any(problem not in hidden for problem in reading.problems):
        raise ConfigError(reading.problems, reading.values["logfile"], reading.warnings)
    return LoadedConfig(
        reading.config, (*reading.warnings, *map(str, hidden)), {**reading.origins, **(reading.unknown if hidden else {})}
    )


def inspect_config(path: Path, command_line: Mapping[str, str], environ: Mapping[str, str]) -> ConfigReading:
    """Like :func:`load_config`, but return the problems with the valid values instead of raising ConfigError."""
    reading = ConfigReading()
    try:
        file = read_file(path, reading.warnings, reading.problems)
    except ConfigError as error:
        reading.problems += error.problems
        return reading
    stored, is_keystore_usable = _load_keystore(path.parent, reading.keystore_problems)
    reading.problems += reading.keystore_problems
    for section, name, option in all_options():
        password = stored.get((section, name), "")
        text, origin = _option_text(option, name, file.get(section, {}).get(name), password, command_line, environ)
        reading.origins[section, name] = origin
        if option.secret and origin == DEFAULT and not is_keystore_usable:
            reading.unknown[section, name] = KEYSTORE_UNUSABLE_TEXT  # It may hold the value: the default is not sent.
            continue
        _store_value(reading, (section, name), option, text)
    _skip_unused_log_folder(reading)
    _find_contradictions(reading)
    reading.problems += monitoring_address.find_contradictions(reading.values["monitoring"])
    reading.problems += fleet_options.find_problems(reading.values["fleet"])
    reading.problems = locate_problems(reading.problems, reading.origins)
    if not reading.problems:
        _repair_queries(reading.values["advanced"], reading.warnings)
        reading.warnings += _config_warnings(reading.config)
        reading.warnings += [*_default_password_warning(reading.origins), *_empty_password_warnings(reading)]
    return reading


def locate_problems(problems: Sequence[Problem], origins: Mapping[OptionKey, str]) -> list[Problem]:
    """Return the problems with the origins of the values that they are about, except defaults."""
    named = [_OPTION.match(problem.where) for problem in problems]
    found = [origins.get((match[1], match[2]), DEFAULT) if match else DEFAULT for match in named]
    return [
        problem if origin == DEFAULT else replace(problem, origin=origin)
        for problem, origin in zip(problems, found, strict=True)
    ]


def _store_value(reading: ConfigReading, key: OptionKey, option: Option, text: str) -> None:
    section, name = key
    values, oddity = reading.values[section], describe_oddity(text)
    try:
        values[name] = _parse_value(option, text, reading.origins[key])
        if oddity:
            reading.warnings.append(
                f"[{section}] {name} ({reading.origins[key]}) may not be meant as it is written: {oddity}"
            )
    except ValueError as error:
        shown = "" if option.secret or not text else f" = {_printable_value(text)!r}"
        problem = Problem(f"[{section}] {name}{shown}", f"{error}{f'; {oddity}' if oddity else ''}")
        if name in SHARDING_OPTIONS and values.get("muxer_id", 0) < 0:
            values[name], reading.origins[key] = option.parse(option.default), DEFAULT
            reading.warnings.append(f"{problem}; {NOT_SHARDED_TEXT}")
        else:
            reading.problems.append(problem)


def _option_text(
    option: Option,
    name: str,
    file: GivenOption | None,
    password: str,
    command_line: Mapping[str, str],
    environ: Mapping[str, str],
) -> tuple[str, str]:
    """Return the text of an option and its origin; `password` is its value in the keystore."""
    if option.command_line and command_line.get(name):
        return command_line[name], f"command line --{name.replace('_', '-')}"
    if option.env and environ.get(option.env):
        return environ[option.env], f"environment {option.env}"
    if file is not None and file.text:
        return file.text, _file_position(file, name)
    return password, KEYSTORE if password else DEFAULT


def _file_position(given: GivenOption, name: str) -> str:
    """Return the line of an option, with its names in the file if they differ from those of the schema."""
    section = given.section.strip().lower()
    renamed = section not in SECTIONS or given.option != name
    return f"{FILE}, line {given.line}" + (f", as [{given.section}] {given.option}" if renamed else "")


def default_value(option: Option) -> Any:
    """Return the default of an option, None when it is invalid on this machine."""
    try:
        return option.parse(option.default)
    except ValueError:
        return None


def _load_keystore(folder: Path, problems: list[Problem]) -> tuple[Mapping[OptionKey, str], bool]:
    """Return the passwords of the keystore, and whether it is usable; else its problem is added to `problems`."""
    try:
        return open_keystore(folder), True
    except ConfigError as error:
        problems += error.problems
        return {}, False


def _parse_value(option: Option, text: str, origin: str) -> Any:
    if option.required and not text:
        raise ValueError("is required")
    if "\n" in text and not origin.startswith(FILE):
        raise ValueError(f"contains a line break; remove it from the value in the {origin}")
    if "\n" in text:
        raise ValueError("contains a line break; start the option in the next line of the file without leading spaces")
    if any("\ud800" <= char <= "\udfff" for char in text):  # Python's replacement for other bytes in the environment
        raise ValueError("is not UTF-8 text")
    return option.parse(text or option.default)


def _printable_value(text: str) -> str:
    """Return the part of a value that may be logged: a second line may be an option, an address may hold credentials."""
    return mask_credentials(text.splitlines()[0])


def _skip_unused_log_folder(reading: ConfigReading) -> None:
    """Drop the problem of a log folder that no log file is written to."""
    if reading.values["logfile"].get("output", FILE_OUTPUT) != FILE_OUTPUT:
        reading.values["logfile"].setdefault("logfile_path", None)
        reading.problems = [one for one in reading.problems if not one.where.startswith("[logfile] logfile_path")]


def _find_contradictions(reading: ConfigReading) -> None:
    """Check options against each other (guide: sharding, HA), and remove invalid values."""
    values = reading.values["processing"]
    past, older = values.get("window_past"), values.get("window_past_older_than")
    if past is not None and older is not None and older >= past:
        what = f"must be less than window_past ({past:g})"
        reading.problems.append(Problem(f"[processing] window_past_older_than = '{older:g}'", what))
        del values["window_past_older_than"]
    muxer_id, total = values.get("muxer_id"), values.get("total_muxers")
    if muxer_id is not None and total is not None and 0 <= muxer_id >= total:
        what = f"must be less than total_muxers ({total}), or -1 to switch sharding off"
        reading.problems.append(Problem(f"[processing] muxer_id = '{muxer_id}'", what))
        del values["muxer_id"]


def _repair_queries(advanced: dict[str, Any], warnings: list[str]) -> None:
    """Correct the misprint of the guide in both query options."""
    for name in QUERY_OPTIONS:
        repaired = repair_extra_query(advanced[name])
        if repaired != advanced[name]:
            warnings.append(f"[advanced] {name}: the guide's misprint is read as {repaired!r}")
            advanced[name] = repaired


def _default_password_warning(origins: Mapping[OptionKey, str]) -> list[str]:
    if origins["htcc", "password"] != DEFAULT:
        return []
    names = "username and password" if origins["htcc", "username"] == DEFAULT else "password"
    return [f"[htcc] {names} not set: the muxer sends the default, ops; set it in the file, HTCC_PASSWORD or the keystore"]


def _empty_password_warnings(reading: ConfigReading) -> list[str]:
    """Warn of services that are configured without their password."""
    config = reading.config
    used = {"rcs": config.rcs.base_uri or config.rcs.username, "webdav": config.webdav.username}
    return [
        f"[{section}] {name} not set: the muxer sends an empty password; set it in the file, {option.env} or the keystore"
        for section, name, option in all_options()
        if option.secret and used.get(section) and reading.origins[section, name] == DEFAULT
    ]


def _incomplete_login_warnings(config: Config) -> list[str]:
    """Warn of half a login, which is not used or is refused."""
    pairs = (
        ("rcs", "username", config.rcs.username, "base_uri", config.rcs.base_uri),
        ("webdav", "username", config.webdav.username, "password", config.webdav.password),
        ("s3", "access_key_id", config.s3.access_key_id, "secret_access_key", config.s3.secret_access_key),
        ("s3", "secret_access_key", config.s3.secret_access_key, "access_key_id", config.s3.access_key_id),
    )
    return [
        f"[{section}] {name} not set, although {other} is: the login will fail"
        for section, name, one, other, given in pairs
        if given and not one
    ]


def _config_warnings(config: Config) -> list[str]:
    processing = config.processing
    advice, window = [], processing.window_past - processing.window_past_older_than
    if window <= processing.min_poll_interval and not config.advanced.call_recording_query_string:  # A migration polls once.
        advice.append(
            f"[processing] min_poll_interval is not less than the window of {window:g} minutes: "
            "calls between two polls are never seen; lengthen the window"
        )
    if window > RECOMMENDED_WINDOW_MINUTES:
        advice.append(
            f"[processing] the window is longer than {RECOMMENDED_WINDOW_MINUTES} minutes, "
            "which may cause problems with Elasticsearch; use more instances with a window each"
        )
    if not config.is_sharded:
        given = (("total_muxers", processing.total_muxers, 1), ("muxer_type", processing.muxer_type, "primary"))
        advice += [f"[processing] {name} = '{value}': {NOT_SHARDED_TEXT}" for name, value, off in given if value != off]
    advice += _parameter_warnings(config.advanced)
    advice += _incomplete_login_warnings(config)
    if config.logfile.output == FILE_OUTPUT and 0 < config.logfile.max_bytes < RECOMMENDED_LOG_BYTES:
        advice.append(
            f"[logfile] max_bytes is less than {RECOMMENDED_LOG_BYTES}: older lines of the log are lost after a short time"
        )
    connections = (
        ("htcc", config.htcc.base_uri, config.htcc.trusted_ca),
        ("rcs", config.rcs.base_uri or "", config.rcs.trusted_ca),
        ("s3", config.s3.endpoint_url or "https:", config.s3.trusted_ca),
    )
    for section, address, trusted_ca in connections:
        if address.startswith("https:") and trusted_ca is False:
            advice.append(UNCHECKED_TLS_TEXT.format(section))
    if config.audit.encrypted_since is not None and config.audit.encrypted_since > datetime.now(UTC):
        advice.append(
            "[audit] encrypted_since is in the future: an unencrypted muxed file of unencrypted sources is no finding"
        )
    if config.is_fleet:
        advice += fleet_options.find_warnings(config.fleet.broker_url, config.fleet.trusted_ca)
    return advice + monitoring_address.certificate_warnings(config.monitoring.certificate)


def _parameter_warnings(advanced: AdvancedOptions) -> list[str]:
    """Warn of query parameters that the guide does not list: RWS may ignore one, and then returns every recording."""
    queries = {name: getattr(advanced, name) for name in QUERY_OPTIONS}
    return [
        f"[advanced] {option}: the guide has no query parameter {name!r}; RWS may ignore it"
        f"{did_you_mean(name, KNOWN_PARAMETERS)}"
        for option, query in queries.items()
        if query.lower() != DISABLED
        for name in parameter_names(query)
        if name not in KNOWN_PARAMETERS
    ]
