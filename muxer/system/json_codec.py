"""Converts parsed JSON to dataclasses by their annotations. Fields that the class does not know are ignored."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Iterable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

# What `from_json` raises for data of another form.
MALFORMED_ERRORS = (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError)

_hints = functools.cache(get_type_hints)


def from_json(cls: type[T], data: Any) -> T:
    """Create a `cls` from JSON, without malformed elements of tuples. Raises one of :data:`MALFORMED_ERRORS`."""
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]
    absent = {one.name for one in fields(cls) if one.name not in data}  # type: ignore[arg-type]
    required = {one.name for one in fields(cls) if one.default is MISSING and one.default_factory is MISSING}  # type: ignore[arg-type]
    if missing := absent & required:
        raise KeyError(", ".join(sorted(missing)))
    return cls(**{name: _convert(hint, data[name]) for name, hint in hints.items() if name not in absent})


def _convert(kind: Any, value: Any) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return None if value is None else _convert(next(one for one in arguments if one is not types.NoneType), value)
    if origin is tuple:
        return tuple(_convert_valid(arguments[0], value))
    if origin is dict:
        return {str(name): _convert(arguments[1], item) for name, item in value.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        return from_json(kind, value)
    if kind in (int, float):
        return int(_finite(value)) if kind is int else _finite(value)
    if kind is not Any and not isinstance(value, kind):
        raise TypeError(f"{value!r} is not of type {kind.__name__}")
    return value


def _convert_valid(kind: Any, values: Iterable[Any]) -> Iterable[Any]:
    for value in values:
        try:
            yield _convert(kind, value)
        except MALFORMED_ERRORS:
            continue


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is not a finite number")
    return value
