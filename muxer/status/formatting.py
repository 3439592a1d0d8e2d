"""Formats times, durations and texts for the status page and the commands. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

MAX_SHOWN_NAME_LENGTH = 80
MAX_SHOWN_REASON_LENGTH = 300
_URL = re.compile(r"([a-z][a-z0-9+.-]*://)(?:[^/\s?#@]*@)?([^/\s?#]+)[^\s,;)]*", re.IGNORECASE)
_FILE = re.compile(r"[^\s,;()]+\.(?:mp4|mp3|m4a|wav|webm|mkv|ts|opus|ogg|pcm|bin|part)\b(?:\.\w+)*", re.IGNORECASE)
# Parts of a text: amounts and IP addresses, which are kept; telephone numbers and words with digits, which are masked.
_PART = re.compile(
    r"(?P<kept>\d+(?:\.\d+)? (?:bytes|MB|MiB|kB|s|h|frames|pixels)\b|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b)"
    r"|(?P<number>\+?\d[\d \-./()]{5,}\d)|(?P<word>[^\s,;]+)"
)
_DIGITS = 7
# Servers in a word, whose digits do not count: the host of a URL, an IP address, each with its port.
_SERVER = re.compile(
    r"https?://[a-z0-9.-]*[a-z][a-z0-9.-]*(?::\d+)?|\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\[[0-9a-f:.]+\](?::\d+)?",
    re.IGNORECASE,
)


def format_time(at: float) -> str:
    """Return the time of day in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M")


def format_datetime(at: float) -> str:
    """Return date and time in UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(at: float) -> str:
    """Return a time in the format of the HTML attribute ``datetime``."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_span(seconds: float) -> str:
    """Return a duration in one or two units: ``42 s``, ``5 min``, ``3 h 20 min``, ``2 d 4 h``."""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def format_ago(at: float, now: float) -> str:
    """Return the time from `at` to `now`, such as ``5 min ago`` or ``in 5 min``."""
    if abs(now - at) < 1:
        return "just now"
    return f"{format_span(now - at)} ago" if at < now else f"in {format_span(at - now)}"


def format_position(seconds: float, digits: int = 0) -> str:
    """Return a position in a recording in the format of players: ``1:05``, ``1:02:03``, ``−0:03``."""
    scaled = round(abs(seconds) * 10**digits)
    whole, rest = divmod(scaled, 10**digits)
    sign = "−" if seconds < 0 and scaled else ""
    hours, rest_of_hour = divmod(whole, 3600)
    minutes, remainder = divmod(rest_of_hour, 60)
    fraction = f".{rest:0{digits}}" if digits else ""
    front = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{sign}{front}:{remainder:02}{fraction}"


def format_exact(seconds: float) -> str:
    """Return a duration with a tenth of a second, from a minute on without: ``7.5 s``, ``1:30 min``."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    return f"{format_position(seconds)} {'h' if round(seconds) >= 3600 else 'min'}"


def format_megabytes(size: float) -> str:
    """Return a number of bytes with a unit."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size:.0f} bytes"


def single_line(words: object, longest: int = MAX_SHOWN_NAME_LENGTH) -> str:
    """Return one printable line of at most `longest` characters; a long one is cut in the middle."""
    characters = (char if _is_printable(char) else "\N{REPLACEMENT CHARACTER}" for char in str(words)[: 4 * longest])
    line = " ".join("".join(characters).split())
    if len(line) <= longest and len(str(words)) <= 4 * longest:
        return line
    half = (longest - 1) // 2
    return f"{line[:half]}…{line[-half:]}" if len(str(words)) <= 4 * longest else f"{line[: longest - 1]}…"


def redact(reason: str, agent: str = "", longest: int = MAX_SHOWN_REASON_LENGTH, known: Sequence[str] = ()) -> str:
    """Return `reason` without what may identify a person: paths, media files, `agent`, telephone numbers.

    Words of the site that are `known` stay.
    """
    masked = _FILE.sub("(a media file)", _URL.sub(r"\1\2/…", single_line(reason, 4 * longest)))
    if agent:
        masked = re.sub(re.escape(single_line(agent, len(agent))), "(the agent)", masked, flags=re.IGNORECASE)
    kept = "|".join(map(re.escape, known)) or "(?!)"
    parts = re.split(rf"(?<![\w-])({kept})(?![\w-])", masked)
    shown = (part if number % 2 else _PART.sub(_mask_numbers, part) for number, part in enumerate(parts))
    return single_line("".join(shown), longest)


def _mask_numbers(match: re.Match[str]) -> str:
    if match["number"]:
        return "(a number)"
    if match["word"] and sum(map(str.isdigit, _SERVER.sub("", match["word"]))) >= _DIGITS:
        return "(a name)"
    return match[0]


def _is_printable(char: str) -> bool:
    return char.isspace() or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
