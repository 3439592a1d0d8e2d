"""Which variants of a test run always, and which only with the long tests (`./install.sh --test --long`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def spread_variants(variants: Iterable[Any], every: int) -> list[Any]:
    """Return `variants` as parameters: the first of each `every` runs always, the others are long.

    A tuple is the parameters of one variant. Tables of variants are ordered by family, so each family keeps some that run
    always.
    """
    return [
        variant
        if number % every == 0
        else pytest.param(*(variant if isinstance(variant, tuple) else (variant,)), marks=pytest.mark.long)
        for number, variant in enumerate(variants)
    ]
