"""The state of a running instance, created by the module that reports it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from muxer.status import state_file
from muxer.status.activity import Activity
from muxer.status.state_file import StateFile
from muxer.system.masking import Mask


def new_instance_state(folder: Path | None) -> dict[str, Any]:
    """Return the content of the state file of an instance that has just started.

    The file is written to `folder` and removed again."""
    with tempfile.TemporaryDirectory(dir=folder) as temp_folder:
        path = Path(temp_folder) / state_file.STATE_FILE
        StateFile(path, "single", Mask()).write_state(Activity().take_snapshot(), 0, (), has_room=True)
        found: dict[str, Any] = json.loads(path.read_text())
        return found
