"""``config``: the configuration as the muxer takes it, and where each value comes from. Secrets are shown as stars."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muxer.commands.common import guarded, loaded, parser, show_json, show_table
from muxer.config import Loaded, types
from muxer.config.load import DEFAULT, default_of
from muxer.config.schema import Option, options
from muxer.masking import LOGIN_IN_URL

STARS = "********"
UNSET = "(not set)"


@dataclass(frozen=True)
class Setting:
    """One option as it stands: its value as a text, where that comes from, and whether it differs from the default."""

    section: str
    option: str
    value: str
    origin: str
    changed: bool


def main(argv: Sequence[str]) -> int:
    """Given the arguments of the command, print the effective configuration and return the exit code."""
    made = parser("config", "Show the effective configuration and where each value comes from; secrets are shown as stars.")
    made.add_argument("--changed", action="store_true", help="only what differs from the default")
    arguments = made.parse_args(argv)
    return guarded(lambda: _show(loaded(arguments), arguments.changed, arguments.json))


def _show(found: Loaded, changed: bool, as_json: bool) -> int:
    rows = [one for one in settings(found) if one.changed or not changed]
    if as_json:
        show_json({"settings": [asdict(one) for one in rows], "warnings": found.warnings})
        return 0
    cells = ((f"[{one.section}]", one.option, one.value, one.origin) for one in rows)
    show_table(("section", "option", "value", "from"), cells)
    sys.stdout.flush()
    for warning in found.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return 0


def settings(found: Loaded) -> Iterator[Setting]:
    """Given a configuration, yield every option as it stands, in the order of the sample file."""
    for section, name, option in options():
        value = getattr(getattr(found.config, section), name)
        origin = found.origins[section, name]
        shown = _secret(value, origin) if option.secret else text_of(option, value)
        yield Setting(section, name, shown, origin, origin != DEFAULT and value != default_of(option))


def text_of(option: Option, value: Any) -> str:
    """Given an option and its value, return it as it could stand in muxer.cfg; one that is not set is empty."""
    match value:
        case None:
            return ""
        case bool():
            return str(int(value)) if option.parse is types.switch else str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return ", ".join(value)
        case Path() | int():
            return str(value)
        case _:
            return LOGIN_IN_URL.sub("***@", str(value))


def _secret(value: str, origin: str) -> str:
    if origin == DEFAULT:
        return f"{UNSET}, that of the guide is used" if value else UNSET
    return STARS
