"""The types of option values: each turns the text of a configuration file into a value, or says what would be valid."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from muxer.config.ca_bundle import read_certificates
from muxer.config.query_string import DISABLED, WINDOW_PARAMETERS, parameter_names

_HOST = re.compile(r"(\*|(\*\.)?[^\s*/?#@:\[\]]+|\[[0-9a-f:.]+\])(:\d+)?")


class ValueType(Protocol):
    """Turns text into a value; raises ``ValueError`` with a sentence about what is valid."""

    def __call__(self, text: str, /) -> object: ...


def parse_text(value: str) -> str:
    """Given any text, return it as it is."""
    return value


def parse_uri(value: str) -> str:
    """Given an http or https address, return it without a slash at its end. Raise ``ValueError`` otherwise."""
    parts = urlsplit(value)
    if any(char.isspace() for char in value):
        raise ValueError("must be an address without blanks")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be an address such as https://host:port")
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not hold a user name or password; use the options username and password")
    if parts.query or parts.fragment:
        raise ValueError("must not hold a query or a fragment")
    try:
        _ = parts.port
    except ValueError as error:
        raise ValueError("has a port that is not a number from 0 to 65535") from error
    return value.rstrip("/")


def parse_hosts(value: str) -> tuple[str, ...]:
    """Given names of servers with commas between, each with a port or without, ``*.domain`` or ``*``, return them."""
    entries = tuple(entry for one in value.split(",") if (entry := one.strip().lower()))
    for entry in entries:
        try:
            well_formed = urlsplit(f"//{entry}").port != 0
        except ValueError:
            well_formed = False
        if not (well_formed and _HOST.fullmatch(entry)):
            raise ValueError("must be names such as dav.example.com, dav:8080, *.example.com or *, with commas between")
    return entries


@dataclass(frozen=True)
class IntegerType:
    """A whole number, with an optional least and a greatest value."""

    least: int | None = None
    most: int = 1_000_000_000

    def __call__(self, value: str, /) -> int:
        try:
            number = int(value)
        except ValueError:
            raise ValueError(f"must be a whole number{self._bounds_text()}") from None
        if (self.least is not None and number < self.least) or number > self.most:
            raise ValueError(f"must be a whole number{self._bounds_text()}")
        return number

    def _bounds_text(self) -> str:
        return f" up to {self.most}" if self.least is None else f" >= {self.least} and at most {self.most}"


@dataclass(frozen=True)
class NumberType:
    """A number, fractions allowed, with a least value (``above``: greater than that value) and a greatest one."""

    least: float | None = None
    above: float | None = None
    most: float = 1e9

    def __call__(self, value: str, /) -> float:
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        low = (self.least is not None and number < self.least) or (self.above is not None and number <= self.above)
        if number != number or number > self.most or low:
            bound = f" >= {self.least:g}" if self.least is not None else ""
            bound = bound or (f" > {self.above:g}" if self.above is not None else "")
            raise ValueError(f"must be a number{bound} and at most {self.most:g}")
        return number


def parse_query(value: str) -> str:
    """Given query parameters in the form of the guide, ``name=value[&name=value...]``, return them as they are."""
    pairs = [pair.partition("=") for pair in value.lstrip("?").split("&") if pair.strip()]
    well_formed = all(name.strip() and sign for name, sign, _ in pairs)
    if value and not (pairs and well_formed):
        raise ValueError("must have the form name=value[&name=value...]")
    return value


def parse_extra_query(value: str) -> str:
    """Given further query parameters beside those of the window, or the word ``disable``, return them as they are."""
    if value.lower() == DISABLED:
        return value
    own = {name.lower() for name in WINDOW_PARAMETERS}
    taken = [name for name in parameter_names(parse_query(value)) if name.lower() in own]
    if taken:
        raise ValueError(
            f"must not hold {', '.join(taken)}: window_past, window_past_older_than and pagination set that already"
        )
    return value


def parse_switch(value: str) -> bool:
    """Given a whole number, return whether it is 1 (the guide: 1 = on, any other integer = off)."""
    try:
        return int(value) == 1
    except ValueError:
        raise ValueError("must be a whole number: 1 = on, any other = off") from None


@dataclass(frozen=True)
class ChoiceType:
    """One of a few words, in any case."""

    words: tuple[str, ...]

    def __call__(self, value: str, /) -> str:
        if value.lower() not in self.words:
            raise ValueError(f"must be one of: {', '.join(self.words)}")
        return value.lower()


def parse_trusted_ca(value: str) -> bool | Path:
    """Given true, false or the path of a PEM bundle, return the flag or the checked path (guide: TLS connections)."""
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    path = Path(value)
    read_certificates(path)
    return path.absolute()


def parse_certificate(value: str) -> Path:
    """Given the path of a PEM file with a server's certificate and those between it and its root, return it checked."""
    path = Path(value).absolute()
    try:
        read_certificates(path)
    except ValueError as error:
        raise ValueError(str(error).replace("must be true, false or", "must be")) from error
    return path


def parse_file(value: str) -> Path:
    """Given the path of an existing file that this process may read, return it absolute."""
    path = Path(value).absolute()
    if not (path.is_file() and os.access(path, os.R_OK)):
        raise ValueError("must be the path of a file that this process may read")
    return path


def parse_folder(value: str) -> Path:
    """Given the path of an existing folder that this process may write to, return it absolute."""
    path = Path(value).absolute()
    try:
        found = path.is_dir()
    except OSError as error:
        raise ValueError(f"must be the path of a folder that exists ({error.strerror})") from error
    if not found:
        raise ValueError("must be the path of a folder that exists")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise ValueError("must be a folder that this process may read and write")
    return path


def optional_type(inner: Callable[[str], object]) -> ValueType:
    """Given a type, return one that reads an empty value as None."""

    def parse_optional(value: str, /) -> object:
        return inner(value) if value else None

    return parse_optional
