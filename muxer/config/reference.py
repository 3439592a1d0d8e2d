"""Generates ``muxer.cfg.sample`` and the option reference from the schema: ``python -m muxer.config.reference sample``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby

from muxer.config.option import Option
from muxer.config.schema import SECTIONS, all_options

_SAMPLE_HEADER = """\
# Configuration of the Recording Muxer. Copy this file to muxer.cfg, and set the required options of [htcc].
# It lists every option with its default; an empty value means the default. Options may be written with - or _.
# A % in a value is plain text. A comment needs a separate line.
"""

_REFERENCE_HEADER = """\
# Option reference

Names and sections are read in any case, `-` and `_` are the same in option names, and an empty value means the default.
Origin *guide*: the Genesys deployment guide; *ours*: our addition. This page is generated from `muxer/config/schema.py`
(`python -m muxer.config.reference options`).

Precedence: command line (the three sharding options), environment (passwords), file, [keystore](passwords.md) (a password
that is left empty), default.
"""


def render_sample() -> str:
    """Return the text of ``muxer.cfg.sample``: every option with its default and a comment line."""
    return _SAMPLE_HEADER + "".join(_sample_section(section, options) for section, options in _options_by_section())


def render_reference() -> str:
    """Return the text of the option reference, in Markdown."""
    return _REFERENCE_HEADER + "".join(_reference_section(section, options) for section, options in _options_by_section())


def _options_by_section() -> Iterator[tuple[str, list[tuple[str, Option]]]]:
    for section, group in groupby(all_options(), key=lambda entry: entry[0]):
        yield section, [(name, option) for _, name, option in group]


def _sample_section(section: str, options: list[tuple[str, Option]]) -> str:
    lines = [f"\n[{section}]"]
    for name, option in options:
        lines += [f"# {_default_sentence(option)}", f"{name} = {option.default}".rstrip()]
    return "\n".join([*lines, ""])


def _reference_section(section: str, options: list[tuple[str, Option]]) -> str:
    summary = (SECTIONS[section].__doc__ or "").strip()
    lines = [f"\n## [{section}]\n", f"{summary}\n", "| option | default | meaning | origin |", "|---|---|---|---|"]
    for name, option in options:
        names = ", ".join(f"`{one}`" for one in (name, *option.aliases))
        default = f"`{option.default}`" if option.default else ("required" if option.required else "empty")
        lines.append(f"| {names} | {default} | {_default_sentence(option)} | {option.origin} |")
    return "\n".join([*lines, ""])


def _default_sentence(option: Option) -> str:
    where = f"; environment: {option.env}" if option.env else ""
    where += "; empty = from the keystore, if it holds one" if option.secret else ""
    where += "; also on the command line" if option.command_line else ""
    return f"{option.doc}{where}{'; required' if option.required else ''}"


if __name__ == "__main__":
    sys.stdout.write(render_reference() if sys.argv[1:] == ["options"] else render_sample())
