"""``config``: the configuration as the muxer takes it, and where each value comes from. Secrets are shown as stars."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muxer.commands._shared.common import create_parser, exit_code_of, load_configuration, show_json, show_table
from muxer.config import LoadedConfig, types
from muxer.config.load import DEFAULT, default_value
from muxer.config.schema import Option, all_options
from muxer.system.masking import URL_CREDENTIALS

MASKED_TEXT = "********"
UNSET_TEXT = "(not set)"


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
    made = create_parser(
        "config", "Show the effective configuration and where each value comes from; secrets are shown as stars."
    )
    made.add_argument("--changed", action="store_true", help="only what differs from the default")
    arguments = made.parse_args(argv)
    return exit_code_of(lambda: _print_settings(load_configuration(arguments), arguments.changed, arguments.json))


def _print_settings(found: LoadedConfig, changed: bool, as_json: bool) -> int:
    rows = [one for one in effective_settings(found) if one.changed or not changed]
    if as_json:
        show_json({"settings": [asdict(one) for one in rows], "warnings": found.warnings})
        return 0
    cells = ((f"[{one.section}]", one.option, one.value, one.origin) for one in rows)
    show_table(("section", "option", "value", "from"), cells)
    sys.stdout.flush()
    for warning in found.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return 0


def effective_settings(found: LoadedConfig) -> Iterator[Setting]:
    """Given a configuration, yield every option as it stands, in the order of the sample file."""
    for section, name, option in all_options():
        value = getattr(getattr(found.config, section), name)
        origin = found.origins[section, name]
        shown = _masked_secret(value, origin) if option.secret else option_text(option, value)
        yield Setting(section, name, shown, origin, origin != DEFAULT and value != default_value(option))


def option_text(option: Option, value: Any) -> str:
    """Given an option and its value, return it as it could stand in muxer.cfg; one that is not set is empty."""
    match value:
        case None:
            return ""
        case bool():
            return str(int(value)) if option.parse is types.parse_switch else str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return ", ".join(value)
        case Path() | int():
            return str(value)
        case _:
            return URL_CREDENTIALS.sub("***@", str(value))


def _masked_secret(value: str, origin: str) -> str:
    if origin == DEFAULT:
        return f"{UNSET_TEXT}, that of the guide is used" if value else UNSET_TEXT
    return MASKED_TEXT
