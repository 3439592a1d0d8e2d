"""Runs a command of the muxer that kills itself with SIGKILL at a named point, which is its first argument."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from muxer import cli
from muxer.gir.publish import Publisher
from muxer.gir.rws import Rws
from muxer.media.engine import Engine
from muxer.superseded import Superseded

# The method that is reached, and whether it is done before the death.
POINTS: dict[str, tuple[type, str, bool]] = {
    "fetched": (Engine, "mux", False),
    "stored": (Publisher, "publish", False),
    "posted": (Rws, "post_media", True),
    "published": (Superseded, "delete", False),
    "entry deleted": (Rws, "delete_media", True),
}

if __name__ == "__main__":
    owner, name, after = POINTS[sys.argv[1]]
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> None:
        if after:
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)

    setattr(owner, name, wrapped)
    sys.exit(cli.main(sys.argv[2:]))
