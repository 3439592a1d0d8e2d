"""Runs a command of the muxer that kills itself with SIGKILL at the point named by the first argument."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from muxer import commands
from muxer.gir.publish import Publisher
from muxer.gir.rws import RwsClient
from muxer.media.engine import MediaEngine
from muxer.pipeline.superseded import SupersededCleaner

# The method at which the process dies, and whether the method is executed first.
CRASH_POINTS: dict[str, tuple[type, str, bool]] = {
    "fetched": (MediaEngine, "mux", False),
    "stored": (Publisher, "publish_entry", False),
    "posted": (RwsClient, "post_media", True),
    "published": (SupersededCleaner, "delete_file", False),
    "entry deleted": (RwsClient, "delete_media", True),
}

if __name__ == "__main__":
    owner, name, after = CRASH_POINTS[sys.argv[1]]
    original = getattr(owner, name)

    def call_and_die(*args: Any, **kwargs: Any) -> None:
        if after:
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    setattr(owner, name, call_and_die)
    sys.exit(commands.main(sys.argv[2:]))
