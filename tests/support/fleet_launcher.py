"""Runs a poller or a worker of a fleet with changed constants of the product.

It does the same as muxer_process.py and ``python -m muxer worker``. FLEET_CONSTANTS contains the constants as JSON, by
``module.NAME``. With FLEET_MUX_ONCE, a process muxes the same media only once and returns copies afterwards."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from muxer import commands  # noqa: E402
from muxer.media.analyze.arrival import MediaInput  # noqa: E402
from muxer.media.engine import MediaEngine, MuxedFile  # noqa: E402


def set_constants() -> None:
    for name, value in json.loads(os.environ["FLEET_CONSTANTS"]).items():
        module, _, constant = name.rpartition(".")
        assert hasattr(importlib.import_module(module), constant), name
        setattr(sys.modules[module], constant, value)


def mux_once() -> None:
    original = MediaEngine.mux
    muxed_files: dict[bytes, tuple[MuxedFile, bytes]] = {}

    def mux_cached(self: MediaEngine, audio: MediaInput, screens: Sequence[MediaInput], folder: Path) -> MuxedFile:
        contents = (screen.path.read_bytes() for screen in (audio, *screens))
        mark = b"".join(hashlib.sha256(item).digest() for item in contents)
        if mark not in muxed_files:
            muxed = original(self, audio, screens, folder)
            muxed_files[mark] = muxed, muxed.path.read_bytes()
        muxed, content = muxed_files[mark]
        path = folder / muxed.path.name
        path.write_bytes(content)
        return replace(muxed, path=path)

    MediaEngine.mux = mux_cached


if __name__ == "__main__":
    set_constants()
    if "FLEET_MUX_ONCE" in os.environ:
        mux_once()
    sys.exit(commands.main(sys.argv[1:]))
