"""Reads muxer.cfg, the environment and the command line into a :class:`Config`, or reports everything that is wrong."""

from __future__ import annotations

import configparser
import difflib
import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muxer.config import listening
from muxer.config.keystore import open_keystore
from muxer.config.schema import SECTIONS, Advanced, Config, Option, options
from muxer.errors import ConfigError, Problem
from muxer.gir.query import DISABLED, PARAMETERS, parameter_names, repair_extra_query
from muxer.masking import LOGIN_IN_URL

# The guide writes the section of the Recording Crypto Server in both ways.
SECTION_ALIASES = {"rsc": "rcs"}
RECOMMENDED_WINDOW_MINUTES = 720

QUERY_OPTIONS = ("call_recording_extra_query_string", "call_recording_query_string")

# The guide: without a muxer_id these are ignored, whatever they say; its formula for total_muxers gives 0 then.
SHARDING_ONLY = ("total_muxers", "muxer_type")
NOT_SHARDED = "it is ignored, because without a muxer_id of 0 or more sharding is off"

# The addresses of WebDAV servers come with the metadata; its client says the same at the first one.
UNCHECKED_TLS = "[{}] trusted_ca = false: TLS certificates are not checked"

RawSections = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Loaded:
    """A usable configuration, and what is odd about it."""

    config: Config
    warnings: tuple[str, ...]


def load(path: Path, command_line: Mapping[str, str], environ: Mapping[str, str]) -> Loaded:
    """Given the path of muxer.cfg, the options of the command line (empty = not given) and the environment, return the
    configuration. Precedence: command line, environment, file, keystore beside the file, default.

    Raise :class:`ConfigError` with every problem at once.
    """
    warnings: list[str] = []
    problems: list[Problem] = []
    raw = _known_options(_known_sections(_parse(path), warnings, problems), warnings)
    values: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    stored = _stored(path.parent, problems)
    for section, name, option in options():
        given = _text_of(option, name, raw.get(section, {}), command_line, environ)
        text = given or stored.get((section, name), "")
        try:
            values[section][name] = _value(option, text)
        except ValueError as error:
            shown = "" if option.secret or not text else f" = {_shown(text)!r}"
            problem = Problem(f"[{section}] {name}{shown}", str(error))
            if name in SHARDING_ONLY and _sharding_is_off(values["processing"]):
                values[section][name] = option.parse(option.default)
                warnings.append(f"{problem}; {NOT_SHARDED}")
            else:
                problems.append(problem)
    problems += _contradictions(values["processing"]) + listening.problems(values["monitoring"])
    if problems:
        raise ConfigError(problems, values["logfile"].get("logfile_path"), warnings)
    _repair_queries(values["advanced"], warnings)
    config = Config(**{section: cls(**values[section]) for section, cls in SECTIONS.items()})
    return Loaded(config, tuple(warnings + _advice(config)))


