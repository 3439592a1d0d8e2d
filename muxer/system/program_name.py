"""The name under which the user started this program, for usage texts."""

from __future__ import annotations

import sys
from pathlib import Path


def typed_name() -> str:
    """Return the program as it was typed, such as ``recording-muxer`` or ``python -m muxer``."""
    name = Path(sys.argv[0]).name
    return {"__main__.py": "python -m muxer", "-c": "recording-muxer"}.get(name, name)
