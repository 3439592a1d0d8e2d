"""Command `config`: show every option with its value and where that comes from. Secrets are masked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from muxer.commands._shared.common import create_parser, exit_code_of, load_configuration, show_json, show_table
from muxer.config import LoadedConfig, types
from muxer.config.load import DEFAULT, KEYSTORE_UNUSABLE_TEXT, default_value
from muxer.config.option import Option
from muxer.config.schema import Config, all_options
from muxer.system.masking import mask_credentials

MASKED_TEXT = "********"
UNSET_TEXT = "(not set)"
UNKNOWN_TEXT = "(unknown)"


@dataclass(frozen=True)
class Setting:
    """An option, its value as text, the origin of that, and whether it differs from the default."""

    section: str
    option: str
    value: str
    origin: str
    changed: bool


def main(argv: Sequence[str]) -> int:
    """Run the command with the arguments after its name and return the exit code."""
    parser = create_parser("config", "Show every option with its value and where that comes from. Secrets are masked.")
    parser.add_argument("--changed", action="store_true", help="only options that differ from the default")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda: _show_settings(arguments))


def _show_settings(arguments: argparse.Namespace) -> int:
    loaded = load_configuration(arguments, needs_secrets=False)
    return _print_settings(loaded, arguments.changed, arguments.json)


def _print_settings(loaded: LoadedConfig, changed: bool, as_json: bool) -> int:
    settings = effective_settings(loaded.config, loaded.origins)
    rows = [setting for setting in settings if setting.changed or not changed]
    if as_json:
        show_json({"settings": [asdict(setting) for setting in rows], "warnings": loaded.warnings})
        return 0
    cells = ((f"[{setting.section}]", setting.option, setting.value, setting.origin) for setting in rows)
    show_table(("section", "option", "value", "from"), cells)
    sys.stdout.flush()
    for warning in loaded.warnings:
        sys.stderr.write(f"warning: {warning}\n")
    return 0


def effective_settings(config: Config, origins: Mapping[tuple[str, str], str]) -> Iterator[Setting]:
    """Yield every option in the order of the sample file. One without origin, in an unreadable file, has its default."""
    for section, name, option in all_options():
        value = getattr(getattr(config, section), name)
        origin = origins.get((section, name), DEFAULT)
        shown = _masked_secret(value, origin) if option.secret else option_text(option, value)
        yield Setting(section, name, shown, origin, origin != DEFAULT and value != default_value(option))


def option_text(option: Option, value: Any) -> str:
    """Return a value in the syntax of muxer.cfg; empty when the option is not set."""
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
            return mask_credentials(str(value))


def _masked_secret(value: str, origin: str) -> str:
    if origin == KEYSTORE_UNUSABLE_TEXT:
        return UNKNOWN_TEXT
    if origin == DEFAULT:
        return f"{UNSET_TEXT}, the default of the guide is used" if value else UNSET_TEXT
    return MASKED_TEXT
