"""Which call recordings a query returns: the semantics of the deployment guide, without a server."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from lab.times import epoch_ms

JSON = dict[str, Any]


class BadParameter(ValueError):
    """The value of a query parameter is invalid; the text names the parameter."""


def integer_parameter(parameters: dict[str, str], name: str, default: int, minimum: int = 0) -> int:
    """Return an integer from the query, or the default. Raises BadParameter if it is invalid or below `minimum`."""
    text = parameters.get(name, "")
    if not text:
        return default
    if not re.fullmatch(r"\d{1,18}", text) or int(text) < minimum:
        raise BadParameter(f"The parameter {name} is invalid")
    return int(text)


def recording_filter(parameters: dict[str, str]) -> Callable[[JSON], bool]:
    """Return a function that decides whether the decoded query parameters select a call recording [gir-api 3, guide].

    All given parameters must match; unknown ones are ignored. Raises BadParameter for a bad time.
    """
    earliest, latest = integer_parameter(parameters, "startTime", 0), integer_parameter(parameters, "endTime", 10**18)

    def matches_recording(recording: JSON) -> bool:
        return (
            epoch_ms(recording["startTime"]) >= earliest
            and epoch_ms(recording["stopTime"]) <= latest
            and _phone_matches(parameters.get("callerPhoneNumber"), recording.get("callerPhoneNumber"))
            and _phone_matches(parameters.get("dialedPhoneNumber"), recording.get("dialedPhoneNumber"))
            and _names_match(parameters.get("userName"), recording)
            and _data_matches(parameters.get("userData"), recording)
        )

    return matches_recording


def _phone_matches(wanted: str | None, stored: str | None) -> bool:
    """Compare letters and digits only, case-sensitively; `*` stands for any symbols [guide]."""
    if wanted is None:
        return True
    return _matches_pattern(re.sub(r"[^0-9A-Za-z*]", "", wanted), re.sub(r"[^0-9A-Za-z]", "", stored or ""))


def _names_match(wanted: str | None, recording: JSON) -> bool:
    """A blank is OR; `AND` joins its neighbours, which may be found in different users; case is ignored [guide]."""
    if wanted is None:
        return True
    contacts = [event.get("contact") or {} for event in recording.get("eventHistory", [])]
    names = {str(contact.get(key, "")).lower() for contact in contacts for key in ("userName", "firstName", "lastName")}
    return any(all(_any_matches(term.lower(), names) for term in group) for group in _and_groups(wanted))


def _and_groups(text: str) -> list[list[str]]:
    groups: list[list[str]] = []
    joined = False
    for word in text.split():
        if word == "AND":
            joined = bool(groups)
        elif joined:
            groups[-1].append(word)
            joined = False
        else:
            groups.append([word])
    return groups


def _data_matches(wanted: str | None, recording: JSON) -> bool:
    """A term must equal a value in an event's data; `*` stands for any symbols, a blank is OR [guide]."""
    if wanted is None:
        return True
    values = {str(v) for event in recording.get("eventHistory", []) for v in (event.get("data") or {}).values()}
    return any(_any_matches(term, values) for term in wanted.split())


def _any_matches(pattern: str, values: Iterable[str]) -> bool:
    return any(_matches_pattern(pattern, value) for value in values)


def _matches_pattern(pattern: str, value: str) -> bool:
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.fullmatch(expression, value, re.DOTALL) is not None
