"""Parses muxer.cfg: the text of each option and its line."""

from __future__ import annotations

import codecs
import configparser
import difflib
import errno
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from muxer.config.schema import SECTIONS, all_options
from muxer.errors import ConfigError, Problem

# The guide writes the section of the Recording Crypto Server in both ways.
SECTION_ALIASES = {"rsc": "rcs"}
# A comment may follow.
_TEXT_BEHIND_SECTION = re.compile(r"\[([^\]]*)\][^\S\n]*[^\s#;\]]")
UTF_16_TEXT = "is UTF-16 text, as some Windows programs write it; save it as UTF-8"


@dataclass(frozen=True)
class GivenOption:
    """The text of an option in the file, its line, and the section and option as they are written there."""

    text: str
    line: int
    section: str
    option: str


Sections = dict[str, dict[str, GivenOption]]


def read_file(path: Path, warnings: list[str], problems: list[Problem]) -> Sections:
    """Return the options by section and name of the schema; duplicates are `problems`. Raises ConfigError."""
    return _known_options(_known_sections(_parse_file(path), warnings, problems), warnings, problems)


def did_you_mean(word: str, valid: Iterable[str]) -> str:
    """Return a hint at the valid word that resembles `word`, empty when there is none."""
    matches = difflib.get_close_matches(word, list(valid), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


class _NumberedLines:
    """The lines of a file; `number` is that of the last line that was read."""

    def __init__(self, text: str) -> None:
        self.number = 0
        self._text = text

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(io.StringIO(self._text), start=1):
            self.number = number
            yield line


class _OptionName(str):
    """The name of an option, with ``_`` for ``-``, and its line."""

    line = 0


def _normalized_name(written: str, line: int) -> _OptionName:
    name = _OptionName(written.lower().replace("-", "_"))
    name.line = line
    return name


def _parse_file(path: Path) -> Sections:
    parser = configparser.RawConfigParser(default_section="\0", empty_lines_in_values=False)
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:  # UTF-16 without its mark can be read as UTF-8
            raise ConfigError([Problem(f"configuration file {path}", UTF_16_TEXT)])
        _check_headers(path, text)
        lines = _NumberedLines(text)

        # Called for each option while its line is the last one that was read.
        parser.optionxform = lambda optionstr: _normalized_name(optionstr, lines.number)  # type: ignore[method-assign]
        parser.read_file(lines, source=str(path))
    except OSError as error:
        reason = "does not exist" if error.errno == errno.ENOENT else (error.strerror or str(error))
        raise ConfigError([Problem(f"configuration file {path}", reason)]) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        what = UTF_16_TEXT if _is_utf_16(error.object) else f"line {line} is not UTF-8 text"
        raise ConfigError([Problem(f"configuration file {path}", what)]) from error
    except configparser.Error as error:
        raise ConfigError([Problem(f"configuration file {path}", _parser_message(error))]) from None
    return {section: _given_options(section, parser.items(section)) for section in parser.sections()}


def _check_headers(path: Path, text: str) -> None:
    """Raise ConfigError for text behind a section, which configparser drops, or takes for an option."""
    for number, line in enumerate(io.StringIO(text), start=1):
        if header := _TEXT_BEHIND_SECTION.match(line):
            what = f"line {number}: text behind [{header[1]}] on the same line; put it on a line of its own"
            raise ConfigError([Problem(f"configuration file {path}", what)])


def _is_utf_16(data: bytes) -> bool:
    return data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _given_options(section: str, items: Iterable[tuple[str, str]]) -> dict[str, GivenOption]:
    return {name: GivenOption(value, getattr(name, "line", 0), section, name) for name, value in items}


def _parser_message(error: configparser.Error) -> str:
    """Return where the file cannot be parsed, without its lines: they may contain a password."""
    if isinstance(error, configparser.MissingSectionHeaderError):
        return f"line {error.lineno} is before the first [section]"
    if isinstance(error, configparser.DuplicateOptionError):
        return f"line {error.lineno}: [{error.section}] {error.option} is given twice (- and _ are the same)"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"line {error.lineno}: section [{error.section}] is given twice"
    if isinstance(error, configparser.ParsingError):
        return f"not of the form 'option = value': line {', '.join(str(line) for line, _ in error.errors)}"
    return type(error).__name__


def _known_sections(raw: Sections, warnings: list[str], problems: list[Problem]) -> Sections:
    known: Sections = {}
    for written, content in raw.items():
        section = written.strip().lower()
        if section in SECTION_ALIASES:
            section = SECTION_ALIASES[section]
            warnings.append(f"section [{written}] is read as [{section}]")
        if section in SECTIONS:
            earlier = known.setdefault(section, {})
            twice = f"is given twice, in sections that are both read as [{section}]"
            problems += [Problem(f"[{written}] {name}", twice) for name in content if name in earlier]
            earlier.update(content)
        else:
            warnings.append(f"unknown section [{written}] is ignored{did_you_mean(section, SECTIONS)}")
    return known


def _known_options(raw: Sections, warnings: list[str], problems: list[Problem]) -> Sections:
    names: dict[str, dict[str, str]] = {section: {} for section in SECTIONS}
    for section, name, option in all_options():
        names[section].update(dict.fromkeys((name, *option.aliases), name))
    known: Sections = {section: {} for section in raw}
    for section, content in raw.items():
        for written, given in content.items():
            name = names[section].get(written, "")
            if not name:
                owners = [f"[{other}]" for other, known_names in names.items() if written in known_names]
                hint = f"; it belongs to {' or '.join(owners)}" if owners else did_you_mean(written, names[section])
                warnings.append(f"unknown option [{section}] {written} (line {given.line}) is ignored{hint}")
            elif (earlier := known[section].get(name)) is None or not earlier.text:
                known[section][name] = given
            elif given.text:
                what = f"is given twice, by names that are both read as {name} (line {given.line})"
                problems.append(Problem(f"[{section}] {earlier.option}", what))
    return known
