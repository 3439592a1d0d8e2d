"""The description of an option, which each field of a section in ``schema`` carries."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Any

from muxer.config import types


@dataclass(frozen=True)
class Option:
    """The description of one option.

    `default` is the text that an empty value stands for. `origin` is "guide", the Genesys deployment guide, or "ours", our
    decision.
    """

    parse: types.ValueType
    default: str
    doc: str
    origin: str
    required: bool = False
    env: str | None = None
    secret: bool = False
    aliases: tuple[str, ...] = ()
    command_line: bool = False


def _create_field(
    origin: str, parse: types.ValueType, default: str, doc: str, value: Any = dataclasses.MISSING, **details: Any
) -> Any:
    """Create a dataclass field with the description of an option. `value` is the default of the field."""
    option = Option(parse, default, doc, origin, **details)
    return dataclasses.field(default=value, metadata={"option": option}, repr=not option.secret)


guide_option, own_option = partial(_create_field, "guide"), partial(_create_field, "ours")