def _parse(path: Path) -> RawSections:
    """Return the text of the file as section → option → value; names as they are written, but ``-`` read as ``_``."""
    parser = configparser.RawConfigParser(default_section="\0", empty_lines_in_values=False)
    parser.optionxform = lambda optionstr: optionstr.lower().replace("-", "_")  # type: ignore[method-assign]
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"), source=str(path))
    except OSError as error:
        reason = "does not exist" if error.errno == errno.ENOENT else (error.strerror or str(error))
        raise ConfigError([Problem(f"configuration file {path}", reason)]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([Problem(f"configuration file {path}", f"line {line} is not UTF-8 text")]) from error
    except configparser.Error as error:
        raise ConfigError([Problem(f"configuration file {path}", _parser_message(error))]) from None
    return {section: dict(parser.items(section)) for section in parser.sections()}


def _parser_message(error: configparser.Error) -> str:
    """Say where the file cannot be read, without repeating its lines: they may hold a password."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} stands before the first [section]"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: [{error.section}] {error.option} stands there twice (- and _ are the same)"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: section [{error.section}] stands there twice"
    if isinstance(error, configparser.ParsingError):
        return f"not of the form 'option = value': line {', '.join(str(line) for line, _ in error.errors)}"
    return type(error).__name__


def _known_sections(raw: RawSections, warnings: list[str], problems: list[Problem]) -> RawSections:
    known: RawSections = {}
    for written, content in raw.items():
        section = written.strip().lower()
        if section in SECTION_ALIASES:
            section = SECTION_ALIASES[section]
            warnings.append(f"section [{written}] is read as [{section}]")
        if section in SECTIONS:
            earlier = known.setdefault(section, {})
            twice = f"stands there twice, in sections that are both read as [{section}]"
            problems += [Problem(f"[{written}] {name}", twice) for name in content if name in earlier]
            earlier.update(content)
        else:
            warnings.append(f"unknown section [{written}] is ignored{_did_you_mean(section, SECTIONS)}")
    return known


def _known_options(raw: RawSections, warnings: list[str]) -> RawSections:
    names: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for section, name, option in options():
        names[section].update(dict.fromkeys((name, *option.aliases), name))
    known: RawSections = {section: {} for section in raw}
    for section, content in raw.items():
        for written, value in content.items():
            name = names[section].get(written, "")
            if not name:
                hint = _did_you_mean(written, names[section])
                warnings.append(f"unknown option [{section}] {written} is ignored{hint}")
            elif name == written or name not in content:
                known[section][name] = value.strip()
    return known


def _did_you_mean(word: str, valid: Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, list(valid), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _text_of(
    option: Option, name: str, file: Mapping[str, str], command_line: Mapping[str, str], environ: Mapping[str, str]
) -> str:
    if option.command_line and command_line.get(name):
        return command_line[name]
    if option.env and environ.get(option.env):
        return environ[option.env]
    return file.get(name, "")


def _stored(folder: Path, problems: list[Problem]) -> Mapping[tuple[str, str], str]:
    """Return the passwords of the keystore; one that cannot be used is a problem among the others."""
    try:
        return open_keystore(folder)
    except ConfigError as error:
        problems += error.problems
        return {}


def _value(option: Option, text: str) -> Any:
    if option.required and not text:
        raise ValueError("is required")
    if "\n" in text:
        raise ValueError("holds a line break; in the file, begin the option of the next line at the start of its line")
    if any("\ud800" <= char <= "\udfff" for char in text):  # what Python makes of other bytes in the environment
        raise ValueError("is not UTF-8 text")
    return option.parse(text or option.default)


def _shown(text: str) -> str:
    """Return as much of a value as may be shown: a second line may be another option, an address may hold a login."""
    return LOGIN_IN_URL.sub("***@", text.splitlines()[0])


def _sharding_is_off(processing: Mapping[str, Any]) -> bool:
    return "muxer_id" in processing and processing["muxer_id"] < 0


def _contradictions(processing: Mapping[str, Any]) -> list[Problem]:
    """Check what no single option can tell (the guide: sharding, HA). Values that failed on their own are absent."""
    problems = []
    past, older = processing.get("window_past"), processing.get("window_past_older_than")
    if past is not None and older is not None and older >= past:
        what = f"must be less than window_past ({past:g})"
        problems.append(Problem(f"[processing] window_past_older_than = '{older:g}'", what))
    muxer_id, total = processing.get("muxer_id"), processing.get("total_muxers")
    if muxer_id is not None and total is not None and 0 <= muxer_id >= total:
        what = f"must be less than total_muxers ({total}), or -1 to switch sharding off"
        problems.append(Problem(f"[processing] muxer_id = '{muxer_id}'", what))
    return problems


def _repair_queries(advanced: dict[str, Any], warnings: list[str]) -> None:
    """Undo, in both query options, the HTML accident of the guide's printed query."""
    for name in QUERY_OPTIONS:
        repaired = repair_extra_query(advanced[name])
        if repaired != advanced[name]:
            warnings.append(f"[advanced] {name}: the guide's misprint is read as {repaired!r}")
            advanced[name] = repaired


def _advice(config: Config) -> list[str]:
    processing = config.processing
    advice = []
    if processing.window_past - processing.window_past_older_than > RECOMMENDED_WINDOW_MINUTES:
        advice.append(
            f"[processing] the window is longer than {RECOMMENDED_WINDOW_MINUTES} minutes, "
            "which may cause problems with Elasticsearch; use more instances with a window each"
        )
    if not config.sharded:
        given = (("total_muxers", processing.total_muxers, 1), ("muxer_type", processing.muxer_type, "primary"))
        advice += [f"[processing] {name} = '{value}': {NOT_SHARDED}" for name, value, off in given if value != off]
    advice += _odd_parameters(config.advanced)
    connections = (
        ("htcc", config.htcc.base_uri, config.htcc.trusted_ca),
        ("rcs", config.rcs.base_uri or "", config.rcs.trusted_ca),
        ("s3", config.s3.endpoint_url or "https:", config.s3.trusted_ca),
    )
    for section, address, trusted_ca in connections:
        if address.startswith("https:") and trusted_ca is False:
            advice.append(UNCHECKED_TLS.format(section))
    return advice + listening.advice(config.monitoring.certificate)


def _odd_parameters(advanced: Advanced) -> list[str]:
    """Warn of query parameters that the guide does not have: RWS may ignore one, and then finds every recording."""
    queries = {name: getattr(advanced, name) for name in QUERY_OPTIONS}
    return [
        f"[advanced] {option}: the guide has no query parameter {name!r}; RWS may ignore it{_did_you_mean(name, PARAMETERS)}"
        for option, query in queries.items()
        if query.lower() != DISABLED
        for name in parameter_names(query)
        if name not in PARAMETERS
    ]
