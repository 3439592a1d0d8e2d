"""Query strings of call recordings: parses what the administrator writes, and encodes it for a URL. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, unquote_to_bytes

BUILT_IN_EXTRA_QUERY = "userData=SRSScreenRecordingStateStarted&scanAndScroll=true"
BUILT_IN_EXTRA_QUERY_SINCE = (8, 5, 201, 14)
# The value that disables the extra query.
DISABLED = "disable"

# The parameters in the guide, and those that the muxer sends itself.
WINDOW_PARAMETERS = ("startTime", "endTime", "limit")
KNOWN_PARAMETERS = ("callerPhoneNumber", "dialedPhoneNumber", "userName", "userData", "scanAndScroll", *WINDOW_PARAMETERS)

# "&sc" followed by "anAndScroll" became one sign in the printed guide (the HTML entity &sc; is U+227B).
_MISPRINT = re.compile(r"(?:>|\u227b|&gt;|&sc;)anAndScroll(?==)", re.IGNORECASE)


def repair_extra_query(query: str) -> str:
    """Return `query` with the misprint of the guide, ``>anAndScroll``, corrected to ``&scanAndScroll``."""
    return _MISPRINT.sub("&scanAndScroll", query)


def parameter_names(query: str) -> list[str]:
    """Return the names of the parameters of a configured query."""
    return [unquote(pair.partition("=")[0]) for pair in encode_query(query).split("&") if pair]


def encode_query(query: str) -> str:
    """Encode a configured query for a URL. Special characters are literal, but a valid ``%XX`` stays (our decision)."""
    pairs = (part.partition("=") for part in query.lstrip("?").split("&") if part.strip())
    return "&".join(f"{_encode_text(name.strip())}={_encode_text(value)}" for name, _, value in pairs)


def _encode_text(text: str) -> str:
    return quote(unquote_to_bytes(text), safe="*")


def parse_version(text: str) -> tuple[int, int, int, int] | None:
    """Parse an RWS version such as ``8.5.205.40``. Returns None when it is malformed."""
    match = re.fullmatch(r"\s*(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})\s*", text)
    if match is None:
        return None
    first, second, third, fourth = (int(group) for group in match.groups())
    return first, second, third, fourth
