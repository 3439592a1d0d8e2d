"""Parsers of option values. Each raises ValueError with a sentence about what is valid."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from muxer.config.ca_bundle import read_certificates
from muxer.config.query_string import DISABLED, WINDOW_PARAMETERS, parameter_names
from muxer.system import iso_time
from muxer.system.allowed_hours import AllowedHours

# Below it, the muxer uses names of at most 81 characters: a file of padding in the folder of a command.
MAX_WINDOWS_TEMP_LENGTH = 170

_HOST = re.compile(r"(\*|(\*\.)?[^\s*/?#@:\[\]]+|\[[0-9a-f:.]+\])(:\d+)?")


class ValueType(Protocol):
    """Parses a text; raises ValueError with a sentence about what is valid."""

    def __call__(self, text: str, /) -> object: ...


def parse_text(value: str) -> str:
    """Return any text unchanged."""
    return value


def parse_uri(value: str) -> str:
    """Parse an http or https address; return it without a trailing slash."""
    if "@" in value or "\uff20" in value:  # In a mistyped address it may stand anywhere.
        raise ValueError("must not contain a user name or password, nor any other @; use the options username and password")
    if any(char.isspace() for char in value):
        raise ValueError("must be an address without spaces")
    try:
        parts = urlsplit(value)
    except ValueError:  # Its text has parts of the address.
        raise ValueError("must be an address such as https://host:port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as https://host:port")
    if parts.query or parts.fragment:
        raise ValueError("must not contain a query or a fragment")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError("has a port that is not a number from 0 to 65535") from error
    return value.rstrip("/")


def parse_hosts(value: str) -> tuple[str, ...]:
    """Parse a comma-separated list of servers, each with or without a port, ``*.domain`` or ``*``."""
    entries = tuple(entry for one in value.split(",") if (entry := one.strip().lower()))
    for entry in entries:
        try:
            well_formed = urlsplit(f"//{entry}").port != 0
        except ValueError:
            well_formed = False
        if not (well_formed and _HOST.fullmatch(entry)):
            raise ValueError("must be a comma-separated list of names such as dav.example.com, dav:8080, *.example.com or *")
    return entries


def _unit_text(unit: str) -> str:
    return f", in {unit} and without a unit behind it" if unit else ""


@dataclass(frozen=True)
class IntegerType:
    """A whole number from `minimum` (None: unlimited) to `maximum`, in a `unit` if it has one."""

    minimum: int | None = None
    maximum: int = 1_000_000_000
    unit: str = ""

    def __call__(self, value: str, /) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"must be a whole number{self._bounds_text()}") from None
        if (self.minimum is not None and number < self.minimum) or number > self.maximum:
            raise ValueError(f"must be a whole number{self._bounds_text()}")
        return number

    def _bounds_text(self) -> str:
        bounds = f" up to {self.maximum}" if self.minimum is None else f" >= {self.minimum} and at most {self.maximum}"
        return f"{bounds}{_unit_text(self.unit)}"


@dataclass(frozen=True)
class NumberType:
    """A number, fractions allowed, from `minimum` (or greater than `above`) to `maximum`, in a `unit` if it has one."""

    minimum: float | None = None
    above: float | None = None
    maximum: float = 1e9
    unit: str = ""

    def __call__(self, value: str, /) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        low = (self.minimum is not None and number < self.minimum) or (self.above is not None and number <= self.above)
        if number != number or number > self.maximum or low:
            bound = f" >= {self.minimum:g}" if self.minimum is not None else ""
            bound = bound or (f" > {self.above:g}" if self.above is not None else "")
            raise ValueError(f"must be a number{bound} and at most {self.maximum:g}{_unit_text(self.unit)}")
        return number


def parse_days(value: str) -> float:
    """Parse a number of days, such as ``7`` or ``7 days``."""
    number = value.strip().removesuffix("s").removesuffix("day")
    try:
        return NumberType(0, maximum=3650)(number)
    except ValueError:
        raise ValueError("must be a number of days from 0 to 3650, such as 7 or 7 days") from None


def parse_hours(value: str) -> AllowedHours | None:
    """Parse the hours in which something is allowed, such as ``20-6``; empty: always."""
    return AllowedHours.parse(value) if value.strip() else None


def parse_time(value: str) -> datetime:
    """Parse a time such as ``2026-03-01T00:00:00Z``."""
    time = iso_time.parse_time(value)
    if time is None:
        raise ValueError("must be a time such as 2026-03-01T00:00:00Z")
    return time


def parse_syslog_address(value: str) -> str:
    """Return the absolute path of a socket, or ``host:port``, unchanged."""
    if value.startswith("/"):
        return value
    try:
        parts = urlsplit(f"//{value}")
        if parts.hostname and parts.port and parts.netloc == value and "@" not in value:
            return value
    except ValueError:
        pass
    raise ValueError("must be an absolute path, such as /dev/log, or host:port")


def parse_query(value: str) -> str:
    """Check query parameters in the form of the guide, ``name=value[&name=value...]``, and return them unchanged."""
    pairs = [pair.partition("=") for pair in value.lstrip("?").split("&") if pair.strip()]
    well_formed = all(name.strip() and sign for name, sign, _ in pairs)
    if value and not (pairs and well_formed):
        raise ValueError("must have the form name=value[&name=value...]")
    return value


def parse_extra_query(value: str) -> str:
    """Check additional query parameters, or the word ``disable``, and return them unchanged."""
    if value.lower() == DISABLED:
        return value
    own = {name.lower() for name in WINDOW_PARAMETERS}
    taken = [name for name in parameter_names(parse_query(value)) if name.lower() in own]
    if taken:
        raise ValueError(f"must not contain {', '.join(taken)}: window_past, window_past_older_than and pagination set them")
    return value


def parse_switch(value: str) -> bool:
    """Return whether a whole number is 1 (guide: 1 = on, any other integer = off)."""
    try:
        return int(value) == 1
    except ValueError:
        raise ValueError("must be a whole number: 1 = on, any other = off") from None


@dataclass(frozen=True)
class ChoiceType:
    """One of `words`, in any case."""

    words: tuple[str, ...]

    def __call__(self, value: str, /) -> str:
        if value.lower() not in self.words:
            raise ValueError(f"must be one of: {', '.join(self.words)}")
        return value.lower()


def parse_trusted_ca(value: str) -> bool | Path:
    """Parse true, false or the path of a valid PEM bundle (guide: TLS connections)."""
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    path = Path(value)
    read_certificates(path)
    return path.absolute()


def parse_certificate(value: str) -> Path:
    """Parse the path of a PEM file with certificates."""
    path = Path(value).absolute()
    try:
        read_certificates(path)
    except ValueError as error:
        raise ValueError(str(error).replace("must be true, false or", "must be")) from error
    return path


def parse_file(value: str) -> Path:
    """Parse the path of an existing, readable file; return it absolute."""
    return _parse_file(value, os.R_OK, "must be the path of a file that this process may read")


def parse_program(value: str) -> Path:
    """Parse the path of an executable file; return it absolute."""
    return _parse_file(value, os.X_OK, "must be the path of a program that this process may execute, without arguments")


def _parse_file(value: str, access: int, expected: str) -> Path:
    path = Path(value).absolute()
    _check_kind(path.is_file, expected)
    if not os.access(path, access):
        raise ValueError(expected)
    return path


def parse_folder(value: str) -> Path:
    """Parse the path of an existing, writable folder; return it absolute."""
    path = Path(value).absolute()
    _check_kind(path.is_dir, "must be the path of a folder that exists")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ValueError("must be a folder that this process may read and write")
    return path


def _check_kind(is_kind: Callable[[], bool], expected: str) -> None:
    """Raise ValueError when `is_kind`, such as ``path.is_file``, returns False or fails: a folder above may be closed."""
    try:
        found = is_kind()
    except OSError as error:
        raise ValueError(f"{expected} ({error.strerror})") from error
    if not found:
        raise ValueError(expected)


def parse_temp_folder(value: str) -> Path:
    """Parse the path of a folder for temporary files. On Windows, few programs open paths of more than 259 characters."""
    path = parse_folder(value)
    if sys.platform == "win32" and len(str(path)) > MAX_WINDOWS_TEMP_LENGTH:
        what = f"has {len(str(path))} characters; on Windows it must have at most {MAX_WINDOWS_TEMP_LENGTH}"
        raise ValueError(f"{what}, because ffmpeg and openssl do not open long paths")
    return path


def optional_type(inner: Callable[[str], object]) -> ValueType:
    """Return a parser that reads an empty value as None, and others with `inner`."""

    def parse_optional(value: str, /) -> object:
        return inner(value) if value else None

    return parse_optional
